"""Uploading before the commit: full windows of large files, after a delay in which they might be overwritten.

What is uploaded early stays staged until a commit, or until the staging area is full, refers to the block instead; or
files refer to it as soon as the store has it, see
`stowstore.namespace.interfaces.AfterUpload`.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from stowstore.chunks.block import BlockRef
from stowstore.chunks.reader import BlockReader
from stowstore.chunks.writer import BlockProgress, BlockWriter, PendingBlock
from stowstore.namespace.background import make_way
from stowstore.namespace.extents import WINDOW_BYTES, ExtentMap, Piece
from stowstore.namespace.pieces import read_pieces

__all__ = ["EarlyBlocks", "EarlyUploader", "UploadedWindow"]

_log = logging.getLogger(__name__)

#: Blocks remembered until a commit asks for them; beyond, the oldest are read and hashed a second time.
_MAX_KNOWN: Final = 1 << 16

#: Windows that wait for their delay, at most; a window costs its extents only.
_MAX_WAITING: Final = 1 << 16

#: Where the bytes of a block came from: segment name, start and length of each piece.
_Origin = tuple[tuple[bytes, int, int], ...]


class UploadedWindow(NamedTuple):
    """A full window of a file, and the block it has become."""

    extents: weakref.ref[ExtentMap]
    pieces: Sequence[Piece]
    pending: PendingBlock


class EarlyBlocks:
    """Blocks that a writer has been given before the commit asked for them; thread-safe."""

    def __init__(self) -> None:
        self._blocks: dict[_Origin, tuple[BlockWriter, PendingBlock]] = {}
        self._lock = threading.Lock()

    def keep(self, writer: BlockWriter, pieces: Sequence[Piece], pending: PendingBlock) -> None:
        """Remembers the block of staged pieces."""
        with self._lock:
            self._blocks[_origin(pieces)] = writer, pending
            if len(self._blocks) > _MAX_KNOWN:
                del self._blocks[next(iter(self._blocks))]

    def has(self, pieces: Sequence[Piece]) -> bool:
        return _origin(pieces) in self._blocks

    def take(self, writer: BlockWriter, pieces: Sequence[Piece]) -> PendingBlock | None:
        """The block of the same pieces in the same writer, if there is one."""
        if not self._blocks or any(isinstance(piece.source, BlockRef) for piece in pieces):
            return None
        found = self._blocks.get(_origin(pieces))
        return found[1] if found is not None and found[0] is writer else None

    def forget(self) -> None:
        """Drops what is remembered, after a commit has used it."""
        with self._lock:
            self._blocks.clear()


class _Waiting(NamedTuple):
    due: float
    extents: weakref.ref[ExtentMap]
    window: int


class EarlyUploader:
    """A thread that uploads full windows ``delay`` seconds after they were filled, and makes room when asked.

    ``lock`` guards the extents.  ``refer`` is given the windows that the store has, where files are to refer to their
    blocks at once.  A failure is left to the commit, which meets it again.
    """

    def __init__(
        self,
        writer: BlockWriter,
        reader: BlockReader,
        blocks: EarlyBlocks,
        *,
        delay: float,
        lock: AbstractContextManager[object],
        relieve: Callable[[], None],
        refer: Callable[[Sequence[UploadedWindow]], None] | None = None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._blocks = blocks
        self._delay = delay
        self._lock = lock
        self._relieve = relieve
        self._refer = refer
        self._uploaded: list[UploadedWindow] = []
        self._waiting: deque[_Waiting] = deque(maxlen=_MAX_WAITING)
        self._wake = threading.Event()
        if refer is not None:
            writer.on_stored = self._wake.set
        self._full = False
        self._working = False
        # Told once, until an upload succeeds.
        self._failed = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="stowstore-early-upload", daemon=True)
        self._thread.start()

    def filled(self, extents: ExtentMap, first: int, last: int) -> None:
        """Says that a write has just completed windows (under the lock)."""
        due = time.monotonic() + self._delay
        if not self._waiting:
            self._wake.set()
        reference = weakref.ref(extents)
        self._waiting.extend(_Waiting(due, reference, window) for window in range(first, last))

    def make_room(self) -> None:
        """Asks for staged data to be given up soon."""
        self._full = True
        self._wake.set()

    @property
    def is_about_to_refer(self) -> bool:
        """Whether files will soon refer to blocks instead of more staged data, if nothing fails."""
        if self._refer is None or self._failed:
            return False
        if self._working or self._is_due():
            return True
        progress = self._writer.progress
        return any(progress(one.pending) is not BlockProgress.PACKED for one in self._uploaded)

    def stop(self) -> None:
        """Says that the thread is to end, after what it is at."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Ends the thread, after what it is at."""
        self.stop()
        self._thread.join()
        self._writer.on_stored = None

    def _run(self) -> None:
        make_way()
        while not self._stopping:
            wait = max(self._waiting[0].due - time.monotonic(), 0) if self._waiting else None
            if wait != 0:
                self._wake.wait(wait)
            self._wake.clear()
            self._working = True
            try:
                if self._full:
                    self._full = False
                    self._relieve()
                while self._is_due() and not self._stopping:
                    self._upload(self._waiting.popleft())
                    self._refer_to_stored()
                self._refer_to_stored()
            except Exception as error:  # noqa: BLE001 - nothing is lost: the commit tries again and raises it
                if not self._failed and not self._stopping:
                    _log.warning("staged data could not be uploaded early: %s", error)
                self._failed = True
            finally:
                self._working = False

    def _is_due(self) -> bool:
        try:
            return self._waiting[0].due <= time.monotonic()
        except IndexError:
            # The thread has taken the last one meanwhile.
            return False

    def _upload(self, waiting: _Waiting) -> None:
        extents = waiting.extents()
        if extents is None:
            return
        start = waiting.window * WINDOW_BYTES
        with self._lock:
            pieces = list(extents.pieces(start, start + WINDOW_BYTES))
        full = sum(piece.length for piece in pieces) == WINDOW_BYTES
        if full and not any(isinstance(piece.source, BlockRef) for piece in pieces) and not self._blocks.has(pieces):
            pending = self._writer.add(read_pieces(pieces, self._reader))
            self._failed = False
            self._blocks.keep(self._writer, pieces, pending)
            if self._refer is not None:
                self._uploaded.append(UploadedWindow(waiting.extents, pieces, pending))

    def _refer_to_stored(self) -> None:
        if self._refer is None or not self._uploaded:
            return
        progress = self._writer.progress
        # Asked once: what is stored meanwhile is of the next round.
        stored = {id(one): progress(one.pending) is BlockProgress.STORED for one in self._uploaded}
        ready = [one for one in self._uploaded if stored[id(one)]]
        if ready:
            self._refer(ready)
            self._uploaded = [one for one in self._uploaded if not stored[id(one)]]


def _origin(pieces: Sequence[Piece]) -> _Origin:
    return tuple((piece.source.name, piece.skip, piece.length) for piece in pieces)
