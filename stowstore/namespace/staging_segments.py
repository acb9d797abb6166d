"""One file of staged data: append-only, with a list of checksums beside it, and gone when nobody holds it.

Small writes are gathered in memory and written together.  The checksums, one a stretch written, prove after a crash
what of a segment is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from collections import deque
from pathlib import Path
from typing import Any, Final, NamedTuple

from crc32c import crc32c

from stowstore.chunks.block import BlockRef
from stowstore.disk_writes import write_all
from stowstore.namespace.errors import posix_error
from stowstore.namespace.staging_files import sums_file

__all__ = ["JOURNAL_CODEC", "Buffer", "RetiredSegment", "Segment", "is_journal_reference"]

#: Marks, in the place of a codec, a reference of a journal to staged data; no block has it.
JOURNAL_CODEC: Final = 0xFF

#: Small writes are gathered in memory up to this size.
_TAIL_BYTES: Final = 1 << 20

_STRETCH = struct.Struct(">III")
_NO_NAME: Final = bytes(32)

Buffer = bytes | bytearray | memoryview


class Segment:
    """One append-only file of staged data; deletes itself when nobody holds it.

    A segment that a journal has referred to is kept on disk by its area until the journal refers to it no more.  One
    that a journal is about to refer to is put into ``promised``, so that it outlives its last extent until it is
    written out.
    """

    __slots__ = (
        "__weakref__",
        "_dirty",
        "_files",
        "_lock",
        "_on_disk",
        "_path",
        "_promised",
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
        self,
        name: bytes,
        descriptor: int,
        sums: int | None,
        path: Path | None,
        retired: deque[RetiredSegment],
        promised: set[Any],
    ) -> None:
        self.name = name
        self._files = _OpenFiles(descriptor, sums)
        self.descriptor = descriptor
        #: Bytes taken, written out or not.
        self.size = 0
        #: Whether a journal may refer to it.
        self.journalled = False
        self._sums = sums
        self._path = path
        self._retired = retired
        self._promised = promised
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
        self._promised.add(self)
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
        write_all(self.descriptor, data, start)
        if self._sums is not None:
            stretch = _STRETCH.pack(start, len(data), crc32c(data))
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
                write_all(sums, b"".join(self._stretches))
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
            if len(data) == length and crc32c(data) == expected:
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
                write_all(self.descriptor, data, self._on_disk)
                if self._sums is not None:
                    self._stretches.append(_STRETCH.pack(self._on_disk, len(tail), crc32c(data)))
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
        # A forked child does not own the file.
        if os.getpid() != self._files.pid:
            return
        self._dirty = False
        retired = RetiredSegment(self.name, self._path, self.size, self.journalled)
        if not retired.journalled:
            retired.delete()
        # No lock may be taken here: this can run anywhere.
        self._retired.append(retired)


class _OpenFiles:
    """Descriptors that are closed when nobody uses them.

    Not by the segment itself: while it is finalised another thread may still get hold of it by a weak reference, and
    would write to whatever has got its number by then.
    """

    __slots__ = ("_descriptor", "_sums", "pid")

    def __init__(self, descriptor: int, sums: int | None) -> None:
        self._descriptor = descriptor
        self._sums = sums
        self.pid = os.getpid()

    def __del__(self) -> None:
        # In a forked child the numbers may mean something else.
        if os.getpid() == self.pid:
            os.close(self._descriptor)
            if self._sums is not None:
                os.close(self._sums)


class RetiredSegment(NamedTuple):
    """A segment that no object refers to any more."""

    name: bytes
    path: Path | None
    size: int
    journalled: bool

    def delete(self) -> None:
        if self.path is not None:
            for path in (self.path, sums_file(self.path)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def is_journal_reference(reference: BlockRef) -> bool:
    """Whether this is what a journal keeps of staged data, and not a block."""
    return reference.codec == JOURNAL_CODEC and reference.name == _NO_NAME


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches with those that touch made one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found
