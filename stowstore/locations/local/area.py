"""The reserved directory ``.stow`` of a root: drafts of objects being written, and locks.

It lies beside the containers, so no key is reserved, and on the same file system, so a finished draft is renamed
into place.  It comes into being with the first write; reading never needs it.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from typing import Final

from stowstore.disk_writes import write_all
from stowstore.locations.local.locking import Lock, LockMode, Locks
from stowstore.locations.local.paths import DIRECTORY, READABLE_DIRECTORY, Root

__all__ = ["AREA", "DIRECTORY_MODE", "Draft", "Identity", "WriteArea", "etag_of", "identity_of"]

#: The reserved name; no container can be called so.
AREA: Final = b".stow"

#: Others of the group may share a root; the umask takes away more, never adds.
DIRECTORY_MODE: Final = 0o775
_FILE_MODE: Final = 0o664

#: Drafts nobody touched for this long were left behind by a crash, seconds.
_ABANDONED: Final = 86400.0

#: Inode, modification time in nanoseconds, size: what tells one version of an object from another.
Identity = tuple[int, int, int]


def identity_of(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_mtime_ns, status.st_size


def etag_of(identity: Identity) -> str:
    """The etag of a version: a new one whenever an object is written, whatever its content."""
    return f"{identity[0]:x}-{identity[1]:x}-{identity[2]:x}"


class Draft:
    """An object being written, which nobody sees until it is renamed; used by one thread."""

    __slots__ = ("_directory", "directory_fd", "fd", "name")

    def __init__(self, directory: Root, name: bytes) -> None:
        # The directory is kept alive for as long as its descriptor is used.
        self._directory = directory
        self.directory_fd = directory.fd
        self.name = name
        self.fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE, dir_fd=directory.fd)

    def write(self, data: bytes | memoryview) -> None:
        """Writes all of it."""
        write_all(self.fd, data)

    def finish(self, *, sync: bool) -> Identity:
        """Ends the writing and says what the version will be known by."""
        # The kernel's own time stamps advance in ticks of milliseconds, and inodes are used again at once: without a
        # finer one, three quick writes of one size could give the first and the third the same etag.
        now = time.time_ns()
        os.utime(self.fd, ns=(now, now))
        if sync:
            os.fsync(self.fd)
        identity = identity_of(os.fstat(self.fd))
        fd, self.fd = self.fd, -1
        os.close(fd)
        return identity

    def discard(self) -> None:
        """Removes what is left of it; after it was renamed, nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        try:
            os.unlink(self.name, dir_fd=self.directory_fd)
        except FileNotFoundError:
            pass


class WriteArea:
    """Makes drafts and locks below one root; thread-safe, works in forked children."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._drafts: Root | None = None
        self._counter = itertools.count()
        # Process ids repeat in containers that share a directory.
        self._token = secrets.token_hex(4).encode()
        self._locks = Locks()

    def draft(self) -> Draft:
        """A new, empty draft."""
        name = b"%s-%x-%x" % (self._token, os.getpid(), next(self._counter))
        drafts = self._drafts
        if drafts is not None:
            try:
                return Draft(drafts, name)
            except FileNotFoundError:
                # Somebody removed the reserved directory, and the lock file in it.
                self._drafts = None
                self._locks = Locks()
        return Draft(self._open_drafts(), name)

    def lock(self, number: int, mode: LockMode, *, required: bool = False) -> Lock:
        """Waits for the lock of a number below 2**63, as long as the caller's deadline allows.

        Raises:
            NotSupported: the file system has no locks and one is ``required``.
            DeadlineExceeded, Cancelled: while waiting.
        """
        return self._locks.acquire(number, mode, self._open_lock, required=required)

    def make_directory(self, path: bytes) -> None:
        """Makes a directory below the reserved one, with those above it."""
        at = self._root.fd
        opened = -1
        try:
            for name in (AREA, *path.split(b"/")):
                try:
                    os.mkdir(name, DIRECTORY_MODE, dir_fd=at)
                except FileExistsError:
                    pass
                below = os.open(name, DIRECTORY, dir_fd=at)
                if opened >= 0:
                    os.close(opened)
                at = opened = below
        finally:
            if opened >= 0:
                os.close(opened)

    def _open_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        drafts = self._drafts or self._open_drafts()
        try:
            return os.open(b"lock", flags, _FILE_MODE, dir_fd=drafts.fd)
        except FileNotFoundError:
            drafts = self._open_drafts()
            return os.open(b"lock", flags, _FILE_MODE, dir_fd=drafts.fd)

    def _open_drafts(self) -> Root:
        self.make_directory(b"tmp")
        drafts = Root(self._root.open(AREA + b"/tmp", READABLE_DIRECTORY))
        _sweep(drafts.fd)
        # Without a lock, which a child forked meanwhile would wait for in vain; opened twice does no harm.
        self._drafts = drafts
        return drafts


def _sweep(directory: int) -> None:
    """Removes the drafts of writers that crashed."""
    oldest = time.time() - _ABANDONED
    with os.scandir(directory) as found:
        for entry in found:
            try:
                if entry.name != "lock" and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.name, dir_fd=directory)
            except (FileNotFoundError, PermissionError):
                # Swept by another process, or not ours to sweep.
                continue
