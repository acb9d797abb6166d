"""The staging area: written data on the local disk, until a commit has turned them into blocks.

Data are appended to segment files.  A segment is deleted when nothing refers to it any more: extents, reads under way
and pending uploads hold its object, so its lifetime is that of the object.  Beside each segment file lies a list of
checksums, one a stretch written, which proves what a crash has left.

Without a directory, segments are anonymous memory: for sessions that need not survive a crash.

Where files come to refer to blocks soon after they were written, large writes stay in memory for so long: see
`StagingArea.hold`.  Until a journal refers to them a crash loses them either way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from stowstore.chunks.block import BlockRef
from stowstore.chunks.patience import WouldWait, must_not_wait
from stowstore.namespace.errors import posix_error
from stowstore.namespace.staging_files import (
    anonymous_file,
    claim_directory,
    made_files,
    segment_file,
    sums_file,
    sync_directory,
)
from stowstore.namespace.staging_segments import (
    JOURNAL_CODEC,
    Buffer,
    RetiredSegment,
    Segment,
    is_journal_reference,
)
from stowstore.namespace.staging_stretches import STRETCH_BYTES, RetiredStretch, Stretch

__all__ = ["JOURNAL_CODEC", "Segment", "StagedPart", "StagingArea"]

#: Bytes after which a new segment is begun.
SEGMENT_BYTES: Final = 64 << 20

#: Writes up to this size are gathered in memory; larger ones are written at once.
_DIRECT_BYTES: Final = 256 << 10

#: Writes from this size on are held in memory, where any are.
_HELD_BYTES: Final = 64 << 10

#: How often a writer that waits looks whether there is room, seconds.
_POLL: Final = 0.02

#: How long a writer waits for held data to be given up while none are; then some are written to the disk, seconds.
_HELD_PATIENCE: Final = 0.2


class StagedPart(NamedTuple):
    """``length`` bytes of a segment or a stretch from ``start`` on."""

    source: Segment | Stretch
    start: int
    length: int


class StagingArea:
    """Takes data and gives them back until nobody wants them; thread-safe.

    ``max_bytes`` bounds what the segments hold.  A writer beyond it waits up to ``patience`` seconds for segments to be
    given up, after asking for it by ``on_full``.  A directory belongs to one area at a time.

    Raises:
        ConfigError: another process uses the directory.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        max_bytes: int = 10 << 30,
        segment_bytes: int = SEGMENT_BYTES,
        patience: float = 30.0,
    ) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.segment_bytes = min(segment_bytes, max(max_bytes // 4, 1))
        self.patience = patience
        #: Asked, without any lock of the area, to give up staged data soon.
        self.on_full: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._segments: weakref.WeakValueDictionary[bytes, Segment] = weakref.WeakValueDictionary()
        self._open: Segment | None = None
        # What a former process has left, kept until the journal has said what of it is wanted.
        self._recoverable: dict[bytes, Segment] = {}
        self._wanted: set[bytes] = set()
        self._retired: deque[RetiredSegment] = deque()
        self._waiting_for_journal: list[RetiredSegment] = []
        self._used = 0
        # What large writes may take in memory, what they do, who is about to give some of it up, and what has been.
        self._max_held = 0
        self._held = 0
        self._gives_up: Callable[[], bool] | None = None
        self._given_up = threading.Event()
        self._filling: Stretch | None = None
        self._stretches: weakref.WeakValueDictionary[bytes, Stretch] = weakref.WeakValueDictionary()
        self._retired_stretches: deque[RetiredStretch] = deque()
        # What a journal is about to refer to, until the disk has it.
        self._promised: set[Segment | Stretch] = set()
        # How many files were made in the directory, and how many of them it is known to name whatever happens.
        self._made = 0
        self._named = 0
        self._claim: int | None = None
        self._closed = False
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._claim = claim_directory(directory)
            self._recover(directory)

    @property
    def used(self) -> int:
        """Bytes that the segments hold."""
        self._reap()
        return self._used

    @property
    def held(self) -> int:
        """Bytes of them that large writes have in memory; see `hold`."""
        self._reap()
        return self._held

    def append(self, data: Buffer) -> list[StagedPart]:
        """Takes data; where they lie, in one part unless a segment is full.

        Raises:
            OSError: ENOSPC where neither waiting nor the disk gives room; nothing of the data is kept.
            WouldWait: there is no room now, and this thread must not wait.
        """
        view = memoryview(data).cast("B")
        size = len(view)
        if self._used + size > self.max_bytes:
            if must_not_wait():
                raise WouldWait
            self._wait_for_room(size)
        if self._max_held and size >= _HELD_BYTES:
            return self._hold(data, view)
        if size <= _DIRECT_BYTES:
            with self._lock:
                segment = self._open
                if segment is not None and segment.size + size <= self.segment_bytes:
                    part = StagedPart(segment, segment.append(view), size)
                    self._used += size
                    return [part]
        parts: list[StagedPart] = []
        taken = 0
        while taken < size:
            with self._lock:
                segment = self._open
                if segment is None or segment.size >= self.segment_bytes:
                    segment = self._begin_segment()
                length = min(size - taken, self.segment_bytes - segment.size)
                start = segment.reserve(length)
                self._used += length
            try:
                segment.fill(start, data if length == len(data) else view[taken : taken + length])
            except OSError as error:
                is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                with self._lock:
                    if segment.unreserve(start, length):
                        self._used -= length
                    if is_full and self._open is segment:
                        self._open = None
                # A full disk is relieved as a full area is: else not even a commit, which journals first, had room.
                if is_full and self.on_full is not None:
                    self.on_full()
                raise
            parts.append(StagedPart(segment, start, length))
            taken += length
        return parts

    def hold(self, max_bytes: int, gives_up: Callable[[], bool]) -> None:
        """Has large writes stay in memory from now on, up to ``max_bytes`` of them.

        ``gives_up`` says whether some of them will be given up soon, for which a writer waits that finds no room; else
        the oldest are written to the disk.
        """
        self._max_held = max_bytes
        self._gives_up = gives_up

    def given_up(self) -> None:
        """Says that held data may have been given up."""
        self._given_up.set()

    def write_out(self, *, durable: bool) -> None:
        """Hands what a journal may refer to to the operating system; ``durable`` also waits until the disk has it.

        Raises:
            OSError: the disk cannot take it; what is in memory stays there, and can be tried again.
        """
        promised = list(self._promised)
        try:
            for source in promised:
                if isinstance(source, Stretch):
                    self._write_down(source)
            with self._lock:
                segments = [segment for segment in list(self._segments.values()) if segment.is_dirty]
                made = self._made
            for segment in segments:
                segment.write_out(durable=durable)
        finally:
            # Also when that failed: the journal does not come to refer to them then.  Kept, they would keep the room on
            # the disk that everything may be waiting for.
            self._promised.difference_update(promised)
        if durable and made != self._named and self.directory is not None:
            sync_directory(self.directory)
            self._named = made

    def begin_anew(self) -> None:
        """Appends to another segment from now on, so that the one being filled can be given up."""
        with self._lock:
            self._open = self._filling = None

    def find(self, reference: BlockRef) -> StagedPart | None:
        """What a journal's reference stands for, or None where it is not of this area.

        Raises:
            OSError: EIO where the segment is gone, or its bytes are not those that were written.
        """
        if self.directory is None or not is_journal_reference(reference):
            return None
        segment = self._segments.get(reference.pack)
        start, length = reference.offset, reference.length
        if segment is None or not segment.has(start, length):
            raise posix_error(
                errno.EIO,
                f"the journal refers to {length} staged bytes of {segment_file(self.directory, reference.pack)}, "
                "which is not there or damaged; open the last version with an empty journal",
            )
        self._wanted.add(segment.name)
        return StagedPart(segment, start, length)

    def sweep(self) -> None:
        """Deletes what a former process has left and no journal has referred to."""
        with self._lock:
            recoverable, self._recoverable = self._recoverable, {}
            for name, segment in recoverable.items():
                segment.journalled = name in self._wanted
            self._wanted.clear()
        recoverable.clear()
        self._reap()

    def checkpoint(self) -> Sequence[RetiredSegment]:
        """The segments that nobody but a journal refers to; see `reclaim`."""
        self._reap()
        with self._lock:
            return tuple(self._waiting_for_journal)

    def reclaim(self, checkpoint: Sequence[RetiredSegment]) -> None:
        """Deletes the segments of a checkpoint: no journal refers to them any more."""
        if not checkpoint:
            return
        gone = {retired.name for retired in checkpoint}
        with self._lock:
            for retired in self._waiting_for_journal:
                if retired.name in gone:
                    retired.delete()
                    self._used -= retired.size
            self._waiting_for_journal = [one for one in self._waiting_for_journal if one.name not in gone]

    def close(self) -> None:
        """Writes out what the journal may refer to and gives the directory free; segments stay readable while held."""
        try:
            self.write_out(durable=False)
        finally:
            with self._lock:
                self._closed = True
                self._open = self._filling = None
                self._recoverable = {}
                if self._claim is not None:
                    os.close(self._claim)
                    self._claim = None

    def _begin_segment(self) -> Segment:
        if self._closed:
            raise posix_error(errno.EBADF, "the staging area is closed")
        name = os.urandom(16)
        if self.directory is None:
            segment = Segment(name, anonymous_file(), None, None, self._retired, self._promised)
        else:
            path = segment_file(self.directory, name)
            segment = Segment(name, *made_files(path), path, self._retired, self._promised)
            self._made += 1
        self._segments[segment.name] = segment
        self._open = segment
        return segment

    def _hold(self, data: Buffer, view: memoryview) -> list[StagedPart]:
        size = len(view)
        if self._held + size > self._max_held:
            self._make_way(size)
        parts: list[StagedPart] = []
        limit = min(STRETCH_BYTES, self.segment_bytes)
        for taken in range(0, size, limit):
            part = data if size <= limit and isinstance(data, bytes) else bytes(view[taken : taken + limit])
            with self._lock:
                if self._closed:
                    raise posix_error(errno.EBADF, "the staging area is closed")
                stretch = self._filling
                if stretch is None or stretch.size + len(part) > limit:
                    stretch = self._filling = Stretch(self._find_place, self._promised, self._retired_stretches)
                    self._stretches[stretch.name] = stretch
                parts.append(StagedPart(stretch, stretch.append(part), len(part)))
                self._used += len(part)
                self._held += len(part)
        return parts

    def _make_way(self, size: int) -> None:
        """Waits until there is room in memory, or makes some by writing what has been there longest to the disk."""
        self._reap()
        held, deadline = self._held, time.monotonic() + _HELD_PATIENCE
        while held + size > self._max_held and self._gives_up is not None and self._gives_up():
            if must_not_wait():
                raise WouldWait
            self._given_up.wait(_POLL)
            self._given_up.clear()
            self._reap()
            if self._held < held:
                deadline = time.monotonic() + _HELD_PATIENCE
            elif time.monotonic() > deadline:
                break
            held = self._held
        if held + size <= self._max_held:
            return
        # Half of it at once: whoever waited in vain is not to wait again for the next write.
        while self._held + size > self._max_held // 2:
            oldest = self._oldest_stretch()
            if oldest is None:
                return
            try:
                self._write_down(oldest)
            except OSError:
                if self.on_full is not None:
                    self.on_full()
                raise
            del oldest
            self._reap()

    def _oldest_stretch(self) -> Stretch | None:
        with self._lock:
            return next(self._stretches.values(), None)

    def _find_place(self, stretch: Stretch) -> tuple[Segment, int]:
        """Gives a stretch its place in a segment, where it has none."""
        with self._lock:
            if stretch.place is None:
                if self._filling is stretch:
                    self._filling = None
                segment = self._open
                if segment is None or segment.size + stretch.size > self.segment_bytes:
                    segment = self._begin_segment()
                stretch.place = segment, segment.reserve(stretch.size)
            return stretch.place

    def _write_down(self, stretch: Stretch) -> None:
        freed = stretch.write_down()
        with self._lock:
            self._held -= freed
            self._stretches.pop(stretch.name, None)

    def _wait_for_room(self, size: int) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            self._reap()
            with self._lock:
                full = self._used + size > self.max_bytes
                if full and self._open is not None and self._open.size:
                    # It can only be given up once it is not the one being filled.
                    self._open = None
            if not full:
                return
            self._reap()
            if self._used + size <= self.max_bytes:
                return
            left = deadline - time.monotonic()
            if size > self.max_bytes or left <= 0:
                raise posix_error(
                    errno.ENOSPC,
                    f"{self._used} of {self.max_bytes} bytes are staged; commit, or allow a larger staging area",
                )
            if self.on_full is not None:
                self.on_full()
            time.sleep(min(_POLL, left))

    def _reap(self) -> None:
        """Takes notice of segments and stretches that have been given up."""
        while self._retired:
            with self._lock:
                try:
                    retired = self._retired.popleft()
                except IndexError:
                    break
                if retired.journalled:
                    self._waiting_for_journal.append(retired)
                else:
                    self._used -= retired.size
        while self._retired_stretches:
            with self._lock:
                try:
                    size, has_place = self._retired_stretches.popleft()
                except IndexError:
                    break
                self._held -= size
                if not has_place:
                    # Else it is part of its segment.
                    self._used -= size

    def _recover(self, directory: Path) -> None:
        """Opens the segments of a former process, each as far as it is whole."""
        for path in sorted(directory.glob("*.segment")):
            with contextlib.suppress(ValueError):
                name = bytes.fromhex(path.stem)
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                sums = os.open(sums_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
                segment = Segment(name, descriptor, sums, path, self._retired, self._promised)
                segment.journalled = True
                segment.verify()
                self._made += 1
                self._segments[name] = self._recoverable[name] = segment
                self._used += segment.size
