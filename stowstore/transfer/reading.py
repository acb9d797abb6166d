"""Reading what is imported: the walk through a directory, and what small files hold.

A file of a few KiB that lies in the system's cache is read faster by the thread that wants it than by others: these
would have to ask for the interpreter's lock after every system call.  Where reading means waiting for a disk or a
server, it is done by several threads ahead.  Which of both it is, is found out on the way.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Final, NamedTuple

from stowstore.transfer.progress import TransferReport
from stowstore.transfer.xattrs import SourceXattrs, Xattrs

__all__ = ["READ_FLAGS", "SMALL_BYTES", "Found", "Read", "data_stretches", "read_files", "walk_directory"]

#: Files up to this size are read whole; larger ones are streamed by who takes them.
SMALL_BYTES: Final = 1 << 20
_PIECE: Final = 4 << 20

#: What is read at a time, and how many such batches threads read ahead.
_BATCH_FILES: Final = 64
_BATCH_BYTES: Final = 1 << 20
_BATCHES_AHEAD: Final = 16

#: How long a file takes to read, in seconds, where that means waiting: several times what it takes from memory.
_SLOW: Final = 0.0001

#: How many batches threads read before it is tried again whether that is faster: at first, and at most.
_SPELL: Final = 16
_LONGEST_SPELL: Final = 1024

#: What was a regular file when it was listed may be a link by now, or a fifo, for whose writer an open would wait.
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: How names become bytes, as `os.fsencode` does it.
_ENCODING: Final = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Found(NamedTuple):
    """A file below the directory that is imported; ``above`` is the path of its directory from there."""

    path: str
    above: tuple[bytes, ...]
    name: bytes
    is_regular: bool
    """Whether the listing said so; by now it may be something else."""


class Read(NamedTuple):
    """What a file is, its attributes, and what is in a small one; or why nothing can be read."""

    found: Found
    status: os.stat_result | None
    xattrs: Xattrs | None
    content: bytes | None
    failure: OSError | None


def walk_directory(root: str, report: TransferReport) -> Iterator[Found]:
    """Everything below a directory, parents first, names ascending."""
    waiting: list[tuple[str, tuple[bytes, ...]]] = [(root, ())]
    while waiting:
        directory, names = waiting.pop()
        try:
            with os.scandir(directory) as listing:
                children = sorted([(entry.name.encode(*_ENCODING), entry) for entry in listing])
        except OSError as error:
            report.skipped.append((directory, error.strerror or str(error)))
            continue
        below = []
        for name, entry in children:
            is_regular = entry.is_file(follow_symlinks=False)
            yield Found(entry.path, names, name, is_regular)
            if not is_regular and entry.is_dir(follow_symlinks=False):
                below.append((entry.path, (*names, name)))
        waiting.extend(reversed(below))


def read_files(walk: Iterator[Found], report: TransferReport, pool: ThreadPoolExecutor) -> Iterator[Read]:
    """What was found, in order, with what it is and the content of small files; the pool reads where that is slow."""
    source = SourceXattrs(report)
    spell = _SPELL
    while batch := list(islice(walk, _BATCH_FILES)):
        read, seconds = _read_batch(batch, source)
        yield from read
        # The median: now and then each file has to wait for others who want the processor, too.
        if median(seconds) > _SLOW:
            yield from _read_ahead(pool, islice(walk, spell * _BATCH_FILES), source)
            spell = min(2 * spell, _LONGEST_SPELL)
        else:
            spell = _SPELL


def data_stretches(descriptor: int, size: int, offset: int = 0) -> Iterator[tuple[int, int]]:
    """Where a file has data from an offset on, as its file system tells."""
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            yield offset, size
            return
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, offset


def _read_ahead(pool: ThreadPoolExecutor, walk: Iterator[Found], source: SourceXattrs) -> Iterator[Read]:
    """The same by threads, a batch at a time."""
    waiting: deque[Future[tuple[list[Read], list[float]]]] = deque()
    while batch := list(islice(walk, _BATCH_FILES)):
        waiting.append(pool.submit(_read_batch, batch, source))
        if len(waiting) >= _BATCHES_AHEAD:
            yield from waiting.popleft().result()[0]
    while waiting:
        yield from waiting.popleft().result()[0]


def _read_batch(batch: list[Found], source: SourceXattrs) -> tuple[list[Read], list[float]]:
    """Reads what is small, until that is much; the rest is streamed by who takes it.  Also how long each took."""
    done: list[Read] = []
    seconds: list[float] = []
    left = _BATCH_BYTES
    before = perf_counter()
    for found in batch:
        try:
            read = _read_regular(found, source, left) if found.is_regular and left > 0 else _look_at(found, source)
        except OSError as error:
            read = Read(found, None, None, None, error)
        if read.content is not None:
            left -= len(read.content)
        done.append(read)
        now = perf_counter()
        seconds.append(now - before)
        before = now
    return done, seconds


def _look_at(found: Found, source: SourceXattrs) -> Read:
    status = os.lstat(found.path)
    return Read(found, status, source.read(found.path, status), None, None)


def _read_regular(found: Found, source: SourceXattrs, most: int) -> Read:
    """Reads a file, by one walk along its path; the content only where that is small."""
    path = found.path
    try:
        descriptor = os.open(path, READ_FLAGS)
    except OSError:
        # Without its content it may be enough: it may be large and unchanged, or no regular file any more.
        read = _look_at(found, source)
        if read.status is not None and stat.S_ISREG(read.status.st_mode) and read.status.st_size <= SMALL_BYTES:
            raise
        return read
    try:
        status = os.fstat(descriptor)
        content = None
        if stat.S_ISREG(status.st_mode) and status.st_size <= min(SMALL_BYTES, most):
            content = _content(descriptor, status.st_size)
        return Read(found, status, source.read(path, status, descriptor), content, None)
    finally:
        os.close(descriptor)


def _content(descriptor: int, size: int) -> bytes:
    content = os.read(descriptor, size + 1)
    if len(content) == size:
        return content
    # It changes while it is read: what is there when reading comes to an end is taken.
    parts = [content]
    while part := os.read(descriptor, _PIECE):
        parts.append(part)
    return b"".join(parts)
