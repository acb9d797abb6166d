"""Locks between the threads and processes that write to one root."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from datastore.context import current_limits
from datastore.errors import NotSupported

__all__ = ["Lock", "LockMode", "Locks"]

#: The C structure flock: type, whence, start, length, process.
_FLOCK: Final = struct.Struct("hhqqi4x").pack

#: How many unused descriptors of the lock file are kept open.
_SPARE: Final = 32


class LockMode(StrEnum):
    """How much a lock keeps out."""

    SHARED = "shared"
    """Lets other unconditional writes in."""
    EXCLUSIVE = "exclusive"
    """Lets nobody in."""


class Lock:
    """A lock that is held until its block ends."""

    __slots__ = ("_fd", "_locks", "_number")

    def __init__(self, locks: Locks, fd: int, number: int) -> None:
        self._locks = locks
        self._fd = fd
        self._number = number

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._locks.release(self._fd, self._number)


class Locks:
    """Locks by number, each a byte of one lock file; thread-safe.

    They belong to open file descriptions, which unlike those of processes hold between threads too, and end with a
    crash.  Every holder has a description of its own, used again after it.
    """

    def __init__(self) -> None:
        self._spare: list[int] = []
        self._process = os.getpid()

    def acquire(self, number: int, mode: LockMode, open_file: Callable[[], int], *, required: bool) -> Lock:
        """Waits for a lock, as long as the caller's deadline allows; ``open_file`` opens the lock file.

        Raises:
            NotSupported: the file system has no locks and one is ``required``.
            DeadlineExceeded, Cancelled: while waiting.
        """
        if self._process != os.getpid():
            self._forget()
        try:
            fd = self._spare.pop()
        except IndexError:
            fd = open_file()
        try:
            request = _FLOCK(fcntl.F_WRLCK if mode is LockMode.EXCLUSIVE else fcntl.F_RDLCK, os.SEEK_SET, number, 1, 0)
            pause = 0.0005
            while not _try_lock(fd, request, required=required):
                # Tried again and again, as a blocking call would know neither deadlines nor cancellation.
                limits = current_limits()
                if limits is None:
                    time.sleep(pause)
                else:
                    limits.sleep(pause)
                pause = min(pause * 1.5, 0.02)
        except BaseException:
            os.close(fd)
            raise
        return Lock(self, fd, number)

    def release(self, fd: int, number: int) -> None:
        """Ends a lock; a child forked meanwhile has the description too, so closing it would not do."""
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK(fcntl.F_UNLCK, os.SEEK_SET, number, 1, 0))
        except OSError:
            # A file system without locks.
            os.close(fd)
            return
        if len(self._spare) < _SPARE:
            self._spare.append(fd)
        else:
            os.close(fd)

    def _forget(self) -> None:
        """Drops the descriptions a child shares with its parent: a lock on them would not keep the parent out."""
        inherited, self._spare = self._spare, []
        self._process = os.getpid()
        for fd in inherited:
            os.close(fd)

    def __del__(self) -> None:
        for fd in self._spare:
            os.close(fd)


def _try_lock(fd: int, request: bytes, *, required: bool) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        if required:
            raise NotSupported(
                "the file system has no locks, which writing with if_match needs",
                hint="mount it with locks, or write without if_match",
            ) from error
    return True
