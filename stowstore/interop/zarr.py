"""Arrays of zarr in any store: `StowZarrStore`, a store of zarr over one of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.common import concurrent_map

from datastore.errors import AlreadyExists, NotFound, PreconditionFailed
from datastore.model import Cursor, Feature, WriteOptions
from datastore.protocol import Reference
from datastore.protocol import Store as DataStore
from datastore.reference import DataReference
from stowstore.interop.asyncio import AsyncStore

__all__ = ["StowZarrStore"]


class StowZarrStore(Store):
    """Keeps arrays and groups of zarr below a reference of a store.

    Chunks are read and written ``max_concurrency`` at once, by zarr's own event loop.  It is pickled with its store,
    so Dask's workers can have it.  Closing leaves the store open: it belongs to the caller.
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(
        self, store: DataStore, base: Reference | None = None, *, read_only: bool = False, max_concurrency: int = 32
    ) -> None:
        super().__init__(read_only=read_only)
        self.store = store
        if base is None:
            self.base = store.base_container_fqn
        else:
            self.base = base if isinstance(base, DataReference) else DataReference(base)
        self._asynchronous = AsyncStore(store, max_concurrency=max_concurrency)

    def with_read_only(self, read_only: bool = False) -> StowZarrStore:
        """The same place, to be written or not."""
        limit = self._asynchronous.max_concurrency
        return type(self)(self.store, self.base, read_only=read_only, max_concurrency=limit)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        await self._require_open()
        start, length = _range_of(byte_range)
        try:
            data = await self._asynchronous.read_bytes(self._reference(key), start, length)
        except NotFound:
            return None
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        wanted = [(key, prototype, byte_range) for key, byte_range in key_ranges]
        return await concurrent_map(wanted, self.get, limit=None)

    async def getsize(self, key: str) -> int:
        found = await self._asynchronous.head(self._reference(key))
        if not found.exists:
            raise FileNotFoundError(key)
        return found.size

    async def exists(self, key: str) -> bool:
        return await self._asynchronous.exists(self._reference(key))

    async def set(self, key: str, value: Buffer) -> None:
        await self._write(key, value, None)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        reference = self._reference(key)
        if Feature.CREATE_IF_ABSENT not in self.store.capabilities(reference):
            if not await self._asynchronous.exists(reference):
                await self._write(key, value, None)
            return
        try:
            await self._write(key, value, WriteOptions(if_absent=True))
        except (AlreadyExists, PreconditionFailed):
            # Whoever was first has written it, which is all that is asked for.
            return

    async def delete(self, key: str) -> None:
        self._check_writable()
        await self._require_open()
        await self._asynchronous.delete(self._reference(key))

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()
        await self._require_open()
        base = self.base.join(prefix) if prefix else self.base
        doomed = [entry.reference async for entry in self._asynchronous.walk(base, directory=True)]
        for error in (await self._asynchronous.delete_many(doomed)).values():
            raise error

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        above = len(self.base.key) + 1 if self.base.key else 0
        directory = not prefix or prefix.endswith("/")
        start = self.base.join(prefix) if prefix else self.base
        async for entry in self._asynchronous.walk(start, directory=directory):
            yield entry.reference.key[above:]

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = self.base.join(prefix) if prefix else self.base
        cursor = Cursor.at_start()
        while not cursor.is_at_end:
            page = await self._asynchronous.list_page(start, None, cursor, delimiter="/", directory=True)
            for reference in (*(entry.reference for entry in page.entries), *page.prefixes):
                yield reference.name
            cursor = page.cursor

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """`get` without an event loop."""
        self._is_open = True
        try:
            data = self.store.read_bytes(self._reference(key), *_range_of(byte_range))
        except NotFound:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def set_sync(self, key: str, value: Buffer) -> None:
        """`set` without an event loop."""
        self._check_writable()
        self._is_open = True
        self.store.write_bytes(self._reference(key), self._bytes_of(value))

    def delete_sync(self, key: str) -> None:
        """`delete` without an event loop."""
        self._check_writable()
        self._is_open = True
        self.store.delete(self._reference(key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StowZarrStore) and (self.base, self.read_only) == (other.base, other.read_only)

    def __hash__(self) -> int:
        return hash((self.base, self.read_only))

    def __str__(self) -> str:
        return f"stow+{self.base}"

    def __repr__(self) -> str:
        return f"StowZarrStore({str(self.base)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": (self.store, self.base, self.read_only, self._asynchronous.max_concurrency)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        store, base, read_only, limit = state["arguments"]
        StowZarrStore.__init__(self, store, base, read_only=read_only, max_concurrency=limit)
        self._is_open = True

    async def _write(self, key: str, value: Buffer, options: WriteOptions | None) -> None:
        self._check_writable()
        await self._require_open()
        await self._asynchronous.write_bytes(self._reference(key), self._bytes_of(value), options)

    def _bytes_of(self, value: Buffer) -> bytes:
        if not isinstance(value, Buffer):
            raise TypeError(
                f"{type(self).__name__}.set(): `value` must be a Buffer instance. "
                f"Got an instance of {type(value)} instead."
            )
        return value.to_bytes()

    async def _require_open(self) -> None:
        if not self._is_open:
            await self._open()

    def _reference(self, key: str) -> DataReference:
        return self.base.join(key)


def _range_of(wanted: ByteRequest | None) -> tuple[int, int | None]:
    """Where a range starts, from the end where negative, and how long it is."""
    if wanted is None:
        return 0, None
    if isinstance(wanted, RangeByteRequest):
        return wanted.start, wanted.end - wanted.start
    if isinstance(wanted, OffsetByteRequest):
        return wanted.offset, None
    if isinstance(wanted, SuffixByteRequest):
        return (-wanted.suffix, None) if wanted.suffix else (0, 0)
    raise ValueError(f"Unexpected byte_range, got {wanted}.")
