"""Walking paths of a volume's file system for transfers, as its superuser."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from stowstore.index.keys import ROOT_INODE
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.handles import DirectoryEntry
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT

__all__ = ["attributes_or_none", "entries", "find", "make_directories", "parts_of"]

_PAGE = 1024


def parts_of(path: str | bytes) -> list[bytes]:
    """The names in a path of a volume, from its root.

    Raises:
        OSError: EINVAL for a path with ``..``: nothing is resolved.
    """
    names = [name for name in os.fsencode(path).split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise OSError(errno.EINVAL, "a path in a volume has no '..'", os.fsdecode(path))
    return names


def find(files: FileSystem, path: str | bytes) -> Attributes:
    """What lies at a path; symbolic links are not followed.

    Raises:
        OSError: ENOENT or ENOTDIR, with the path.
    """
    found = files.getattr(ROOT_INODE)
    for name in parts_of(path):
        try:
            found = files.lookup(found.ino, name, ROOT)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), os.fsdecode(path)) from error
    return found


def attributes_or_none(files: FileSystem, parent: int, name: bytes) -> Attributes | None:
    """What a name in a directory stands for, or None."""
    try:
        return files.lookup(parent, name, ROOT)
    except FileNotFoundError:
        return None


def make_directories(files: FileSystem, path: str | bytes) -> int:
    """The inode of the directory at a path, made with its parents where missing."""
    ino = ROOT_INODE
    for name in parts_of(path):
        found = attributes_or_none(files, ino, name)
        ino = (found or files.mkdir(ino, name, 0o755, ROOT)).ino
    return ino


def entries(files: FileSystem, ino: int) -> Iterator[DirectoryEntry]:
    """The entries of a directory with their attributes, without ``.`` and ``..``.

    Raises:
        OSError: EIO for an entry of a version that names nothing, or a directory that lies elsewhere.
    """
    handle = files.opendir(ino, ROOT)
    try:
        cookie = 0
        while page := files.readdirplus(handle, cookie, _PAGE):
            for entry in page:
                if entry.name not in (b".", b".."):
                    if entry.attributes is None and files.read_only:
                        raise OSError(errno.EIO, f"inode {ino} names inode {entry.ino}, which does not lie there")
                    yield entry
            cookie = page[-1].cookie
    finally:
        files.releasedir(handle)
