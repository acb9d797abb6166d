"""Copies that move the bytes through here: between stores, and where a backend cannot copy on its side."""

from __future__ import annotations

from typing import Protocol

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
    try:
        stream = source_store.read_raw(source, max_bytes=0)
    except StoreError as error:
        error.about("read", source)
        raise
    with stream:
        try:
            known = stream.metadata
            wanted = _carried(options or WriteOptions(), known, destination_store.capabilities(destination))
            return destination_store.write_raw(destination, stream.size, wanted, _SourceSide(stream, source))
        except StoreError as error:
            error.about("write", destination)
            raise


class _SourceSide:
    """A stream whose failures say that the source failed: they surface in the middle of a write."""

    def __init__(self, stream: ReadStream, reference: DataReference) -> None:
        self._stream = stream
        self._reference = reference

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
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
