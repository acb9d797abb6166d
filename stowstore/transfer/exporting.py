"""Exporting a volume, or a part of it, into a directory or a tar stream."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import IO, Final, NamedTuple

from stowstore.disk_writes import write_all
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.paths import entries, find
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.transfer.tar_members import TAR_ENCODING, XattrMember
from stowstore.transfer.xattrs import Xattrs, give_xattrs, has_xattrs, xattrs_of

__all__ = ["Exporter", "Item", "export_directory", "export_tar", "open_destination", "walk_files"]

_PIECE: Final = 4 << 20

#: What one thread writes at a time: many small files or a large one; and how many such batches there are a thread.
_BATCH_FILES: Final = 32
_BATCH_BYTES: Final = 1 << 20
_AHEAD: Final = 4

_TELL_EVERY: Final = 500


class Item(NamedTuple):
    """Something of a version, with its path below what is exported."""

    path: bytes
    attributes: Attributes


def export_directory(
    files: FileSystem,
    destination: str | os.PathLike[str],
    source: str | bytes = "/",
    *,
    parallel: int = 8,
    on_progress: Progress | None = None,
) -> TransferReport:
    """Writes what lies below a path of a volume into a directory, made if missing, with modes, owners, times
    and extended attributes.

    Files are made anew and never through symbolic links, so nothing in the volume, and nothing that lies in the
    destination, can lead a write out of it; a file that is in the way is replaced.  Owners are set when root exports;
    attributes that the destination's file system does not have, or root alone may set, are left out.

    Raises:
        OSError: the path is not in the volume, or the destination cannot be written; what was written stays.
    """
    report = TransferReport()
    root, top = open_destination(files, destination, source)
    exporter = Exporter(files, root, report)
    directories: list[Item] = []
    with ThreadPoolExecutor(parallel, thread_name_prefix="stow-export") as pool:
        running: set[Future[None]] = set()
        batch: list[Item] = []
        size = 0
        for item in walk_files(files, top):
            if stat.S_ISDIR(item.attributes.mode):
                exporter.make_directory(item)
                directories.append(item)
                continue
            batch.append(item)
            size += item.attributes.size
            if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
                if len(running) >= _AHEAD * parallel:
                    running = _collect(running)
                running.add(pool.submit(exporter.write_all, batch))
                batch, size = [], 0
            if on_progress is not None and (len(directories) + report.files) % _TELL_EVERY == 0:
                on_progress(report)
        exporter.write_all(batch)
        for future in running:
            future.result()
    exporter.link()
    for item in reversed(directories):
        exporter.finish_directory(item)
    if on_progress is not None:
        on_progress(report)
    return report


def export_tar(
    files: FileSystem, stream: IO[bytes], source: str | bytes = "/", *, on_progress: Progress | None = None
) -> TransferReport:
    """Writes what lies below a path of a volume as a tar stream (PAX), in directory order; the stream is not closed."""
    report = TransferReport()
    linked: dict[int, str] = {}
    attributed = _has_xattrs(files)
    with tarfile.open(
        fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, encoding=TAR_ENCODING, bufsize=1 << 20
    ) as archive:
        for item in walk_files(files, find(files, source).ino):
            _add_to_tar(files, archive, item, linked, report, attributed)
            if on_progress is not None and (report.files + report.directories) % _TELL_EVERY == 0:
                on_progress(report)
    if on_progress is not None:
        on_progress(report)
    return report


def open_destination(files: FileSystem, destination: str | os.PathLike[str], source: str | bytes) -> tuple[bytes, int]:
    """Makes the directory that is exported into; returns its path, and the inode of what is exported.

    Raises:
        OSError: the path is not in the volume or no directory, or the destination cannot be made.
    """
    root = os.fsencode(os.fspath(destination))
    os.makedirs(root, exist_ok=True)
    top = find(files, source)
    if not stat.S_ISDIR(top.mode):
        raise NotADirectoryError(errno.ENOTDIR, "only directories are exported", os.fsdecode(source))
    return root, top.ino


def walk_files(files: FileSystem, top: int) -> Iterator[Item]:
    """Everything below a directory, each directory followed by what lies in it, names ascending.

    The order matters to tar, which sets a directory's times when the members leave it.
    """
    waiting = [(b"", entries(files, top))]
    while waiting:
        path, listing = waiting[-1]
        entry = next(listing, None)
        if entry is None:
            waiting.pop()
        elif entry.attributes is not None:
            child = path + b"/" + entry.name if path else entry.name
            yield Item(child, entry.attributes)
            if stat.S_ISDIR(entry.attributes.mode):
                waiting.append((child, entries(files, entry.ino)))


def _collect(running: set[Future[None]]) -> set[Future[None]]:
    done, running = wait(running, return_when="FIRST_COMPLETED")
    for future in done:
        future.result()
    return running


class Exporter:
    """Writes items below a directory; used by several threads."""

    def __init__(self, files: FileSystem, root: bytes, report: TransferReport) -> None:
        self._files = files
        self._root = root
        self._report = report
        self._lock = threading.Lock()
        self._first: dict[int, bytes] = {}
        self._links: list[tuple[bytes, bytes]] = []
        #: A version that has no attributes at all is asked once.
        self._has_xattrs = _has_xattrs(files)

    def make_directory(self, item: Item) -> None:
        path = self._path(item.path)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                os.mkdir(path, 0o700)
        self._report.directories += 1

    def write_all(self, items: Sequence[Item]) -> None:
        for item in items:
            self.write(item)

    def write(self, item: Item) -> None:
        """Writes what is no directory; a further name of a file waits for `link`."""
        attributes, path = item.attributes, self._path(item.path)
        if attributes.nlink > 1 and not self.is_first(item):
            return
        _remove(path)
        written = 0
        if stat.S_ISLNK(attributes.mode):
            os.symlink(self._files.readlink(attributes.ino), path)
        elif stat.S_ISREG(attributes.mode):
            written = self._copy(attributes, path)
        else:
            try:
                os.mknod(path, attributes.mode, attributes.rdev)
            except PermissionError as error:
                self._skip(item, error)
                return
        self._restore(path, attributes)
        with self._lock:
            self._report.files += 1
            self._report.bytes += written

    def link(self) -> None:
        """Makes the further names of files that have several."""
        for known, path in self._links:
            _remove(path)
            os.link(known, path, follow_symlinks=False)
            self._report.files += 1

    def finish_directory(self, item: Item) -> None:
        self._restore(self._path(item.path), item.attributes)

    def is_first(self, item: Item) -> bool:
        """Whether an item is the first name of its file; of further ones a note is taken."""
        path = self._path(item.path)
        with self._lock:
            first = self._first.setdefault(item.attributes.ino, path)
            if first != path:
                self._links.append((first, path))
            return first == path

    def is_there(self, item: Item) -> bool:
        """Whether a file has been exported whole: it gets its time when it is."""
        attributes = item.attributes
        try:
            found = os.lstat(self._path(item.path))
        except FileNotFoundError:
            return False
        same = (found.st_mode, found.st_size, found.st_mtime_ns) == (
            attributes.mode,
            attributes.size,
            attributes.mtime_ns,
        )
        owned = os.geteuid() != 0 or (found.st_uid, found.st_gid) == (attributes.uid, attributes.gid)
        if not (stat.S_ISREG(attributes.mode) and same and owned):
            return False
        return has_xattrs(self._path(item.path), self._xattrs(attributes))

    def _copy(self, attributes: Attributes, path: bytes) -> int:
        handle = self._files.open(attributes.ino, os.O_RDONLY, ROOT)
        written = 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as out:
                for start, stop in _stretches(self._files, handle, attributes.size):
                    offset = start
                    while offset < stop:
                        piece = self._files.read(handle, offset, min(_PIECE, stop - offset))
                        if not piece:
                            break
                        write_all(out.fileno(), piece, offset)
                        offset += len(piece)
                        written += len(piece)
                out.truncate(attributes.size)
        finally:
            self._files.release(handle)
        return written

    def _restore(self, path: bytes, attributes: Attributes) -> None:
        """Owner, extended attributes, mode and times, in the order in which one does not undo another."""
        if os.geteuid() == 0:
            os.chown(path, attributes.uid, attributes.gid, follow_symlinks=False)
        # Setting them needs the right to write, which the mode may take.
        give_xattrs(path, self._xattrs(attributes), self._report)
        if not stat.S_ISLNK(attributes.mode):
            os.chmod(path, stat.S_IMODE(attributes.mode))
        os.utime(path, ns=(attributes.atime_ns, attributes.mtime_ns), follow_symlinks=False)

    def _xattrs(self, attributes: Attributes) -> Xattrs:
        return xattrs_of(self._files, attributes.ino) if self._has_xattrs else {}

    def _skip(self, item: Item, error: OSError) -> None:
        with self._lock:
            self._report.skipped.append((os.fsdecode(item.path), error.strerror or str(error)))

    def _path(self, path: bytes) -> bytes:
        return self._root + b"/" + path


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _has_xattrs(files: FileSystem) -> bool:
    return not files.read_only or files.has_stored_xattrs


def _stretches(files: FileSystem, handle: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = files.lseek(handle, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = min(files.lseek(handle, start, os.SEEK_HOLE), size)
        yield start, offset


def _add_to_tar(
    files: FileSystem,
    archive: tarfile.TarFile,
    item: Item,
    linked: dict[int, str],
    report: TransferReport,
    attributed: bool,
) -> None:
    attributes = item.attributes
    member = XattrMember(os.fsdecode(item.path))
    if attributed:
        member.xattrs = xattrs_of(files, attributes.ino)
    member.mode, member.uid, member.gid = stat.S_IMODE(attributes.mode), attributes.uid, attributes.gid
    member.mtime = attributes.mtime_ns // 1_000_000_000
    # PAX keeps what the classic header cannot: fractions of a second.
    member.pax_headers = {"mtime": f"{member.mtime}.{attributes.mtime_ns % 1_000_000_000:09d}"}
    if stat.S_ISDIR(attributes.mode):
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
        report.directories += 1
        return
    if stat.S_ISSOCK(attributes.mode):
        report.skipped.append((member.name, "tar knows no sockets"))
        return
    first = linked.setdefault(attributes.ino, member.name) if attributes.nlink > 1 else member.name
    if first != member.name:
        member.type, member.linkname, member.xattrs = tarfile.LNKTYPE, first, {}
        archive.addfile(member)
    elif stat.S_ISLNK(attributes.mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(files.readlink(attributes.ino))
        archive.addfile(member)
    elif stat.S_ISREG(attributes.mode):
        member.size = attributes.size
        with _Reader(files, attributes) as content:
            archive.addfile(member, io.BufferedReader(content, _PIECE))
        report.bytes += attributes.size
    else:
        member.type = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}[
            stat.S_IFMT(attributes.mode)
        ]
        member.devmajor, member.devminor = os.major(attributes.rdev), os.minor(attributes.rdev)
        archive.addfile(member)
    report.files += 1


class _Reader(io.RawIOBase):
    """One file of a volume as a stream."""

    def __init__(self, files: FileSystem, attributes: Attributes) -> None:
        self._files = files
        self._handle = files.open(attributes.ino, os.O_RDONLY, ROOT)
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._files.read(self._handle, self._offset, len(buffer))
        buffer[: len(piece)] = piece
        self._offset += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._files.release(self._handle)
            super().close()
