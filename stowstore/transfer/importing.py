"""Importing directories into a volume.

Files are read by several threads ahead of the one that writes into the volume, in directory order, so that small
files that lie together are packed together.  Small files become blocks without being staged, and get their names many
at a time.  What has not changed since an earlier import (size, modification time, mode, owner and extended attributes)
is left as it is.
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
from typing import Final, NamedTuple

from stowstore.chunks.block import BLOCK_BYTES
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.loading import FileLoader
from stowstore.transfer.paths import attributes_or_none, make_directories
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.transfer.xattrs import SourceXattrs, Xattrs, update_xattrs

__all__ = ["SMALL_BYTES", "Found", "Importer", "data_stretches", "import_directory", "walk_directory"]

#: Files up to this size are read whole by the threads; larger ones are streamed by the writing thread.
SMALL_BYTES: Final = 1 << 20
_PIECE: Final = 4 << 20
_TELL_EVERY: Final = 500

#: What one thread reads at a time, and how many such batches are read ahead.
_BATCH_FILES: Final = 64
_BATCH_BYTES: Final = 1 << 20
_BATCHES_AHEAD: Final = 16

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_TRUNC

#: How names become bytes, as `os.fsencode` does it.
_ENCODING: Final = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Found(NamedTuple):
    """A file below the directory that is imported; ``above`` is the path of its directory from there."""

    path: str
    above: tuple[bytes, ...]
    name: bytes
    is_regular: bool
    """Whether the listing said so; by now it may be something else."""


class _Read(NamedTuple):
    """What a file is, its attributes, and what is in a small one; or why nothing can be read."""

    found: Found
    status: os.stat_result | None
    xattrs: Xattrs | None
    content: bytes | None
    failure: OSError | None


def import_directory(
    files: FileSystem,
    source: str | os.PathLike[str],
    target: str | bytes = "/",
    *,
    parallel: int = 8,
    on_progress: Progress | None = None,
) -> TransferReport:
    """Imports what lies in a directory: files, directories, links, fifos and devices, with modes, owners, times and
    extended attributes.

    Symbolic links are imported as links, never followed; hard links stay hard links; holes stay holes.  A file that
    cannot be read is skipped and reported.  What is in the volume and not in the source stays.

    Raises:
        NotADirectoryError: the source is no directory.
        OSError: the volume cannot take it (ENOSPC, EROFS, ENOTDIR where a file is in the way).
    """
    root = os.fspath(source)
    if not os.path.isdir(root):
        raise NotADirectoryError(errno.ENOTDIR, "only directories are imported", root)
    report = TransferReport()
    importer = Importer(files, make_directories(files, target), report)
    with ThreadPoolExecutor(parallel, thread_name_prefix="stow-import") as pool:
        for found, status, xattrs, content, failure in _read_ahead(pool, walk_directory(root, report), report):
            if status is None:
                assert failure is not None
                report.skipped.append((found.path, failure.strerror or str(failure)))
                continue
            importer.take(found, status, xattrs, content)
            if on_progress is not None and (report.files + report.unchanged) % _TELL_EVERY == 0:
                on_progress(report)
    importer.finish()
    if on_progress is not None:
        on_progress(report)
    return report


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


def _read_ahead(pool: ThreadPoolExecutor, walk: Iterator[Found], report: TransferReport) -> Iterator[_Read]:
    """The files with the contents of small ones, read by threads a batch at a time, in order."""
    source = SourceXattrs(report)
    waiting: deque[Future[list[_Read]]] = deque()
    while batch := list(islice(walk, _BATCH_FILES)):
        waiting.append(pool.submit(_read_batch, batch, source))
        if len(waiting) >= _BATCHES_AHEAD:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _read_batch(batch: list[Found], source: SourceXattrs) -> list[_Read]:
    """Reads what is small, until that is much; the rest is streamed by who takes it."""
    done: list[_Read] = []
    left = _BATCH_BYTES
    for found in batch:
        try:
            read = _read_regular(found, source, left) if found.is_regular and left > 0 else _look_at(found, source)
        except OSError as error:
            read = _Read(found, None, None, None, error)
        if read.content is not None:
            left -= len(read.content)
        done.append(read)
    return done


def _look_at(found: Found, source: SourceXattrs) -> _Read:
    status = os.lstat(found.path)
    return _Read(found, status, source.read(found.path, status), None, None)


def _read_regular(found: Found, source: SourceXattrs, most: int) -> _Read:
    """Reads a file, by one walk along its path; the content only where that is small."""
    path = found.path
    try:
        descriptor = os.open(path, _READ)
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
        return _Read(found, status, source.read(path, status, descriptor), content, None)
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


class Importer:
    """Puts what was found into the volume; directories get their attributes last: filling them changes their times."""

    def __init__(self, files: FileSystem, target: int, report: TransferReport) -> None:
        self._files = files
        self.report = report
        self.loader = FileLoader(files)
        self._directories: dict[tuple[bytes, ...], int] = {(): target}
        #: Directories this import has made: nothing in them can be known or in the way.
        self._made: set[int] = set()
        self._later: list[tuple[int, os.stat_result, Xattrs | None]] = []
        self._links: dict[tuple[int, int], int] = {}

    def take(self, found: Found, status: os.stat_result, xattrs: Xattrs | None, data: bytes | None) -> None:
        """Brings something in, with the content of a small file; no attributes are not the same as unknown ones."""
        wanted = self.settle(found, status, xattrs)
        if wanted is None:
            return
        parent, name, known = wanted
        if data is not None and len(data) <= BLOCK_BYTES and status.st_nlink == 1:
            self._load(parent, name, status, xattrs, data)
            return
        if known is not None:
            self._files.unlink(parent, name, ROOT)
        linked = self._links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if linked is not None:
            self._files.link(linked, parent, name, ROOT)
        else:
            ino = self._make(found.path, status, parent, name, data)
            if status.st_nlink > 1:
                self._links[status.st_dev, status.st_ino] = ino
            self._finish(ino, status, xattrs)
        self.report.files += 1

    def settle(
        self, found: Found, status: os.stat_result, xattrs: Xattrs | None
    ) -> tuple[int, bytes, Attributes | None] | None:
        """Makes a directory, and sees what has not changed, but for its extended attributes, or cannot be taken.

        What is left has to be brought in: returned is where to, under which name, and what lies there now.
        """
        parent, name = self._directories[found.above], found.name
        known = None if parent in self._made else attributes_or_none(self._files, parent, name)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._take_directory(found, status, xattrs, parent, known)
            return None
        if kind == stat.S_IFSOCK:
            self.report.skipped.append((found.path, "a socket is of no use without its process"))
            return None
        if known is not None:
            if self._is_same(known, found.path, status):
                if xattrs is not None and update_xattrs(self._files, known.ino, xattrs):
                    self.report.files += 1
                else:
                    self.report.unchanged += 1
                return None
            if stat.S_ISDIR(known.mode):
                raise IsADirectoryError(errno.EISDIR, "a directory is in the way", found.path)
        return parent, name, known

    def finish(self) -> None:
        self.loader.flush()
        for ino, status, xattrs in reversed(self._later):
            self._finish(ino, status, xattrs)

    def _take_directory(
        self, found: Found, status: os.stat_result, xattrs: Xattrs | None, parent: int, known: Attributes | None
    ) -> None:
        if known is None:
            ino = self._files.mkdir(parent, found.name, 0o700, ROOT).ino
            self._made.add(ino)
        elif stat.S_ISDIR(known.mode):
            ino = known.ino
        else:
            raise NotADirectoryError(errno.ENOTDIR, "a file of the volume is in the way", found.path)
        self._directories[*found.above, found.name] = ino
        self._later.append((ino, status, xattrs))
        self.report.directories += 1

    def _load(self, parent: int, name: bytes, status: os.stat_result, xattrs: Xattrs | None, data: bytes) -> None:
        self.loader.add(
            parent,
            name,
            data,
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            atime_ns=status.st_atime_ns,
            mtime_ns=status.st_mtime_ns,
            xattrs=xattrs or {},
        )
        self.report.files += 1
        self.report.bytes += len(data)

    def _make(self, path: str, status: os.stat_result, parent: int, name: bytes, data: bytes | None) -> int:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            return self._files.symlink(parent, name, os.fsencode(os.readlink(path)), ROOT).ino
        if kind != stat.S_IFREG:
            return self._files.mknod(parent, name, kind | 0o600, ROOT, status.st_rdev).ino
        made, handle = self._files.create(parent, name, 0o600, _WRITE, ROOT)
        try:
            if data is not None:
                if data:
                    self._files.write(handle, 0, data, ROOT)
                self.report.bytes += len(data)
            else:
                self._stream(path, made.ino, handle)
        finally:
            self._files.release(handle)
        return made.ino

    def _stream(self, path: str, ino: int, handle: int) -> None:
        """Copies a large file piece by piece; what the source says are holes are not written."""
        descriptor = os.open(path, _READ)
        try:
            size = os.fstat(descriptor).st_size
            for start, stop in data_stretches(descriptor, size):
                offset = start
                while offset < stop and (piece := os.pread(descriptor, min(_PIECE, stop - offset), offset)):
                    self._files.write(handle, offset, piece, ROOT)
                    self.report.bytes += len(piece)
                    offset += len(piece)
            self._files.setattr(ino, AttributeChanges(size=size), ROOT, handle)
        finally:
            os.close(descriptor)

    def _is_same(self, known: Attributes, path: str, status: os.stat_result) -> bool:
        if stat.S_ISLNK(known.mode) and stat.S_ISLNK(status.st_mode):
            return self._files.readlink(known.ino) == os.fsencode(os.readlink(path))
        if stat.S_ISREG(status.st_mode):
            return _is_same(known, status)
        kept = (known.mode, known.uid, known.gid, known.rdev, known.mtime_ns)
        return kept == (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns)

    def _finish(self, ino: int, status: os.stat_result, xattrs: Xattrs | None) -> None:
        """Gives it the attributes of its source; what has them already is no change."""
        known = self._files.getattr(ino)
        kept = (known.mode, known.uid, known.gid, known.mtime_ns)
        if kept != (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns):
            mode = None if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
            owner = AttributeChanges(uid=status.st_uid, gid=status.st_gid)
            self._files.setattr(ino, owner, ROOT)
            changes = AttributeChanges(mode=mode, atime=status.st_atime_ns, mtime=status.st_mtime_ns)
            self._files.setattr(ino, changes, ROOT)
        # After the owner: a new one takes capabilities away.
        if xattrs is not None:
            update_xattrs(self._files, ino, xattrs)


def _is_same(known: Attributes, status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(known.mode)
        and known.size == status.st_size
        and known.mtime_ns == status.st_mtime_ns
        and (known.uid, known.gid) == (status.st_uid, status.st_gid)
        and stat.S_IMODE(known.mode) == stat.S_IMODE(status.st_mode)
    )


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
