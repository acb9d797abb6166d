"""The pieces of a file that extents are, and the records of those in one window.

A piece says which bytes of a block, or of staged data, lie at an offset of the file.  No piece crosses from one window
of `WINDOW_BYTES` into the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, Protocol

from stowstore.chunks.block import BLOCK_BYTES, BlockRef
from stowstore.index.records import CorruptRecord, Extent, pack_extents, unpack_extents

__all__ = [
    "END",
    "INSIDE",
    "WINDOW_BYTES",
    "Move",
    "Piece",
    "Source",
    "StagedSource",
    "joined",
    "joins",
    "pack_pieces",
    "unpack_window",
]

#: Aligned stretches of a file whose extents share a record; the largest block, so that a full one is one extent.
WINDOW_BYTES: Final = BLOCK_BYTES

#: The bits of an offset that say where in its window it lies.
INSIDE: Final = WINDOW_BYTES - 1

#: Behind the last byte a file can have.
END: Final = 1 << 63


class StagedSource(Protocol):
    """Something that holds bytes not yet in any block; compared by identity."""

    @property
    def name(self) -> bytes:
        """What tells it from all others, also after it is gone."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """Bytes of a range.

        Raises:
            OSError: EIO where they are not what was written.
        """
        ...

    def journal_reference(self, start: int, length: int) -> BlockRef:
        """What a journal keeps of a range, in the form of a block reference."""
        ...


Source = BlockRef | StagedSource


class Piece(NamedTuple):
    """``length`` bytes of the file at ``offset`` are those of ``source`` from ``skip`` on."""

    offset: int
    length: int
    skip: int
    source: Source


class Move(NamedTuple):
    """Bytes that have got a new place: what was at ``skip`` of ``source`` is at ``new_skip`` of ``block``."""

    offset: int
    length: int
    skip: int
    source: Source
    new_skip: int
    block: BlockRef


def unpack_window(offset: int, value: bytes) -> Iterator[Piece]:
    """The extents of one record.

    Raises:
        CorruptRecord: they do not lie in the window that begins at ``offset``.
    """
    extents = unpack_extents(value)
    if offset & INSIDE or not extents or extents[0].offset < offset:
        raise CorruptRecord(f"the extents from {offset} on do not begin there")
    last = extents[-1]
    if last.offset + last.length > offset + WINDOW_BYTES:
        raise CorruptRecord(f"the extents from {offset} on reach out of their {WINDOW_BYTES} bytes")
    return map(Piece._make, extents)


def pack_pieces(pieces: Iterable[Piece]) -> bytes:
    """The record of extents; staged data are in it as what a journal keeps of them."""
    return pack_extents(
        [
            Extent(offset, length, skip, source)
            if isinstance(source, BlockRef)
            else Extent(offset, length, 0, source.journal_reference(skip, length))
            for offset, length, skip, source in pieces
        ]
    )


def joins(left: Piece, right: Piece) -> bool:
    """Whether two extents are one: neighbours in the file, in one window, and in their source."""
    return (
        left[0] + left[1] == right[0]
        and left[2] + left[1] == right[2]
        and bool(right[0] & INSIDE)
        and (left[3] is right[3] or left[3] == right[3])
    )


def joined(pieces: list[Piece]) -> list[Piece]:
    """Extents, ascending, with those that are one made one."""
    found = pieces[:1]
    for piece in islice(pieces, 1, None):
        last = found[-1]
        if joins(last, piece):
            found[-1] = Piece(last[0], last[1] + piece[1], last[2], last[3])
        else:
            found.append(piece)
    return found
