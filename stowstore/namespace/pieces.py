"""Reading the bytes of extents, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence

from stowstore.chunks.block import BlockRef
from stowstore.chunks.reader import BlockReader
from stowstore.namespace.extents import Piece
from stowstore.namespace.staging import Segment

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
        source.read(skip, length) if isinstance(source, Segment) else next(fetched)
        for _, length, skip, source in pieces
    ]


def read_pieces(pieces: Sequence[Piece], reader: BlockReader) -> bytes:
    """The bytes of pieces, back to back."""
    found = read_each(pieces, reader)
    return found[0] if len(found) == 1 else b"".join(found)
