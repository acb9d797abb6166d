"""What a worker does for an import: files of a directory, read and put as blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from attrs import frozen

from datastore.errors import StoreError
from datastore.reference import DataReference
from stowstore.chunks.block import BLOCK_BYTES, BlockRef
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.writer import BlockWriter, KnownBlocks, PendingBlock
from stowstore.index.records import Extent, pack_extents
from stowstore.runners import require_same_directory
from stowstore.transfer.import_notes import write_note
from stowstore.transfer.reading import READ_FLAGS, SMALL_BYTES, data_stretches
from stowstore.versions.places import RootPlace

__all__ = [
    "FilePiece",
    "ImportDesk",
    "ImportPlace",
    "ImportTask",
    "StoredPiece",
    "store_pieces",
    "unpack_note",
]

_MAX_UPLOADS: Final = 8


class FilePiece(NamedTuple):
    """A file to be stored, or the part of a large one from ``start`` to ``stop``; ``key`` is what notes call it."""

    path: str
    key: bytes
    start: int = 0
    stop: int | None = None


class ImportTask(NamedTuple):
    """Pieces that one worker stores together, below a directory that it must see as the client does."""

    source: str
    source_ino: int
    source_mtime_ns: int
    pieces: tuple[FilePiece, ...]


class StoredPiece(NamedTuple):
    """Where a piece lies now: its extents in their binary form, and the bytes that were read; or what kept it."""

    extents: bytes = b""
    size: int = 0
    read: int = 0
    failure: str | None = None


@frozen(kw_only=True)
class ImportPlace:
    """A root that is imported into, and where the import keeps its notes."""

    root: RootPlace
    notes: DataReference

    def open(self) -> ImportDesk:
        return ImportDesk(self.root.open(), self.notes)


class ImportDesk:
    """What a worker has at hand for all pieces of one import; thread-safe."""

    def __init__(self, chunks: ChunkStore, notes: DataReference) -> None:
        self.chunks = chunks
        self.notes = notes
        #: Blocks this import has put from here: they are in the store, and stay while it runs.
        self.put = KnownBlocks()


def store_pieces(desk: ImportDesk, task: ImportTask) -> list[StoredPiece]:
    """Stores pieces; they are durable, and noted, when this returns.

    Raises:
        ConfigError: the directory is not there, or is another one.
        StoreError: packs cannot be put.
    """
    require_same_directory(task.source, task.source_ino, task.source_mtime_ns)
    known = _TaskBlocks(desk.put)
    writer = desk.chunks.writer(max_uploads=_MAX_UPLOADS, known=known)
    try:
        read = [_read_piece(writer, piece) for piece in task.pieces]
        writer.flush()
    finally:
        writer.close()
    known.settle()
    stored = [piece if isinstance(piece, StoredPiece) else piece.stored() for piece in read]
    noted = {
        piece.key: pack_note(found) for piece, found in zip(task.pieces, stored, strict=True) if found.failure is None
    }
    if noted:
        write_note(desk.chunks.store, desk.notes, noted)
    return stored


def pack_note(found: StoredPiece) -> bytes:
    """A stored piece as notes have it."""
    return found.size.to_bytes(8, "big") + found.read.to_bytes(8, "big") + found.extents


def unpack_note(raw: bytes) -> StoredPiece:
    """Reads `pack_note`."""
    return StoredPiece(raw[16:], int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big"))


class _TaskBlocks(KnownBlocks):
    """Blocks of one task, over those that are known to be in the store: only a flush makes its own so."""

    def __init__(self, settled: KnownBlocks) -> None:
        super().__init__()
        self._settled = settled

    def get(self, name: bytes) -> BlockRef | None:
        return self._settled.get(name) or super().get(name)

    def settle(self) -> None:
        for ref in self._refs.values():
            self._settled.add(ref)


class _Read(NamedTuple):
    """A piece on its way: offset and length of each block."""

    blocks: list[tuple[int, int, PendingBlock]]
    size: int
    read: int

    def stored(self) -> StoredPiece:
        extents = [Extent(offset, length, 0, pending.ref) for offset, length, pending in self.blocks]
        return StoredPiece(pack_extents(extents), self.size, self.read)


def _read_piece(writer: BlockWriter, piece: FilePiece) -> _Read | StoredPiece:
    """Gives what is in a piece to the writer, block by block; what is all zeros is a hole."""
    blocks: list[tuple[int, int, PendingBlock]] = []
    read = 0
    try:
        descriptor = os.open(piece.path, READ_FLAGS)
        try:
            size = os.fstat(descriptor).st_size
            stop = size if piece.stop is None else min(piece.stop, size)
            for offset, length in _windows(descriptor, piece.start, stop, size):
                data = _read_all(descriptor, length, offset)
                read += len(data)
                if data and (data[0] or data[-1] or data != bytes(len(data))):
                    blocks.append((offset, len(data), writer.add(data)))
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        return StoredPiece(failure=error.strerror or str(error))
    return _Read(blocks, size, read)


def _windows(descriptor: int, start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """What is read at once: stretches of data, cut where no block may reach over."""
    whole = size <= SMALL_BYTES
    for begin, end in [(0, size)] if whole else data_stretches(descriptor, size, start):
        offset, end = max(begin, start), min(end, stop)
        while offset < end:
            length = min(end, offset - offset % BLOCK_BYTES + BLOCK_BYTES) - offset
            yield offset, length
            offset += length
        if begin >= stop:
            return


def _read_all(descriptor: int, length: int, offset: int) -> bytes:
    """Bytes of a file, fewer only where it has become shorter."""
    data = os.pread(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    position = len(data)
    while position < length and (part := os.pread(descriptor, length - position, offset + position)):
        parts.append(part)
        position += len(part)
    return b"".join(parts)
