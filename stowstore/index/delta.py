"""Delta segments: the records one commit changed, sorted, in blocks of their own.

A segment is one or more blocks, each a msgpack array of ``[key, value]`` pairs ascending, a value of nil deleting
the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter, lt
from typing import Final

import msgspec
from attrs import frozen

from stowstore.chunks.block import BlockRef
from stowstore.index.filter import FILTERED_RECORDS, make_filter, may_hold
from stowstore.index.node import CorruptNode, NodeReader, NodeWriter

__all__ = ["DeltaRef", "read_deltas", "read_each", "write_delta"]

#: What a block of a segment is cut to, in bytes of keys and values.
SEGMENT_BYTES: Final = 1 << 20

_encode = msgspec.msgpack.Encoder().encode
_key_of = attrgetter("key")
_value_of = attrgetter("value")


class _Pair(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A changed record; thousands of tuples would have the garbage collector run."""

    key: bytes
    value: bytes | None


_decoder = msgspec.msgpack.Decoder(list[_Pair])


@frozen
class DeltaRef:
    """What names a delta segment: its blocks, how many records they hold, and the filter of their keys, if any."""

    blocks: tuple[BlockRef, ...]
    records: int
    filter: bytes | None = None

    def hides_any(self, keys: Iterable[bytes], reader: NodeReader) -> bool:
        """Whether the filter denies some of the keys, so that a lookup would not find them."""
        bits = self.filter
        return bits is not None and not all(may_hold(bits, reader.name(key)) for key in keys)


def write_delta(changes: Mapping[bytes, bytes | None], writer: NodeWriter) -> DeltaRef:
    """Writes changed records as one segment."""
    blocks: list[BlockRef] = []
    part: list[tuple[bytes, bytes | None]] = []
    size = 0
    for key in sorted(changes):
        value = changes[key]
        part.append((key, value))
        size += len(key) + len(value or b"")
        if size >= SEGMENT_BYTES:
            blocks.append(writer.add(_encode(part)))
            part, size = [], 0
    if part:
        blocks.append(writer.add(_encode(part)))
    count = len(changes)
    bits = make_filter(changes, count, writer.name) if 0 < count <= FILTERED_RECORDS else None
    return DeltaRef(tuple(blocks), count, bits)


def read_deltas(deltas: Sequence[DeltaRef], reader: NodeReader) -> dict[bytes, bytes | None]:
    """The records of segments, the later winning, fetched together.

    Raises:
        CorruptNode: as `read_each`.
    """
    records: dict[bytes, bytes | None] = {}
    for found in read_each(deltas, reader):
        records.update(found)
    return records


def read_each(deltas: Sequence[DeltaRef], reader: NodeReader) -> list[dict[bytes, bytes | None]]:
    """The records of segments, each by itself, fetched together.

    Raises:
        CorruptNode: a block holds no records, unsorted ones, or another number of them than its reference says.
    """
    contents = iter(reader.read([block for delta in deltas for block in delta.blocks]))
    records: list[dict[bytes, bytes | None]] = []
    for delta in deltas:
        found: list[_Pair] = []
        for raw in islice(contents, len(delta.blocks)):
            found += _decode(raw)
        known = list(map(_key_of, found))
        if len(found) != delta.records or not all(map(lt, known, islice(known, 1, None))):
            raise CorruptNode("a delta segment is not what its reference says")
        records.append(dict(zip(known, map(_value_of, found), strict=True)))
    return records


def _decode(raw: bytes) -> list[_Pair]:
    try:
        return _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise CorruptNode(f"a delta segment cannot be read: {error}") from error
