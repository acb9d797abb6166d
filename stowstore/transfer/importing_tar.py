"""Importing tar streams into a volume, as they come."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Final

from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.loading import FileLoader
from stowstore.transfer.paths import attributes_or_none, find, make_directories, parts_of
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.transfer.tar_members import TAR_ENCODING, member_xattrs
from stowstore.transfer.xattrs import Xattrs, accepted_xattrs

__all__ = ["import_tar"]

#: Files up to this size become blocks without being staged.
_SMALL: Final = 1 << 20
_PIECE: Final = 4 << 20

#: The smallest hole that is made of zeros in a tar stream.
_HOLE: Final = 64 << 10
_TELL_EVERY: Final = 500

_WRITE = os.O_WRONLY | os.O_TRUNC


def import_tar(
    files: FileSystem, stream: IO[bytes], target: str | bytes = "/", *, on_progress: Progress | None = None
) -> TransferReport:
    """Imports a tar stream, compressed or not, as it comes; members whose names lead out of the target are skipped.

    Raises:
        tarfile.TarError: the stream is no tar archive, or is cut off.
    """
    report = TransferReport()
    make_directories(files, target)
    importer = _TarImporter(files, parts_of(target), report)
    with tarfile.open(fileobj=stream, mode="r|*", encoding=TAR_ENCODING) as archive:
        for member in archive:
            try:
                names = parts_of(member.name)
            except OSError:
                report.skipped.append((member.name, "its name leads out of the target"))
                continue
            importer.take(archive, member, names)
            if on_progress is not None and report.files % _TELL_EVERY == 0:
                on_progress(report)
    importer.finish()
    if on_progress is not None:
        on_progress(report)
    return report


class _TarImporter:
    """Puts members into the volume; directories get their attributes last: filling them changes their times."""

    def __init__(self, files: FileSystem, base: list[bytes], report: TransferReport) -> None:
        self._files = files
        self._base = base
        self._report = report
        self._loader = FileLoader(files)
        #: Paths whose files have no names yet.
        self._loading: set[bytes] = set()
        self._directories: list[tuple[bytes, tarfile.TarInfo]] = []
        #: The directory of the member before: archives keep those of one together.
        self._parent: tuple[bytes, int] = b"", 0

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, names: list[bytes]) -> None:
        path = b"/".join(self._base + names)
        if member.isdir():
            self._settle(names)
            make_directories(self._files, path)
            self._directories.append((path, member))
            self._report.directories += 1
            return
        if not names:
            self._report.skipped.append((member.name, "it has no name"))
            return
        self._settle(names[:-1])
        parent = self._parent_of(b"/".join(self._base + names[:-1]))
        if member.isreg() and member.size <= _SMALL:
            self._load(archive, member, parent, names[-1])
            self._loading.add(path)
        else:
            self._settle(names if not member.islnk() else None)
            self._make(archive, member, parent, names[-1])

    def finish(self) -> None:
        self._settle(None)
        for path, member in reversed(self._directories):
            self._attributes(make_directories(self._files, path), member)

    def _settle(self, names: list[bytes] | None) -> None:
        """Gives the files before their names, where one of them may lie on a path, or always."""
        if names is not None:
            path = b"/".join(self._base)
            for name in names:
                path = path + b"/" + name if path else name
                if path in self._loading:
                    break
            else:
                return
        self._loader.flush()
        self._loading.clear()

    def _parent_of(self, path: bytes) -> int:
        if not self._parent[1] or self._parent[0] != path:
            self._parent = path, make_directories(self._files, path)
        return self._parent[1]

    def _load(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: bytes) -> None:
        source = archive.extractfile(member)
        assert source is not None
        data = source.read()
        mtime = int(member.mtime * 1_000_000_000)
        self._loader.add(
            parent,
            name,
            data,
            mode=member.mode,
            uid=member.uid,
            gid=member.gid,
            atime_ns=mtime,
            mtime_ns=mtime,
            xattrs=self._xattrs(member, stat.S_IFREG),
        )
        self._report.files += 1
        self._report.bytes += len(data)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: bytes) -> None:
        files = self._files
        if member.islnk():
            self._link(member, parent, name)
            return
        if attributes_or_none(files, parent, name) is not None:
            files.unlink(parent, name, ROOT)
        if member.issym():
            ino = files.symlink(parent, name, os.fsencode(member.linkname), ROOT).ino
        elif member.isreg():
            ino = self._write(archive, member, parent, name)
        elif member.isfifo() or member.isdev():
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            number = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            ino = files.mknod(parent, name, kind | 0o600, ROOT, number).ino
        else:
            self._report.skipped.append((member.name, f"members of type {member.type!r} are not known"))
            return
        self._attributes(ino, member)
        self._report.files += 1

    def _link(self, member: tarfile.TarInfo, parent: int, name: bytes) -> None:
        try:
            known = find(self._files, b"/".join(self._base + parts_of(member.linkname)))
        except OSError:
            self._report.skipped.append((member.name, "what it links to is not there"))
            return
        there = attributes_or_none(self._files, parent, name)
        if there is None or there.ino != known.ino:
            if there is not None:
                self._files.unlink(parent, name, ROOT)
            self._files.link(known.ino, parent, name, ROOT)
        self._report.files += 1

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: bytes) -> int:
        source = archive.extractfile(member)
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

    def _attributes(self, ino: int, member: tarfile.TarInfo) -> None:
        self._files.setattr(ino, AttributeChanges(uid=member.uid, gid=member.gid), ROOT)
        for name, value in self._xattrs(member, self._files.getattr(ino).mode).items():
            self._files.setxattr(ino, name, value, ROOT)
        mode = None if member.issym() else member.mode & 0o7777
        self._files.setattr(ino, AttributeChanges(mode=mode, mtime=int(member.mtime * 1_000_000_000)), ROOT)

    def _xattrs(self, member: tarfile.TarInfo, mode: int) -> Xattrs:
        found = member_xattrs(member, self._report)
        return accepted_xattrs(member.name, mode, found, self._report) if found else found


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
