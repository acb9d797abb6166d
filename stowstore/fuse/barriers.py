"""Barriers: knowing that the kernel has handed over everything it was about to write.

syncfs(2) begins the writes of FUSE's dirty pages and does not wait for them, and of what it begins the kernel holds
back all but so many.  The release of a directory goes through the very queue they wait in, first in, first out: once
the release of one that was opened for this has been read, all writes before it have been read, too.  An ioctl(2) tells
the server which directory that is; it does nothing for anybody who has no token.

Source: fs/fuse/dev.c (flush_bg_queue) and fs/fuse/file.c (fuse_file_put) of Linux.
"""

from __future__ import annotations

import fcntl
import secrets
import threading
from errno import ENOTTY
from typing import Final

from stowstore.fuse.wire import IOCTL, IOCTL_OUT
from stowstore.namespace.errors import posix_error

__all__ = ["Barriers"]

#: ``_IO('S', 0x42)``: without data, so that the kernel passes the argument on as it is.
_COMMAND: Final = ord("S") << 8 | 0x42


class Barriers:
    """The barriers of one server; thread-safe."""

    def __init__(self) -> None:
        self._expected: dict[int, threading.Event] = {}
        self._placed: dict[int, threading.Event] = {}

    def place(self, descriptor: int) -> threading.Event:
        """Makes the closing of an open directory of the mount a barrier; the event is set when it has been read.

        Never from the thread that serves.

        Raises:
            OSError: the descriptor is no directory of this mount.
        """
        reached = threading.Event()
        token = secrets.randbits(31)
        self._expected[token] = reached
        try:
            fcntl.ioctl(descriptor, _COMMAND, token)
        finally:
            self._expected.pop(token, None)
        return reached

    def ioctl(self, body: memoryview) -> bytes:
        """Answers an ioctl."""
        handle, _, command, token, _, _ = IOCTL.unpack_from(body)
        reached = self._expected.pop(token, None) if command == _COMMAND else None
        if reached is None:
            raise posix_error(ENOTTY)
        self._placed[handle] = reached
        return IOCTL_OUT.pack(0, 0, 0, 0)

    def released(self, handle: int) -> None:
        """Told of each directory that is closed."""
        reached = self._placed.pop(handle, None)
        if reached is not None:
            reached.set()
