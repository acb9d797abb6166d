"""`AsyncStore`: any store for coroutines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from datastore.context import CancelToken
from datastore.errors import StoreError
from datastore.model import (
    Capabilities,
    Cursor,
    ListPage,
    Metadata,
    ObjectEntry,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
)
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from stowstore.config import StoreConfig
from stowstore.interop.asyncio.gate import Gate
from stowstore.interop.asyncio.streams import AsyncReadStream, PulledSource
from stowstore.store import open_store

T = TypeVar("T")

__all__ = ["AsyncStore"]


class AsyncStore:
    """The verbs of `datastore.protocol.Store` as coroutines, with the same meanings and errors.

    At most ``max_concurrency`` of them are under way at once; others wait for their turn, so that a task group of any
    size is no load.  Deadlines and tokens of `datastore.context` hold.  Cancelling a task stops the operation, where
    the driver can even in flight, and the task ends when that has ended.  An open stream takes a place only while it
    is read.

    It can be pickled where the store can, and an ``async with`` block closes the store with it.
    """

    def __init__(self, store: Store, *, max_concurrency: int = 32) -> None:
        self.store = store
        self._gate = Gate(max_concurrency)

    @classmethod
    async def open(
        cls,
        source: StoreConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        *,
        max_concurrency: int = 32,
        **overrides: Any,
    ) -> Self:
        """Opens a store; see `stowstore.open_store`."""
        return cls(await asyncio.to_thread(open_store, source, **overrides), max_concurrency=max_concurrency)

    @property
    def max_concurrency(self) -> int:
        """How many operations are under way at once."""
        return self._gate.limit

    @property
    def base_container_fqn(self) -> DataReference:
        """The reference of the base container."""
        return self.store.base_container_fqn

    async def capabilities(self, reference: Reference | None = None) -> Capabilities:
        """See `DataStore.capabilities`."""
        return await self._run(lambda: self.store.capabilities(reference))

    async def head(self, reference: Reference) -> Metadata:
        """See `DataStore.head`."""
        return await self._run(lambda: self.store.head(reference))

    async def exists(self, reference: Reference) -> bool:
        """Whether there is such an object."""
        return (await self.head(reference)).exists

    async def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        """See `DataStore.list_page`."""
        return await self._run(
            lambda: self.store.list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)
        )

    async def list(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        directory: bool = False,
    ) -> tuple[list[DataReference], Cursor]:
        """See `Store.list`."""
        page = await self.list_page(prefix, max_items, cursor, directory=directory)
        return [entry.reference for entry in page.entries], page.cursor

    async def walk(
        self, prefix: Reference, *, directory: bool = False, page_size: int | None = None
    ) -> AsyncIterator[ObjectEntry]:
        """Every object below a prefix, ascending; a page is fetched when the one before is used up."""
        cursor = Cursor.at_start()
        while not cursor.is_at_end:
            page = await self.list_page(prefix, page_size, cursor, directory=directory)
            for entry in page.entries:
                yield entry
            cursor = page.cursor

    async def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> AsyncReadStream:
        """See `DataStore.read_raw`; the caller closes the stream."""
        token = CancelToken()
        stream = await self._gate.run(
            lambda: self.store.read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match),
            token=token,
            unwanted=lambda found: found.close(),
        )
        return AsyncReadStream(self._gate, stream, token)

    async def read_bytes(self, reference: Reference, start: int = 0, length: int | None = None) -> bytes:
        """The content of an object, or of a range of it, in memory."""
        return await self._run(lambda: self.store.read_bytes(reference, start, length))

    async def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        source: SourceLike | Source | AsyncIterable[bytes],
    ) -> Metadata:
        """See `DataStore.write_raw`; of an asynchronous iterable a piece is taken whenever the store has room for it.

        Such a source is read once, so a write of it that fails is not tried again.
        """
        token = CancelToken()
        if not isinstance(source, AsyncIterable):
            plain = source
            return await self._gate.run(lambda: self.store.write_raw(reference, size, options, plain), token=token)
        pulled = PulledSource(source, token)
        return await self._gate.run(lambda: self.store.write_raw(reference, size, options, pulled), token=token)

    async def write_bytes(self, reference: Reference, data: bytes, options: WriteOptions | None = None) -> Metadata:
        """Writes an object from memory."""
        return await self._run(lambda: self.store.write_bytes(reference, data, options))

    async def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        """See `DataStore.delete`."""
        await self._run(lambda: self.store.delete(reference, missing_ok=missing_ok))

    async def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        """See `DataStore.delete_many`."""
        doomed = [*references]
        return await self._run(lambda: self.store.delete_many(doomed))

    async def copy_raw(
        self, source: Reference, destination: Reference, options: WriteOptions | None = None
    ) -> Metadata:
        """See `DataStore.copy_raw`."""
        return await self._run(lambda: self.store.copy_raw(source, destination, options))

    async def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        """See `DataStore.create_signed_url`."""
        return await self._run(lambda: self.store.create_signed_url(reference, properties))

    async def close(self) -> None:
        """Waits for what is under way, then closes the store."""
        await self._gate.close()
        await asyncio.to_thread(self.store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.store, self._gate.limit)

    def __repr__(self) -> str:
        return f"AsyncStore({self.store!r}, max_concurrency={self._gate.limit})"

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._gate.run(call)


def _rebuilt(kind: type[AsyncStore], store: Store, max_concurrency: int) -> AsyncStore:
    return kind(store, max_concurrency=max_concurrency)
