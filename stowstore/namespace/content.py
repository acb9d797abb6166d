"""The bytes of all files of a session: staged when written, in blocks when committed.

Reading assembles staged data, ranges of blocks and holes; sequential readers have blocks fetched ahead of them.
Written data lie in the staging area, small writes gathered in memory there; a flush turns them into blocks.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from stowstore.chunks.block import BlockRef
from stowstore.chunks.reader import BlockReader
from stowstore.chunks.writer import BlockWriter
from stowstore.index.keys import offset_of
from stowstore.index.records import CorruptRecord, InodeRecord, unpack_extents
from stowstore.namespace.early import EarlyBlocks, EarlyUploader, UploadedWindow
from stowstore.namespace.errors import posix_error
from stowstore.namespace.extents import END, WINDOW_BYTES, ExtentMap, Move, Piece, fetch_windows, unpack_window
from stowstore.namespace.flushing import MAX_EXTENTS_PER_WINDOW, flush_extents, moves_into
from stowstore.namespace.interfaces import AfterUpload, FileNode, Scan
from stowstore.namespace.pieces import read_each
from stowstore.namespace.staging import JOURNAL_CODEC, StagedPart, StagingArea

__all__ = ["FileContent"]

#: Zeros of at least this size, written at once, are not kept but where that is asked for: they make a hole.
_ZEROS: Final = 4096

#: How far ahead of a sequential reader blocks are asked for, and how much of that may be used up first.
_AHEAD: Final = 4 * WINDOW_BYTES
_AGAIN: Final = 2 * WINDOW_BYTES

#: What may stay in memory of data that are on their way into blocks which files are to refer to at once: five blocks,
#: such as one that is being written, two that are being named and two on their way to the disk.  More is slower, since
#: what was written a moment ago is then no longer in the processor's cache.
_HELD_BYTES: Final = 20 << 20


class _Staged(NamedTuple):
    """Data on their way into a file; no parts are zeros."""

    length: int
    parts: list[StagedPart]


class _Plan(NamedTuple):
    """What it takes to read a range."""

    offset: int
    size: int
    pieces: list[Piece]
    ahead: list[BlockRef]


class FileContent:
    """Implements `stowstore.namespace.interfaces.Content` over a staging area and blocks; thread-safe as that says."""

    def __init__(
        self, staging: StagingArea, reader: BlockReader, *, max_extents_per_window: int = MAX_EXTENTS_PER_WINDOW
    ) -> None:
        self.staging = staging
        #: Whether zeros that are written take room as other data do, as programs expect where room is limited.
        self.keeps_zeros = False
        self._reader = reader
        self._max_extents = max_extents_per_window
        self._early_blocks = EarlyBlocks()
        self._early: EarlyUploader | None = None
        self.writer: BlockWriter | None = None
        self._relieve_all: Callable[[], None] | None = None
        self._lock: AbstractContextManager[object] = threading.Lock()
        self._moved: Callable[[int], None] | None = None
        self._keep: Callable[[], None] | None = None
        self._flushing = threading.Lock()
        # Maps that may have staged data, with their inode numbers: what a full staging area can be relieved of.
        self._written: weakref.WeakKeyDictionary[ExtentMap, int] = weakref.WeakKeyDictionary()

    def upload_early(
        self,
        writer: BlockWriter,
        *,
        delay: float,
        lock: AbstractContextManager[object],
        moved: Callable[[int], None] | None = None,
        keep: Callable[[], None] | None = None,
        afterwards: AfterUpload = AfterUpload.STAY,
    ) -> None:
        """Begins to upload in the background, to the writer that commits use as well.

        Full blocks of large files go ``delay`` seconds after they were written; ``afterwards`` says what becomes of the
        staged data.  When the staging area is full, everything goes, and files refer to the blocks at once.  ``keep``
        is called before files refer to blocks that no version has, and ``moved`` is told their inode numbers (under the
        lock), which must be journalled again.  ``lock`` is the file system's.
        """

        def relieve() -> None:
            self._relieve(writer)

        self.writer = writer
        self._lock, self._moved, self._keep = lock, moved, keep
        self._relieve_all = relieve
        self._early = EarlyUploader(
            writer,
            self._reader,
            self._early_blocks,
            delay=delay,
            lock=lock,
            relieve=relieve,
            refer=self._refer if afterwards is AfterUpload.GO else None,
        )
        self.staging.on_full = self._early.make_room
        if afterwards is AfterUpload.GO:
            early = self._early
            self.staging.hold(_HELD_BYTES, lambda: early.is_about_to_refer)

    @property
    def staged_bytes(self) -> int:
        return self.staging.used

    @property
    def held_bytes(self) -> int:
        return self.staging.held

    def upload(self) -> None:
        """Uploads what is staged now, and returns when the store has it; files then refer to the blocks.

        Raises:
            StoreError: the store failed; everything is staged still.
        """
        if self._relieve_all is not None:
            self._relieve_all()

    def stop_uploading(self) -> None:
        """Begins no more uploads in the background; what is under way goes on, and its failures are not told."""
        if self._early is not None:
            self._early.stop()

    def close(self) -> None:
        """Ends background work and closes the staging area."""
        self.staging.on_full = None
        self._relieve_all = self.writer = None
        if self._early is not None:
            self._early.close()
            self._early = None
        self.staging.close()

    def load(
        self, ino: int, record: InodeRecord, scan: Scan, journalled: Mapping[bytes, bytes | None] | None = None
    ) -> ExtentMap:
        if record.many_extents:
            windows = {
                offset_of(key) // WINDOW_BYTES: self._known(unpack_window(offset_of(key), value)) if value else []
                for key, value in (journalled or {}).items()
            }
            return ExtentMap.stored(ino, scan, record.allocated, windows)
        if not record.extents:
            found = ExtentMap()
        else:
            found = ExtentMap(self._known(map(Piece._make, unpack_extents(record.extents))))
        if journalled:
            found.dropped_records(offset_of(key) // WINDOW_BYTES for key in journalled)
        if found.staged:
            self._written[found] = ino
        return found

    def fetch_extents(self, ino: int, start: int, stop: int, scan: Scan) -> None:
        fetch_windows(ino, scan, start, stop)

    def recovered(self) -> None:
        self.staging.sweep()

    def checkpoint(self) -> Any:
        return self.staging.checkpoint()

    def reclaim(self, checkpoint: Any) -> None:
        self.staging.reclaim(checkpoint)

    def stage(self, data: bytes | bytearray | memoryview) -> _Staged:
        size = len(data)
        if size >= _ZEROS and not data[0] and not data[-1] and not self.keeps_zeros and data == bytes(size):
            return _Staged(size, [])
        return _Staged(size, self.staging.append(data))

    def discard(self, staged: Any) -> None:
        # Nothing else holds the segments on its behalf.
        staged.parts.clear()

    def place(self, node: FileNode, offset: int, staged: Any) -> None:
        extents: ExtentMap = node.extents
        length, parts = staged
        if not parts:
            extents.drop(offset, offset + length)
            return
        position = offset
        for source, start, size in parts:
            extents.put(position, size, start, source)
            position += size
        self._written[extents] = node.ino
        if self._early is not None and position // WINDOW_BYTES != offset // WINDOW_BYTES:
            self._early.filled(extents, offset // WINDOW_BYTES, position // WINDOW_BYTES)

    def plan(self, node: FileNode, offset: int, size: int) -> _Plan:
        extents: ExtentMap = node.extents
        stop = offset + size
        only = extents.only(offset, stop)
        pieces = [only] if only is not None else list(extents.pieces(offset, stop)) if extents.allocated else []
        ahead: list[BlockRef] = []
        if offset == extents.read_end and pieces:
            if stop < node.size and extents.read_ahead < stop + _AGAIN:
                start = max(extents.read_ahead, stop)
                extents.read_ahead = stop + _AHEAD
                found = extents.pieces(start, min(extents.read_ahead, node.size))
                ahead = [piece.source for piece in found if isinstance(piece.source, BlockRef)]
        else:
            extents.read_ahead = 0
        extents.read_end = stop
        return _Plan(offset, size, pieces, ahead)

    def fetch(self, plan: Any) -> bytes:
        offset, size, pieces, ahead = plan
        if not pieces:
            return bytes(size)
        if ahead:
            self._reader.prefetch(ahead)
        first = pieces[0]
        if first.length == size and not isinstance(first.source, BlockRef):
            # What follows does the same, and takes longer for small files.
            staged: bytes = first.source.read(first.skip, size)
            return staged
        found = read_each(pieces, self._reader)
        if len(found) == 1 and len(found[0]) == size:
            return found[0]
        parts: list[bytes] = []
        position = offset
        for piece, data in zip(pieces, found, strict=True):
            if piece.offset > position:
                parts.append(bytes(piece.offset - position))
            parts.append(data)
            position = piece.offset + piece.length
        parts.append(bytes(offset + size - position))
        return b"".join(parts)

    def is_near(self, plan: Any) -> bool:
        near = self._reader.is_near
        for _, length, skip, source in plan.pieces:
            if source.__class__ is BlockRef and not near(source, skip, length):
                return False
        return True

    def truncate(self, node: FileNode, size: int) -> None:
        node.extents.drop(size, END)

    def punch(self, node: FileNode, offset: int, length: int) -> None:
        node.extents.drop(offset, offset + length)

    def clone(self, source: FileNode, start: int, target: FileNode, offset: int, length: int) -> None:
        pieces = list(source.extents.pieces(start, start + length))
        target.extents.share(pieces, offset, offset + length, offset - start)
        if target.extents.staged:
            self._written[target.extents] = target.ino

    def seek(self, node: FileNode, offset: int, whence: int) -> int:
        extents: ExtentMap = node.extents
        if whence == os.SEEK_HOLE:
            return extents.next_hole(offset, node.size)
        found = extents.next_data(offset, node.size)
        if found is None:
            raise posix_error(errno.ENXIO, f"no data at or behind {offset}")
        return found

    def forget(self, extents: Any) -> None:
        # Segments are given up with the last extents that refer to them; nothing else keeps this map's.
        self._written.pop(extents, None)

    def sync(self, *, durable: bool = True) -> None:
        self.staging.write_out(durable=durable)

    def flush(self, files: Sequence[tuple[int, int, Any]], writer: BlockWriter) -> None:
        with self._flushing:
            flush_extents(
                [extents for _, _, extents in files], writer, self._reader, self._early_blocks, self._max_extents
            )

    def settle(self, live: Any, flushed: Any) -> None:
        live.move(flushed.moves)
        live.rebase(flushed)
        if not live.staged:
            self._written.pop(live, None)

    def _relieve(self, writer: BlockWriter) -> None:
        """Uploads what is staged, and lets live files refer to the blocks."""
        if self._keep is not None:
            self._keep()
        with self._flushing:
            with self._lock:
                forks = [(live, live.fork()) for live in self._written if live.staged]
            flush_extents([fork for _, fork in forks], writer, self._reader, self._early_blocks, self._max_extents)
            with self._lock:
                for live, fork in forks:
                    self._move(live, fork.moves)
            self.staging.begin_anew()

    def _refer(self, uploaded: Sequence[UploadedWindow]) -> None:
        """Lets live files refer to the blocks that windows of them have become."""
        if self._keep is not None:
            self._keep()
        with self._lock:
            for window in uploaded:
                live = window.extents()
                if live is not None:
                    self._move(live, moves_into(window.pending.ref, window.pieces))
        self.staging.given_up()

    def _move(self, live: ExtentMap, moves: Sequence[Move]) -> None:
        """Lets a live file refer to blocks (under the lock)."""
        ino = self._written.get(live)
        if ino is None:
            return
        live.move(moves)
        if not live.staged:
            self._written.pop(live, None)
        if self._moved is not None:
            self._moved(ino)

    def _known(self, pieces: Any) -> list[Piece]:
        """Extents of a record, with staged data found again."""
        found: list[Piece] = []
        for piece in pieces:
            offset, length, skip, source = piece
            if source.codec == JOURNAL_CODEC:
                part = self.staging.find(source)
                if part is None:
                    raise CorruptRecord("extents of a version refer to data that were never committed")
                piece = Piece(offset, length, part.start + skip, part.source)
            found.append(piece)
        return found
