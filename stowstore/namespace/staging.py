"""The staging area: written data on the local disk, until a commit has turned them into blocks.

Data are appended to segment files.  A segment is deleted when nothing refers to it any more: extents, reads under way
and pending uploads hold its object, so its lifetime is that of the object.  Beside each segment file lies a list of
checksums, one a stretch written, which proves what a crash has left.

Without a directory, segments are anonymous memory: for sessions that need not survive a crash.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from datastore.errors import ConfigError
from stowstore.chunks.block import BlockRef
from stowstore.namespace.errors import posix_error

__all__ = ["JOURNAL_CODEC", "Segment", "StagedPart", "StagingArea"]

#: Bytes after which a new segment is begun.
SEGMENT_BYTES: Final = 64 << 20

#: Marks, in the place of a codec, a reference of a journal to staged data; no block has it.
JOURNAL_CODEC: Final = 0xFF

#: Small writes are gathered in memory up to this size; larger ones are written at once.
_TAIL_BYTES: Final = 1 << 20
_DIRECT_BYTES: Final = 256 << 10

#: How often a writer that waits looks whether there is room, seconds.
_POLL: Final = 0.02

_STRETCH = struct.Struct(">III")
_NO_NAME: Final = bytes(32)

Buffer = bytes | bytearray | memoryview


class StagedPart(NamedTuple):
    """``length`` bytes of a segment from ``start`` on."""

    segment: Segment
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
        self._retired: deque[_Retired] = deque()
        self._waiting_for_journal: list[_Retired] = []
        self._used = 0
        self._claim: int | None = None
        self._closed = False
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._claim = _claim(directory)
            self._recover(directory)

    @property
    def used(self) -> int:
        """Bytes that the segments hold."""
        self._reap()
        return self._used

    def append(self, data: Buffer) -> list[StagedPart]:
        """Takes data; where they lie, in one part unless a segment is full.

        Raises:
            OSError: ENOSPC where neither waiting nor the disk gives room; nothing of the data is kept.
        """
        view = memoryview(data).cast("B")
        size = len(view)
        if self._used + size > self.max_bytes:
            self._wait_for_room(size)
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
            except OSError:
                with self._lock:
                    if segment.unreserve(start, length):
                        self._used -= length
                raise
            parts.append(StagedPart(segment, start, length))
            taken += length
        return parts

    def write_out(self, *, durable: bool) -> None:
        """Hands everything to the operating system; ``durable`` also waits until the disk has it.

        Raises:
            OSError: the disk cannot take it; what is in memory stays there, and can be tried again.
        """
        with self._lock:
            segments = [segment for segment in list(self._segments.values()) if segment.is_dirty]
        for segment in segments:
            segment.write_out(durable=durable)
        if durable and segments and self.directory is not None:
            _sync_directory(self.directory)

    def find(self, reference: BlockRef) -> StagedPart | None:
        """What a journal's reference stands for, or None where it is not of this area.

        Raises:
            OSError: EIO where the segment is gone, or its bytes are not those that were written.
        """
        if reference.codec != JOURNAL_CODEC or reference.name != _NO_NAME or self.directory is None:
            return None
        segment = self._segments.get(reference.pack)
        start, length = reference.offset, reference.length
        if segment is None or not segment.has(start, length):
            raise posix_error(
                errno.EIO,
                f"the journal refers to {length} staged bytes of {self.directory / _file_name(reference.pack)}, "
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

    def checkpoint(self) -> Sequence[_Retired]:
        """The segments that nobody but a journal refers to; see `reclaim`."""
        self._reap()
        with self._lock:
            return tuple(self._waiting_for_journal)

    def reclaim(self, checkpoint: Sequence[_Retired]) -> None:
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
                self._open = None
                self._recoverable = {}
                if self._claim is not None:
                    os.close(self._claim)
                    self._claim = None

    def _begin_segment(self) -> Segment:
        if self._closed:
            raise posix_error(errno.EBADF, "the staging area is closed")
        if self.directory is None:
            descriptor = _anonymous_file()
            segment = Segment(os.urandom(16), descriptor, None, None, self._retired)
        else:
            name = os.urandom(16)
            path = self.directory / _file_name(name)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                sums = os.open(
                    path.with_suffix(".sums"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND, 0o600
                )
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
            segment = Segment(name, descriptor, sums, path, self._retired)
        self._segments[segment.name] = segment
        self._open = segment
        return segment

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
        """Takes notice of segments that have been given up."""
        while self._retired:
            with self._lock:
                try:
                    retired = self._retired.popleft()
                except IndexError:
                    return
                if retired.journalled:
                    self._waiting_for_journal.append(retired)
                else:
                    self._used -= retired.size

    def _recover(self, directory: Path) -> None:
        """Opens the segments of a former process, each as far as it is whole."""
        for path in sorted(directory.glob("*.segment")):
            with contextlib.suppress(ValueError):
                name = bytes.fromhex(path.stem)
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                sums = os.open(path.with_suffix(".sums"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
                segment = Segment(name, descriptor, sums, path, self._retired)
                segment.journalled = True
                segment.verify()
                self._segments[name] = self._recoverable[name] = segment
                self._used += segment.size


class Segment:
    """One append-only file of staged data; deletes itself when nobody holds it.

    A segment that a journal has referred to is kept on disk by its area until the journal refers to it no more.
    """

    __slots__ = (
        "__weakref__",
        "_dirty",
        "_lock",
        "_on_disk",
        "_path",
        "_pid",
        "_proved",
        "_retired",
        "_stretches",
        "_sums",
        "_tail",
        "descriptor",
        "journalled",
        "name",
        "size",
    )

    def __init__(
        self, name: bytes, descriptor: int, sums: int | None, path: Path | None, retired: deque[_Retired]
    ) -> None:
        self.name = name
        self.descriptor = descriptor
        #: Bytes taken, written out or not.
        self.size = 0
        #: Whether a journal may refer to it.
        self.journalled = False
        self._sums = sums
        self._path = path
        self._retired = retired
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._tail = bytearray()
        self._on_disk = 0
        self._stretches: list[bytes] = []
        self._dirty = False
        self._proved: list[tuple[int, int]] | None = None

    @property
    def is_dirty(self) -> bool:
        """Whether something of it may not be on disk."""
        return self._dirty

    def journal_reference(self, start: int, length: int) -> BlockRef:
        """What a journal keeps of a range, in the form of a block reference."""
        self.journalled = True
        return BlockRef(self.name, start, 0, length, JOURNAL_CODEC, _NO_NAME)

    def append(self, data: memoryview) -> int:
        """Takes a small piece into memory; its start.  The area's lock is held."""
        with self._lock:
            if len(self._tail) + len(data) > _TAIL_BYTES:
                self._flush_tail()
            start = self.size
            self._tail += data
            self.size += len(data)
            self._dirty = True
        return start

    def reserve(self, length: int) -> int:
        """The start of a stretch that `fill` will write.  The area's lock is held."""
        with self._lock:
            self._flush_tail()
            start = self.size
            self.size += length
            self._on_disk = self.size
            self._dirty = True
        return start

    def unreserve(self, start: int, length: int) -> bool:
        """Gives back a stretch that could not be filled, if it is the last one.  The area's lock is held."""
        with self._lock:
            if start + length != self.size:
                return False
            self.size = self._on_disk = start
        return True

    def fill(self, start: int, data: Buffer) -> None:
        """Writes a reserved stretch; when it raises, the stretch stays unused."""
        _write(self.descriptor, memoryview(data), start)
        if self._sums is not None:
            stretch = _STRETCH.pack(start, len(data), _checksum(data))
            with self._lock:
                self._stretches.append(stretch)
                self._dirty = True

    def read(self, start: int, length: int) -> bytes:
        """Bytes that were taken.

        Raises:
            OSError: EIO where the file is shorter than what was written to it.
        """
        if start + length > self._on_disk:
            with self._lock:
                before = max(self._on_disk - start, 0)
                if before < length:
                    begin = start + before - self._on_disk
                    with memoryview(self._tail) as tail:
                        rest = bytes(tail[begin : begin + length - before])
                    return self._pread(start, before) + rest if before else rest
        return self._pread(start, length)

    def write_out(self, *, durable: bool) -> None:
        """Hands everything to the operating system, and to the disk if it is to be durable."""
        with self._lock:
            self._flush_tail()
            sums = self._sums
            if sums is None:
                self._dirty = False
                return
            if self._stretches:
                _write(sums, memoryview(b"".join(self._stretches)), None)
                self._stretches.clear()
            if durable:
                self._dirty = False
        if durable:
            try:
                os.fdatasync(self.descriptor)
                os.fdatasync(sums)
            except OSError:
                self._dirty = True
                raise

    def verify(self) -> None:
        """Finds out, after a crash, what the checksums prove."""
        assert self._sums is not None
        self.size = self._on_disk = os.fstat(self.descriptor).st_size
        listed = os.pread(self._sums, os.fstat(self._sums).st_size, 0)
        proved: list[tuple[int, int]] = []
        for at in range(0, len(listed) - _STRETCH.size + 1, _STRETCH.size):
            start, length, expected = _STRETCH.unpack_from(listed, at)
            data = os.pread(self.descriptor, length, start)
            if len(data) == length and _checksum(data) == expected:
                proved.append((start, start + length))
        self._proved = _joined(proved)

    def has(self, start: int, length: int) -> bool:
        """Whether a range was written by this process, or is proved to be what an earlier one wrote."""
        if self._proved is None:
            return start + length <= self.size
        return any(first <= start and start + length <= last for first, last in self._proved)

    def _flush_tail(self) -> None:
        tail = self._tail
        if tail:
            with memoryview(tail) as data:
                _write(self.descriptor, data, self._on_disk)
                if self._sums is not None:
                    self._stretches.append(_STRETCH.pack(self._on_disk, len(tail), _checksum(data)))
            self._on_disk += len(tail)
            self._tail = bytearray()

    def _pread(self, start: int, length: int) -> bytes:
        data = os.pread(self.descriptor, length, start)
        while len(data) < length:
            more = os.pread(self.descriptor, length - len(data), start + len(data))
            if not more:
                raise posix_error(errno.EIO, f"staged data are gone from {self._path or 'memory'}")
            data += more
        return data

    def __del__(self) -> None:
        # A forked child owns neither the file nor the descriptor's meaning.
        if os.getpid() != self._pid:
            return
        os.close(self.descriptor)
        if self._sums is not None:
            os.close(self._sums)
        retired = _Retired(self.name, self._path, self.size, self.journalled)
        if not retired.journalled:
            retired.delete()
        # No lock may be taken here: this can run anywhere.
        self._retired.append(retired)


class _Retired(NamedTuple):
    """A segment that no object refers to any more."""

    name: bytes
    path: Path | None
    size: int
    journalled: bool

    def delete(self) -> None:
        if self.path is not None:
            for path in (self.path, self.path.with_suffix(".sums")):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def _file_name(name: bytes) -> str:
    return f"{name.hex()}.segment"


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches with those that touch made one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def _checksum(data: Buffer) -> int:
    # The C code takes bytes only; `bytes` of bytes copies nothing.
    found: int = google_crc32c.value(bytes(data))
    return found


def _write(descriptor: int, data: memoryview, offset: int | None) -> None:
    while data:
        written = os.write(descriptor, data) if offset is None else os.pwrite(descriptor, data, offset)
        data = data[written:]
        if offset is not None:
            offset += written


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stowstore-staging", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _claim(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"the staging area {directory} is used by another session", hint="give every session a cache_dir of its own"
        ) from error
    return descriptor


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
