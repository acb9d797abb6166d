"""Turning staged data into blocks.

A block never reaches over a window of the file, so equal files have equal blocks wherever they lie.  Runs of staged
extents that are neighbours in the file become one block.  A window that has been written in many small pieces becomes
one block as a whole, with what was in blocks before: a file stays readable in few requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from stowstore.chunks.block import BlockRef
from stowstore.chunks.reader import BlockReader
from stowstore.chunks.writer import BlockWriter, PendingBlock
from stowstore.namespace.early import EarlyBlocks
from stowstore.namespace.extents import ExtentMap, Move, Piece
from stowstore.namespace.pieces import read_pieces

__all__ = ["MAX_EXTENTS_PER_WINDOW", "flush_extents", "moves_into"]

#: A changed window of more extents than this is written anew.
MAX_EXTENTS_PER_WINDOW: Final = 16


class _Flushed(NamedTuple):
    """Pieces of a file on their way into one block, back to back."""

    extents: ExtentMap
    pieces: Sequence[Piece]
    pending: PendingBlock


def flush_extents(
    files: Iterable[ExtentMap],
    writer: BlockWriter,
    reader: BlockReader,
    early: EarlyBlocks,
    max_extents: int = MAX_EXTENTS_PER_WINDOW,
) -> None:
    """Gives the staged data of files to a writer, in order, and lets the extents refer to blocks once it has them.

    Raises:
        StoreError: the writer could not put everything; all extents are as before.
        OSError: staged data cannot be read.
    """
    flushed: list[_Flushed] = []
    for extents in files:
        for run in _runs(extents, max_extents):
            pending = early.take(writer, run)
            if pending is None:
                pending = writer.add(read_pieces(run, reader))
            flushed.append(_Flushed(extents, run, pending))
    writer.flush()
    for extents, pieces, pending in flushed:
        extents.moves.extend(moves_into(pending.ref, pieces))
    for extents in dict.fromkeys(one.extents for one in flushed):
        extents.move(extents.moves)


def moves_into(block: BlockRef, pieces: Iterable[Piece]) -> list[Move]:
    """What lies where, once pieces have become a block, back to back."""
    moves: list[Move] = []
    new_skip = 0
    for offset, length, skip, source in pieces:
        moves.append(Move(offset, length, skip, source, new_skip, block))
        new_skip += length
    return moves


def _runs(extents: ExtentMap, max_extents: int) -> Iterator[list[Piece]]:
    """What becomes one block each."""
    for _, pieces in extents.changed_windows():
        if all(piece.source.__class__ is BlockRef for piece in pieces):
            continue
        if len(pieces) > max_extents and 2 * _stretches(pieces) <= len(pieces):
            yield pieces
            continue
        run: list[Piece] = []
        for piece in pieces:
            if piece.source.__class__ is BlockRef:
                continue
            if run and run[-1].offset + run[-1].length != piece.offset:
                yield run
                run = []
            run.append(piece)
        yield run


def _stretches(pieces: Sequence[Piece]) -> int:
    """How many extents are left when neighbours in the file are neighbours in one block."""
    count = 1
    for left, right in pairwise(pieces):
        count += left.offset + left.length != right.offset
    return count
