"""One batch of the journal: the records of all that had changed at one moment, taken in slices.

Taking them in one go would stop every operation for as long.  Instead the overlay asks for the record of whatever is
about to be changed before it has been taken, so that the batch holds one moment all the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from stowstore.index.keys import SUPERBLOCK, entry_key, inode_key, xattr_key
from stowstore.index.records import Superblock
from stowstore.namespace.inodes import Inode
from stowstore.namespace.overlay import Layer, Overlay, Unjournalled

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["JournalBatch"]

#: How many records are taken before others have the lock, and how long they have for it, seconds.
_SLICE: Final = 128
_YIELD: Final = 0.0001


class JournalBatch:
    """The changes in ``taken`` as they are when it is made, which is under the lock, as all but `finish` is."""

    def __init__(self, overlay: Overlay, taken: Unjournalled, superblock: Superblock) -> None:
        self._overlay = overlay
        self._inodes = taken.inodes.copy()
        self._entries = taken.entries.copy()
        self._xattrs = taken.xattrs.copy()
        self._large: list[Inode] = []
        self.records: dict[bytes, bytes | None] = {SUPERBLOCK: superblock.encode()}
        overlay.batch = self

    def finish(self, lock: AbstractContextManager[object]) -> dict[bytes, bytes | None]:
        """Takes what is left, without keeping anybody waiting for long, and gives the records."""
        try:
            while self._take_slice(lock):
                time.sleep(_YIELD)
        finally:
            with lock:
                self._overlay.batch = None
        for node in self._large:
            self._add(node)
        return self.records

    def keep_inode(self, ino: int) -> None:
        """Takes an inode that is about to be changed."""
        if ino in self._inodes:
            del self._inodes[ino]
            self._take_inode(ino)

    def keep_entry(self, key: tuple[int, bytes]) -> None:
        """Takes an entry that is about to be changed."""
        if key in self._entries:
            del self._entries[key]
            self._take_entry(*key)

    def keep_xattrs(self, ino: int) -> None:
        """Takes the attributes of an inode, one of which is about to be changed."""
        names = self._xattrs.pop(ino, None)
        if names is not None:
            self._take_xattrs(ino, names)

    def _take_slice(self, lock: AbstractContextManager[object]) -> bool:
        """Whether there is more."""
        left = _SLICE
        with lock:
            inodes, entries, xattrs = self._inodes, self._entries, self._xattrs
            while left and inodes:
                self._take_inode(inodes.popitem()[0])
                left -= 1
            while left and entries:
                self._take_entry(*entries.popitem()[0])
                left -= 1
            while left and xattrs:
                self._take_xattrs(*xattrs.popitem())
                left -= 1
            return bool(inodes or entries or xattrs)

    # Where a commit has taken a change up meanwhile no layer has it any more, and it is left out.

    def _take_inode(self, ino: int) -> None:
        for layer in self._layers():
            if ino in layer.inodes:
                node = layer.inodes[ino]
                if node is None:
                    self.records[inode_key(ino)] = None
                elif node.extents is not None and node.extents.is_large:
                    self._large.append(node.capture())
                else:
                    self._add(node)
                return

    def _take_entry(self, parent: int, name: bytes) -> None:
        for layer in self._layers():
            changes = layer.entries.get(parent)
            if changes is not None and name in changes:
                entry = changes[name]
                self.records[entry_key(parent, name)] = None if entry is None else entry.encode()
                return

    def _take_xattrs(self, ino: int, names: dict[bytes, None]) -> None:
        layers = self._layers()
        for name in names:
            for layer in layers:
                values = layer.xattrs.get(ino)
                if values is not None and name in values:
                    self.records[xattr_key(ino, name)] = values[name]
                    break

    def _add(self, node: Inode) -> None:
        if node.extents is None:
            self.records[inode_key(node.ino)] = node.record().encode()
            return
        encoded = node.extents.encode_for_journal(node.ino)
        if encoded.changes:
            self.records.update(encoded.changes)
        self.records[inode_key(node.ino)] = node.record(encoded.inline, encoded.many).encode()

    def _layers(self) -> tuple[Layer, ...]:
        overlay = self._overlay
        return (overlay.live,) if overlay.frozen is None else (overlay.live, overlay.frozen)
