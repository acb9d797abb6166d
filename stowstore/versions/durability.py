"""What a root on the local disk owes to fsync(2).

Data that a program has synced are in the journal and the staging area, which are synced, too.  A commit moves them into
packs and lets the journal go; an upload has the journal refer to packs.  Stores behind a network keep what they have
answered for, but a store on the local disk leaves its files to the kernel's page cache unless it is told otherwise
(``?fsync=full``): so the file system it lies on is synced before the journal relies on it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from stowstore.versions.root import Root

__all__ = ["DirectorySync", "directory_sync"]

_libc = ctypes.CDLL(None, use_errno=True)


class DirectorySync:
    """Syncs the file system of a directory."""

    def __init__(self, directory: str, puts: Callable[[], int]) -> None:
        self._directory = directory
        self._puts = puts
        # The root itself may have been made a moment ago.
        self._synced = -1

    def after_puts(self) -> None:
        """Syncs it if anything was put there since the last time.

        Raises:
            OSError: it could not be written.
        """
        puts = self._puts()
        if puts != self._synced:
            self.sync()
            self._synced = puts

    def sync(self) -> None:
        """Syncs it, as syncfs(2) does.

        Raises:
            OSError: it could not be written.
        """
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(descriptor):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self._directory)
        finally:
            os.close(descriptor)


def directory_sync(root: Root, puts: Callable[[], int]) -> DirectorySync | None:
    """What syncs a root on the local disk, told how often something was put there; None for every other root."""
    parts = urlsplit(root.address or "")
    if parts.scheme != "file" or parts.netloc:
        return None
    return DirectorySync(unquote(parts.path), puts)
