"""Importing directories and tar streams into a volume.

Files are read by several threads ahead of the one that writes into the volume, in directory order, so that small
files that lie together are packed together.  What has not changed since an earlier import (size and modification time)
is left as it is.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, NamedTuple

from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.paths import attributes_or_none, find, make_directories, parts_of
from stowstore.transfer.progress import Progress, TransferReport

__all__ = ["import_directory", "import_tar"]

#: Files up to this size are read whole by the threads; larger ones are streamed by the writing thread.
_SMALL: Final = 1 << 20
_PIECE: Final = 4 << 20

#: The smallest hole that is made of zeros in a tar stream.
_HOLE: Final = 64 << 10
_AHEAD: Final = 256
_TELL_EVERY: Final = 500

_WRITE = os.O_WRONLY | os.O_TRUNC


class _Found(NamedTuple):
    """A file below the directory that is imported; ``names`` is its path from there."""

    path: str
    names: tuple[bytes, ...]
    status: os.stat_result


def import_directory(
    files: FileSystem,
    source: str | os.PathLike[str],
    target: str | bytes = "/",
    *,
    parallel: int = 8,
    on_progress: Progress | None = None,
) -> TransferReport:
    """Imports what lies in a directory: files, directories, links, fifos and devices, with modes, owners and times.

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
    importer = _Importer(files, make_directories(files, target), report)
    with ThreadPoolExecutor(parallel, thread_name_prefix="stow-import") as pool:
        for found, content in _read_ahead(pool, _walk(Path(root), report)):
            try:
                data = None if content is None else content.result()
            except OSError as error:
                report.skipped.append((found.path, error.strerror or str(error)))
                continue
            importer.take(found, data)
            if on_progress is not None and (report.files + report.unchanged) % _TELL_EVERY == 0:
                on_progress(report)
    importer.finish()
    if on_progress is not None:
        on_progress(report)
    return report


def import_tar(
    files: FileSystem, stream: IO[bytes], target: str | bytes = "/", *, on_progress: Progress | None = None
) -> TransferReport:
    """Imports a tar stream, compressed or not, as it comes; members whose names lead out of the target are skipped.

    Raises:
        tarfile.TarError: the stream is no tar archive, or is cut off.
    """
    report = TransferReport()
    base = parts_of(target)
    make_directories(files, target)
    directories: list[_TarMember] = []
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            try:
                names = parts_of(member.name)
            except OSError:
                report.skipped.append((member.name, "its name leads out of the target"))
                continue
            taken = _TarMember(files, archive, member, base, names, report)
            taken.take()
            if member.isdir():
                directories.append(taken)
            if on_progress is not None and report.files % _TELL_EVERY == 0:
                on_progress(report)
    for taken in reversed(directories):
        taken.finish_directory()
    if on_progress is not None:
        on_progress(report)
    return report


def _walk(root: Path, report: TransferReport) -> Iterator[_Found]:
    """Everything below a directory, parents first, names ascending."""
    waiting: list[tuple[str, tuple[bytes, ...]]] = [(os.fspath(root), ())]
    while waiting:
        directory, names = waiting.pop()
        try:
            with os.scandir(directory) as listing:
                children = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            report.skipped.append((directory, error.strerror or str(error)))
            continue
        below = []
        for entry in children:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                report.skipped.append((entry.path, error.strerror or str(error)))
                continue
            path = (*names, os.fsencode(entry.name))
            yield _Found(entry.path, path, status)
            if stat.S_ISDIR(status.st_mode):
                below.append((entry.path, path))
        waiting.extend(reversed(below))


def _read_ahead(pool: ThreadPoolExecutor, found: Iterator[_Found]) -> Iterator[tuple[_Found, Future[bytes] | None]]:
    """The files with the contents of small ones, read by threads, in order."""
    waiting: deque[tuple[_Found, Future[bytes] | None]] = deque()
    for item in found:
        small = stat.S_ISREG(item.status.st_mode) and item.status.st_size <= _SMALL
        waiting.append((item, pool.submit(_content, item.path) if small else None))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        return file.read()


class _Importer:
    """Puts what was found into the volume; directories get their attributes last: filling them changes their times."""

    def __init__(self, files: FileSystem, target: int, report: TransferReport) -> None:
        self._files = files
        self._report = report
        self._directories: dict[tuple[bytes, ...], int] = {(): target}
        self._later: list[tuple[int, os.stat_result]] = []
        self._links: dict[tuple[int, int], int] = {}

    def take(self, found: _Found, data: bytes | None) -> None:
        parent, name, status = self._directories[found.names[:-1]], found.names[-1], found.status
        known = attributes_or_none(self._files, parent, name)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            if known is not None and not stat.S_ISDIR(known.mode):
                raise NotADirectoryError(errno.ENOTDIR, "a file of the volume is in the way", found.path)
            ino = known.ino if known is not None else self._files.mkdir(parent, name, 0o700, ROOT).ino
            self._directories[found.names] = ino
            self._later.append((ino, status))
            self._report.directories += 1
            return
        if kind == stat.S_IFSOCK:
            self._report.skipped.append((found.path, "a socket is of no use without its process"))
            return
        if known is not None:
            if self._is_same(known, found):
                self._report.unchanged += 1
                return
            if stat.S_ISDIR(known.mode):
                raise IsADirectoryError(errno.EISDIR, "a directory is in the way", found.path)
            self._files.unlink(parent, name, ROOT)
        linked = self._links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if linked is not None:
            self._files.link(linked, parent, name, ROOT)
        else:
            ino = self._make(found, parent, name, data)
            if status.st_nlink > 1:
                self._links[status.st_dev, status.st_ino] = ino
            self._finish(ino, status)
        self._report.files += 1

    def finish(self) -> None:
        for ino, status in reversed(self._later):
            self._finish(ino, status)

    def _make(self, found: _Found, parent: int, name: bytes, data: bytes | None) -> int:
        kind = stat.S_IFMT(found.status.st_mode)
        if kind == stat.S_IFLNK:
            return self._files.symlink(parent, name, os.fsencode(os.readlink(found.path)), ROOT).ino
        if kind != stat.S_IFREG:
            return self._files.mknod(parent, name, kind | 0o600, ROOT, found.status.st_rdev).ino
        made, handle = self._files.create(parent, name, 0o600, _WRITE, ROOT)
        try:
            if data is not None:
                if data:
                    self._files.write(handle, 0, data, ROOT)
                self._report.bytes += len(data)
            else:
                self._stream(found, made.ino, handle)
        finally:
            self._files.release(handle)
        return made.ino

    def _stream(self, found: _Found, ino: int, handle: int) -> None:
        """Copies a large file piece by piece; what the source says are holes are not written."""
        descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            for start, stop in _stretches(descriptor, size):
                offset = start
                while offset < stop and (piece := os.pread(descriptor, min(_PIECE, stop - offset), offset)):
                    self._files.write(handle, offset, piece, ROOT)
                    self._report.bytes += len(piece)
                    offset += len(piece)
            self._files.setattr(ino, AttributeChanges(size=size), ROOT, handle)
        finally:
            os.close(descriptor)

    def _is_same(self, known: Attributes, found: _Found) -> bool:
        if stat.S_ISLNK(known.mode) and stat.S_ISLNK(found.status.st_mode):
            return self._files.readlink(known.ino) == os.fsencode(os.readlink(found.path))
        return stat.S_ISREG(found.status.st_mode) and _is_same(known, found.status)

    def _finish(self, ino: int, status: os.stat_result) -> None:
        mode = None if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
        owner = AttributeChanges(uid=status.st_uid, gid=status.st_gid)
        self._files.setattr(ino, owner, ROOT)
        changes = AttributeChanges(mode=mode, atime=status.st_atime_ns, mtime=status.st_mtime_ns)
        self._files.setattr(ino, changes, ROOT)


def _is_same(known: Attributes, status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(known.mode)
        and known.size == status.st_size
        and known.mtime_ns == status.st_mtime_ns
        and stat.S_IMODE(known.mode) == stat.S_IMODE(status.st_mode)
    )


def _stretches(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, as its file system tells."""
    offset = 0
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


def _not_zeros(piece: bytes) -> Iterator[tuple[int, int]]:
    """The stretches that are not all zeros: a tar stream has no holes, and they become some again."""
    begin: int | None = None
    for at in range(0, len(piece), _HOLE):
        part = piece[at : at + _HOLE]
        if part.count(0) == len(part):
            if begin is not None:
                yield begin, at
                begin = None
        elif begin is None:
            begin = at
    if begin is not None:
        yield begin, len(piece)


class _TarMember:
    """One member of an archive on its way into a volume."""

    def __init__(
        self,
        files: FileSystem,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        base: list[bytes],
        names: list[bytes],
        report: TransferReport,
    ) -> None:
        self._files = files
        self._archive = archive
        self._member = member
        self._base = base
        self._names = base + names
        self._report = report

    def take(self) -> None:
        member, report = self._member, self._report
        if member.isdir():
            make_directories(self._files, b"/".join(self._names))
            report.directories += 1
            return
        if len(self._names) == len(self._base):
            report.skipped.append((member.name, "it has no name"))
            return
        parent, name = make_directories(self._files, b"/".join(self._names[:-1])), self._names[-1]
        known = attributes_or_none(self._files, parent, name)
        if known is not None:
            self._files.unlink(parent, name, ROOT)
        if member.islnk():
            self._link(parent, name)
            return
        if member.issym():
            ino = self._files.symlink(parent, name, os.fsencode(member.linkname), ROOT).ino
        elif member.isreg():
            ino = self._write(parent, name)
        elif member.isfifo() or member.isdev():
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            number = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            ino = self._files.mknod(parent, name, kind | 0o600, ROOT, number).ino
        else:
            report.skipped.append((member.name, f"members of type {member.type!r} are not known"))
            return
        self._attributes(ino)
        report.files += 1

    def finish_directory(self) -> None:
        """Gives a directory its attributes, after what lies in it has changed its times."""
        self._attributes(make_directories(self._files, b"/".join(self._names)))

    def _link(self, parent: int, name: bytes) -> None:
        try:
            known = find(self._files, b"/".join(self._base + parts_of(self._member.linkname)))
        except OSError:
            self._report.skipped.append((self._member.name, "what it links to is not there"))
            return
        self._files.link(known.ino, parent, name, ROOT)
        self._report.files += 1

    def _write(self, parent: int, name: bytes) -> int:
        source = self._archive.extractfile(self._member)
        assert source is not None
        made, handle = self._files.create(parent, name, 0o600, _WRITE, ROOT)
        try:
            offset = 0
            while piece := source.read(_PIECE):
                for start, stop in _not_zeros(piece):
                    self._files.write(handle, offset + start, piece[start:stop], ROOT)
                offset += len(piece)
            self._files.setattr(made.ino, AttributeChanges(size=offset), ROOT)
            self._report.bytes += offset
        finally:
            self._files.release(handle)
        return made.ino

    def _attributes(self, ino: int) -> None:
        member = self._member
        self._files.setattr(ino, AttributeChanges(uid=member.uid, gid=member.gid), ROOT)
        mode = None if member.issym() else member.mode & 0o7777
        self._files.setattr(ino, AttributeChanges(mode=mode, mtime=int(member.mtime * 1_000_000_000)), ROOT)
