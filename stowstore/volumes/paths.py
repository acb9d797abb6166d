"""Paths inside a volume: walking them name by name, and following symbolic links as Linux does."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeAlias

from stowstore.index.keys import ROOT_INODE
from stowstore.namespace.errors import posix_error
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import Caller

__all__ = [
    "MAX_LINKS_FOLLOWED",
    "PathLike",
    "Place",
    "about",
    "as_text",
    "as_texts",
    "encoded",
    "entry_of",
    "find",
    "locate",
]

PathLike: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

#: How many symbolic links one path may lead through.
MAX_LINKS_FOLLOWED: Final = 40

_PATH_BYTES: Final = 4096


class Place(NamedTuple):
    """Where a path leads: a name in a directory, and what is there now, if anything.

    ``slash`` tells that the path ended with one, which only a directory may.
    """

    parent: int
    name: bytes
    attributes: Attributes | None
    slash: bool = False

    @property
    def is_directory(self) -> bool:
        return self.attributes is not None and stat.S_ISDIR(self.attributes.mode)


def encoded(path: PathLike) -> bytes:
    """A path as bytes; text is UTF-8 with surrogates for what is none, whatever the locale."""
    raw = os.fspath(path)
    return raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw


def find(files: FileSystem, path: bytes, caller: Caller, *, follow: bool = True) -> Attributes:
    """The attributes of what a path names.

    Raises:
        OSError: ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG as Linux has them.
    """
    attributes = locate(files, path, caller, follow=follow).attributes
    if attributes is None:
        raise posix_error(errno.ENOENT)
    return attributes


def entry_of(files: FileSystem, path: bytes, caller: Caller) -> Place:
    """The entry a path names, to be made, moved or removed: a link at the end is meant itself, slash or not."""
    bare = path.rstrip(b"/")
    place = locate(files, bare or path, caller, follow=False)
    return place._replace(slash=len(bare) < len(path))


def locate(files: FileSystem, path: bytes, caller: Caller, *, follow: bool) -> Place:
    """Where a path leads; paths are relative to the root of the volume, with a leading slash or without.

    All but the last name must be there.  ``follow`` tells whether a link at the end is followed.

    Raises:
        OSError: ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG as Linux has them.
    """
    _require_possible(path)
    # Names still to be walked, the next one last.
    waiting = path.split(b"/")[::-1]
    directory = ROOT_INODE
    place = Place(ROOT_INODE, b".", None)
    links = 0
    while waiting:
        name = waiting.pop()
        if not name:
            continue
        try:
            found: Attributes | None = files.lookup(directory, name, caller)
        except FileNotFoundError:
            found = None
        if found is None:
            if any(waiting):
                raise posix_error(errno.ENOENT)
            return Place(directory, name, None)
        if stat.S_ISLNK(found.mode) and (waiting or follow):
            links += 1
            if links > MAX_LINKS_FOLLOWED:
                raise posix_error(errno.ELOOP)
            target = files.readlink(found.ino)
            if target.startswith(b"/"):
                directory = ROOT_INODE
                place = Place(ROOT_INODE, b".", None)
            waiting += target.split(b"/")[::-1]
            continue
        place = Place(directory, name, found)
        if waiting:
            if not stat.S_ISDIR(found.mode):
                raise posix_error(errno.ENOTDIR)
            directory = found.ino
    if place.attributes is None:
        return place._replace(attributes=files.getattr(ROOT_INODE))
    return place


@contextmanager
def about(path: PathLike, other: PathLike | None = None) -> Iterator[None]:
    """Names the path, or both, in errors that come without."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None or error.strerror is None:
            raise
        if other is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error.__cause__
        raise OSError(error.errno, error.strerror, os.fspath(path), None, os.fspath(other)) from error.__cause__


def as_text(path: bytes) -> str:
    """A path as text; what is no UTF-8 becomes surrogates, which `encoded` turns back."""
    return path.decode("utf-8", "surrogateescape")


def as_texts(names: list[bytes]) -> list[str]:
    """The same of names, which have no NUL in them, in a fraction of the time."""
    return as_text(b"\0".join(names)).split("\0") if names else []


def _require_possible(path: bytes) -> None:
    if not path:
        raise posix_error(errno.ENOENT, "the path is empty; the root of a volume is '/'")
    if b"\0" in path:
        raise ValueError("embedded null byte")
    if len(path) >= _PATH_BYTES:
        raise posix_error(errno.ENAMETOOLONG)
