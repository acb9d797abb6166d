"""Opening objects: ranges as S3 understands them, and the two ways the bytes come."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import obstore

from datastore.context import Limits
from datastore.errors import PreconditionFailed, StoreError
from datastore.model import Metadata
from datastore.stream import ReadStream
from stowstore.locations.s3.errors import FOREIGN, translate
from stowstore.locations.s3.headers import metadata_of_answer, metadata_of_result, object_size
from stowstore.locations.s3.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import GetOptions, GetResult
    from obstore.store import S3Store

__all__ = ["SMALL", "empty_range", "open_on_wire", "open_with_obstore", "stream_of"]

#: Up to here an object is fetched whole at once: nothing to stream.
SMALL = 256 << 10
#: Up to here a reader who wants everything gets it in one piece.
_AT_ONCE = 32 << 20
#: How much obstore gathers before it hands it over.
_PIECE = 1 << 20


def open_with_obstore(store: S3Store, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
    """Opens a range, not an empty one; raises what obstore raises."""
    options: GetOptions = {}
    if if_match is not None:
        options["if_match"] = if_match
    if start < 0:
        options["range"] = {"suffix": -start}
    elif length is not None:
        options["range"] = (start, start + length)
    elif start:
        options["range"] = {"offset": start}
    return stream_of(obstore.get(store, key, options=options), length)


def stream_of(found: GetResult, length: int | None = None) -> ReadStream:
    """What obstore found and has not read yet, at most its first ``length`` bytes."""
    first, end = found.range
    there = end - first
    size = there if length is None or length > there else length
    if there <= SMALL:
        content = found.bytes().to_bytes()
        return ReadStream(content if size == there else content[:size], size, partial(metadata_of_result, found))
    return ReadStream(_ObstoreBody(found, there), size, metadata_of_result(found))


def open_on_wire(
    wire: Wire, bucket: str, key: str, start: int, length: int | None, if_match: str | None, limits: Limits | None
) -> ReadStream:
    """The same through requests of our own."""
    headers = {}
    if if_match is not None:
        headers["If-Match"] = if_match
    if start < 0:
        headers["Range"] = f"bytes={start}"
    elif start or length is not None:
        headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
    answer, body = wire.fetch(bucket, key, limits=limits, headers=headers)
    try:
        size = object_size(answer.headers)
        first = max(0, size + start) if start < 0 else start
        rest = max(0, size - first)
        if "Range" in headers and answer.status == 200 and first:
            # Ranges are optional in HTTP; some gateways do not know them.
            body.skip(first)
        count = rest if length is None else min(length, rest)
        known = partial(metadata_of_answer, answer.headers, size)
        if count > SMALL:
            return ReadStream(body, count, known)
        content = body.read_exactly(count)
    except BaseException:
        body.close()
        raise
    body.close()
    return ReadStream(content, count, known)


def empty_range(known: Metadata, if_match: str | None) -> ReadStream:
    """No bytes of an object that is there.

    Raises:
        PreconditionFailed: it is another object.
    """
    if if_match is not None and if_match != known.etag:
        raise PreconditionFailed(f"the object has etag {known.etag}, not {if_match}")
    return ReadStream(b"", 0, known)


class _ObstoreBody:
    """Content as obstore hands it over, in pieces of its choosing."""

    def __init__(self, found: GetResult, size: int) -> None:
        self._found: GetResult | None = found
        self._size = size
        self._pieces: Iterator[bytes] | None = None
        self._rest: bytes | memoryview = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            try:
                piece = self._next(size)
            except FOREIGN as error:
                raise translate(error) from error
            if len(piece) <= size:
                return piece
            self._rest = memoryview(piece)
        taken = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return taken

    def close(self) -> None:
        # Dropping the iterator drops the answer, and with it the connection if it is not at its end.
        self._found = None
        self._pieces = None
        self._rest = b""

    def _next(self, size: int) -> bytes:
        found, self._found = self._found, None
        if found is not None:
            if size >= self._size and size <= _AT_ONCE:
                # Everything is wanted now: pieces would have to be put together again.
                return found.bytes().to_bytes()
            self._pieces = iter(found.stream(min_chunk_size=_PIECE))
        return b"" if self._pieces is None else next(self._pieces, b"")


def past_the_end(error: StoreError) -> bool:
    """Whether S3 refused a range because the object ends before it."""
    return error.http_status == 416
