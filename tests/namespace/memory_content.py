"""Content in memory, as plain as it can be: extents in a list, staged data and blocks in dictionaries.

The file system's own tests run over it, so that they fail for reasons of the file system alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from stowstore.chunks.block import BlockRef, Codec
from stowstore.index.keys import extents_key, offset_of
from stowstore.index.records import INLINE_EXTENTS, Extent, InodeRecord, pack_extents, unpack_extents
from stowstore.namespace.interfaces import EncodedExtents, Scan

_STAGED = b"staged----------"
_PIECE = 1 << 20
_PER_KEY = 8


class MemoryExtents:
    """A list of extents over blocks and staged data, rewritten by every change."""

    def __init__(self, ino: int, pieces: list[Extent], stored: frozenset[bytes]) -> None:
        self.ino = ino
        self.pieces = pieces
        self.stored = stored

    @property
    def allocated(self) -> int:
        return sum(piece.length for piece in self.pieces)

    @property
    def staged(self) -> bool:
        return any(piece.block.pack == _STAGED for piece in self.pieces)

    @property
    def is_loaded(self) -> bool:
        return True

    def is_loaded_in(self, start: int, stop: int) -> bool:
        return True

    @property
    def is_large(self) -> bool:
        return len(self.pieces) > 1

    def covered(self, offset: int, length: int) -> int:
        return sum(piece.length for piece in self.within(offset, length))

    def fork(self) -> MemoryExtents:
        return MemoryExtents(self.ino, list(self.pieces), self.stored)

    def encode(self, ino: int) -> EncodedExtents:
        if self.staged:
            raise RuntimeError("staged data have not been flushed")
        return self.encode_for_journal(ino)

    def encode_for_journal(self, ino: int) -> EncodedExtents:
        if len(self.pieces) <= INLINE_EXTENTS:
            return EncodedExtents(pack_extents(self.pieces), False, dict.fromkeys(self.stored))
        changes: dict[bytes, bytes | None] = dict.fromkeys(self.stored)
        for start in range(0, len(self.pieces), _PER_KEY):
            part = self.pieces[start : start + _PER_KEY]
            changes[extents_key(ino, part[0].offset)] = pack_extents(part)
        return EncodedExtents(b"", True, changes)

    def within(self, offset: int, length: int) -> list[Extent]:
        """The extents of a range, cut to it."""
        found = []
        for piece in self.pieces:
            start, stop = max(piece.offset, offset), min(piece.offset + piece.length, offset + length)
            if start < stop:
                found.append(Extent(start, stop - start, piece.skip + start - piece.offset, piece.block))
        return found

    def replace(self, offset: int, length: int, new: list[Extent]) -> None:
        """Puts extents in the place of a range."""
        kept = self.within(0, offset) + self.within(offset + length, 1 << 64)
        self.pieces = sorted(kept + new)


class MemoryContent:
    """Staged data and blocks by name; ``fail_flush`` is raised by the next flushes, as a store that refuses does."""

    def __init__(self) -> None:
        self.staging: dict[bytes, bytes] = {}
        self.blocks: dict[bytes, bytes] = {}
        self.flushed: list[list[int]] = []
        self.fail_flush: Exception | None = None
        self.fail_stage: Exception | None = None
        self.syncs = 0
        self.writer = None

    def load(
        self, ino: int, record: InodeRecord, scan: Scan, journalled: Mapping[bytes, bytes | None] | None = None
    ) -> MemoryExtents:
        pieces = unpack_extents(record.extents)
        stored = dict(scan(extents_key(ino, 0), extents_key(ino + 1, 0)))
        if record.many_extents:
            values = {**stored, **(journalled or {})}
            for key in sorted(values, key=offset_of):
                pieces += unpack_extents(values[key] or b"")
        return MemoryExtents(ino, pieces, frozenset(stored))

    def stage(self, data: bytes | bytearray | memoryview) -> list[BlockRef]:
        if self.fail_stage is not None:
            raise self.fail_stage
        refs = []
        for start in range(0, len(data), _PIECE):
            piece = bytes(data[start : start + _PIECE])
            name = len(self.staging).to_bytes(32, "big")
            self.staging[name] = piece
            refs.append(BlockRef(_STAGED, 0, len(piece), len(piece), Codec.RAW, name))
        return refs

    def discard(self, staged: Any) -> None:
        for ref in staged:
            del self.staging[ref.name]

    def place(self, node: Any, offset: int, staged: Any) -> None:
        new = []
        for ref in staged:
            new.append(Extent(offset, ref.length, 0, ref))
            offset += ref.length
        node.extents.replace(new[0].offset, offset - new[0].offset, new)

    def plan(self, node: Any, offset: int, size: int) -> Any:
        return offset, size, node.extents.within(offset, size)

    def is_near(self, plan: Any) -> bool:
        return True

    def fetch(self, plan: Any) -> bytes:
        offset, size, pieces = plan
        made = bytearray(size)
        for piece in pieces:
            data = (self.staging if piece.block.pack == _STAGED else self.blocks)[piece.block.name]
            at = piece.offset - offset
            made[at : at + piece.length] = data[piece.skip : piece.skip + piece.length]
        return bytes(made)

    def truncate(self, node: Any, size: int) -> None:
        node.extents.replace(size, (1 << 64) - size, [])

    def punch(self, node: Any, offset: int, length: int) -> None:
        node.extents.replace(offset, length, [])

    def clone(self, source: Any, start: int, target: Any, offset: int, length: int) -> None:
        shared = [
            piece._replace(offset=piece.offset - start + offset) for piece in source.extents.within(start, length)
        ]
        target.extents.replace(offset, length, shared)

    def seek(self, node: Any, offset: int, whence: int) -> int:
        for piece in node.extents.pieces:
            if piece.offset + piece.length <= offset:
                continue
            if whence == os.SEEK_DATA:
                return max(piece.offset, offset)
            if piece.offset > offset:
                break
            offset = piece.offset + piece.length
        if whence == os.SEEK_DATA:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return min(offset, node.size)

    def forget(self, extents: Any) -> None:
        extents.pieces = [piece for piece in extents.pieces if piece.block.pack != _STAGED]

    def fetch_extents(self, ino: int, start: int, stop: int, scan: Any) -> None: ...

    def recovered(self) -> None:
        """Nothing is thrown away here: what is left over costs memory only."""

    def checkpoint(self) -> None: ...

    def reclaim(self, checkpoint: Any) -> None: ...

    def upload_early(self, writer: Any, **options: Any) -> None:
        """Uploads with the commit only."""

    held_bytes = 0

    def close(self) -> None: ...

    def sync(self, *, durable: bool = True) -> None:
        self.syncs += durable

    def flush(self, files: Sequence[tuple[int, int, Any]], writer: Any) -> None:
        if self.fail_flush is not None:
            raise self.fail_flush
        self.flushed.append([ino for ino, _, _ in files])
        for _, _, extents in files:
            extents.pieces = [self._stored(piece) for piece in extents.pieces]

    def settle(self, live: Any, flushed: Any) -> None:
        live.pieces = [self._stored(piece) if self._is_flushed(piece) else piece for piece in live.pieces]
        changes = flushed.encode(flushed.ino).changes
        live.stored = frozenset(key for key, value in changes.items() if value is not None)

    def _is_flushed(self, piece: Extent) -> bool:
        return piece.block.pack == _STAGED and _name(self.staging[piece.block.name]) in self.blocks

    def _stored(self, piece: Extent) -> Extent:
        if piece.block.pack != _STAGED:
            return piece
        data = self.staging[piece.block.name]
        self.blocks[_name(data)] = data
        return piece._replace(block=BlockRef(b"b" * 16, 0, len(data), len(data), Codec.RAW, _name(data)))


def _name(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
