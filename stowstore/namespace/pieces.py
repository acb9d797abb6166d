"""Reading the bytes of extents, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence

from stowstore.chunks.block import BlockRef
from stowstore.chunks.reader import BlockReader
from stowstore.chunks.scattered import Content, gathered
from stowstore.namespace.extents import Piece
from stowstore.namespace.staging_stretches import Stretch

__all__ = ["read_each", "read_pieces"]


def read_each(pieces: Sequence[Piece], reader: BlockReader) -> list[bytes]:
    """The bytes of each piece; those in blocks are fetched together.

    Raises:
        CorruptBlock: a block is damaged or gone.
        OSError: EIO where staged data cannot be read.
    """
    requests = [(source, skip, length) for _, length, skip, source in pieces if isinstance(source, BlockRef)]
    fetched = iter(reader.read_many(requests) if requests else ())
    return [
        next(fetched) if isinstance(source, BlockRef) else source.read(skip, length)
        for _, length, skip, source in pieces
    ]


def read_pieces(pieces: Sequence[Piece], reader: BlockReader) -> Content:
    """The bytes of pieces, back to back; what is in memory is not copied."""
    if not any(isinstance(piece.source, Stretch) for piece in pieces):
        return gathered(read_each(pieces, reader))
    found: list[bytes] = []
    for piece in pieces:
        if isinstance(piece.source, Stretch):
            found += piece.source.read_parts(piece.skip, piece.length)
        else:
            found += read_each([piece], reader)
    return gathered(found)
