"""Filters: what a manifest says of the keys of a delta segment, so that a lookup leaves out what cannot hold its key.

A filter is a Bloom filter of 12 bits a record: it has every key of its segment, and one in 150 others.  Keys are hashed
as blocks are named, so in an encrypted root a filter tells nothing to those who have no key.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["FILTERED_RECORDS", "filter_bytes", "make_filter", "may_hold"]

#: Segments of more records go without: manifests are small, and every version repeats the filters of those before.
FILTERED_RECORDS: Final = 16384

_POSITIONS = struct.Struct(">4I")


def filter_bytes(records: int) -> int:
    """How many bytes the filter of so many records has."""
    return (3 * records + 1) // 2


def make_filter(keys: Iterable[bytes], records: int, name: Callable[[bytes], bytes]) -> bytes:
    """The filter of a segment's keys, which ``name`` hashes."""
    bits = bytearray(filter_bytes(records))
    count = 8 * len(bits)
    positions = _POSITIONS.unpack_from
    for key in keys:
        for position in positions(name(key)):
            position %= count
            bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def may_hold(bits: bytes, name: bytes) -> bool:
    """Whether a segment with this filter may hold the key of a name; never wrong about one that it holds."""
    count = 8 * len(bits)
    for position in _POSITIONS.unpack_from(name):
        position %= count
        if not bits[position >> 3] & 1 << (position & 7):
            return False
    return True
