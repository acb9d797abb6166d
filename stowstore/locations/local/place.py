"""The root of a location and what all its containers share."""

from __future__ import annotations

import os
import stat
from enum import StrEnum

from attrs import frozen

from datastore.errors import NoSuchContainer, StoreError
from stowstore.locations.local.area import WriteArea
from stowstore.locations.local.listing import Lister
from stowstore.locations.local.paths import Root

__all__ = ["FsyncMode", "Place"]


class FsyncMode(StrEnum):
    """What is on the disk when a write returns."""

    NEVER = "never"
    """Whatever the kernel has written by then: a crash of the machine may lose the last half minute."""
    DATA = "data"
    """The bytes of the object: what is found after a crash is never empty or torn."""
    FULL = "full"
    """The bytes and the names: what was written is found after a crash."""


@frozen
class _Opened:
    root: Root
    area: WriteArea


class Place:
    """One root directory, opened when first needed; thread-safe."""

    def __init__(self, path: str, fsync: FsyncMode) -> None:
        self.path = path
        self.fsync = fsync
        self.lister = Lister()
        self._opened: _Opened | None = None
        self._closed = False

    def root(self) -> Root:
        """The directory.

        Raises:
            NoSuchContainer: it does not exist, so nothing can be in it.
        """
        opened = self._opened
        return (opened if opened is not None else self._open()).root

    def area(self) -> WriteArea:
        """The reserved part of the directory."""
        opened = self._opened
        return (opened if opened is not None else self._open()).area

    def has_container(self, name: bytes) -> bool:
        """Whether there is a directory of this name; a root that was removed and made again is noticed here."""
        try:
            return self._has(name) or (self._replaced() and self._has(name))
        except NoSuchContainer:
            return False

    def close(self) -> None:
        """Lets go of the directory; operations under way keep it open until they end."""
        self._closed = True
        self._opened = None

    def _has(self, name: bytes) -> bool:
        root = self.root()
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=root.fd, follow_symlinks=False).st_mode)
        except StoreError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _replaced(self) -> bool:
        """Whether another directory lies at the path than the one held; if so the new one is used from now on."""
        root = self.root()
        held = os.fstat(root.fd)
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        if (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino):
            return False
        self._opened = None
        return True

    def _open(self) -> _Opened:
        # Without a lock, which a child forked meanwhile would wait for in vain; opened twice does no harm.
        if self._closed:
            raise StoreError("the location is closed")
        try:
            root = Root.at(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoSuchContainer(
                f"there is no directory {self.path}", hint="create a container: the directory is made with it"
            ) from error
        opened = self._opened = _Opened(root, WriteArea(root))
        return opened
