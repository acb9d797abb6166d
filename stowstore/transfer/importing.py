"""Importing directories into a volume.

Files are taken in directory order, so that small files that lie together are packed together.  Small files become
blocks without being staged, and get their names many at a time.  What has not changed since an earlier import (size,
modification time, mode, owner and extended attributes) is left as it is.
"""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from stowstore.chunks.block import BLOCK_BYTES
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.loading import FileLoader
from stowstore.transfer.paths import attributes_or_none, make_directories
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.transfer.reading import READ_FLAGS, Found, data_stretches, read_files, walk_directory
from stowstore.transfer.xattrs import Xattrs, update_xattrs

__all__ = ["Importer", "import_directory"]

_PIECE: Final = 4 << 20
_TELL_EVERY: Final = 500

_WRITE = os.O_WRONLY | os.O_TRUNC


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
    cannot be read is skipped and reported.  What is in the volume and not in the source stays.  ``parallel`` is how
    many small files are read at the same time where reading means waiting.

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
        for found, status, xattrs, content, failure in read_files(walk_directory(root, report), report, pool):
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
        descriptor = os.open(path, READ_FLAGS)
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
