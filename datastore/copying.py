"""Copies that move the bytes through here: between stores, and where a backend cannot copy on its side."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from attrs import evolve

from datastore.errors import StoreError
from datastore.model import CONTENT_MD5_KEY, Capabilities, Feature, Metadata, WriteOptions
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream

__all__ = ["stream_copy"]


class _Readable(Protocol):
    def read_raw(
        self, reference: DataReference, /, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ReadStream: ...


class _Writable(Protocol):
    def capabilities(self, reference: DataReference, /) -> Capabilities: ...

    def write_raw(
        self,
        reference: DataReference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
        /,
    ) -> Metadata: ...


def stream_copy(
    source_store: _Readable,
    source: DataReference,
    destination_store: _Writable,
    destination: DataReference,
    options: WriteOptions | None = None,
) -> Metadata:
    """Copies an object with bounded memory, its metadata carried over and overridden by ``options``.

    Metadata the destination cannot keep are left behind, as nobody asked for them; those in ``options`` are not.  The
    download limit does not apply.  The digest the writer kept is verified on the way.

    Raises:
        NotFound: there is no source; every error names the side that failed.
    """
    with _SourceSide(source_store, source) as stream:
        try:
            wanted = _carried(options or WriteOptions(), stream.metadata, destination_store.capabilities(destination))
            return destination_store.write_raw(destination, stream.size, wanted, stream)
        except StoreError as error:
            error.about("write", destination)
            raise


class _SourceSide:
    """The source of a copy, as a stream that goes back to its start by opening the same object again.

    So a write that is tried again needs no buffer.  Its failures say that the source failed: they surface in the middle
    of the write.  Without an etag nothing says that the object is still the same, and it cannot go back.
    """

    def __init__(self, store: _Readable, reference: DataReference) -> None:
        self._store = store
        self._reference = reference
        self._stream = self._open(None)
        self.metadata: Metadata = self._stream.metadata
        self.size = self._stream.size

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except StoreError as error:
            error.about("read", self._reference)
            raise

    def seekable(self) -> bool:
        return bool(self.metadata.etag)

    def tell(self) -> int:
        return self._stream.position

    def seek(self, offset: int, /) -> int:
        if offset:
            raise ValueError(f"a copy's source goes back to its start, not to {offset}")
        self._stream.close()
        self._stream = self._open(self.metadata.etag)
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def _open(self, etag: str | None) -> ReadStream:
        try:
            return self._store.read_raw(self._reference, max_bytes=0, if_match=etag)
        except StoreError as error:
            error.about("read", self._reference)
            raise


def _carried(options: WriteOptions, known: Metadata, able: Capabilities) -> WriteOptions:
    if Feature.USER_METADATA not in able:
        known = evolve(known, user_metadata={})
    if Feature.CONTENT_HEADERS not in able:
        known = evolve(known, content_type=None, cache_control=None, content_encoding=None, content_disposition=None)
    merged = options.merged_over(known)
    digest = known.content_md5
    if digest and options.content_md5 is None and CONTENT_MD5_KEY.lower() not in options.metadata:
        try:
            return evolve(merged, content_md5=digest)
        except ValueError:
            # Somebody kept other text under that name: it is data, not a digest.
            return merged
    return merged
