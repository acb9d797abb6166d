"""Notifications: telling the kernel that what it remembers is no longer so."""

from __future__ import annotations

import os
from errno import ENODEV, ENOENT

from stowstore.fuse.wire import NOTIFY_ENTRY, NOTIFY_INODE, OUT_HEADER, Notify

__all__ = ["Notifier"]


class Notifier:
    """Sends notifications; thread-safe.  Never from the thread that serves: the kernel may wait for its answers."""

    def __init__(self, device: int) -> None:
        self._device = device

    def inode_changed(self, ino: int, offset: int = 0, length: int = 0) -> None:
        """Drops the attributes of an inode, and its pages from ``offset`` on; a negative offset keeps the pages."""
        self._send(Notify.INVAL_INODE, NOTIFY_INODE.pack(ino, offset, length))

    def entry_changed(self, parent: int, name: bytes) -> None:
        """Drops what a name stands for, and the listing of its directory."""
        self._send(Notify.INVAL_ENTRY, NOTIFY_ENTRY.pack(parent, len(name), 0) + name + b"\0")

    def _send(self, what: Notify, payload: bytes) -> None:
        try:
            os.write(self._device, OUT_HEADER.pack(OUT_HEADER.size + len(payload), what, 0) + payload)
        except OSError as error:
            # The kernel does not know it, or is not there any more: then there is nothing to forget.
            if error.errno not in (ENOENT, ENODEV):
                raise
