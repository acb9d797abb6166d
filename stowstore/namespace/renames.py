"""Renaming: replacing, refusing to replace, exchanging, and keeping the tree a tree."""

from __future__ import annotations

import errno
import stat
from enum import IntFlag

from stowstore.index.keys import ROOT_INODE
from stowstore.index.records import CorruptRecord, EntryRecord
from stowstore.namespace.core import MAX_LINKS
from stowstore.namespace.directories import DirectoryOperations
from stowstore.namespace.errors import posix_error
from stowstore.namespace.inodes import Inode
from stowstore.namespace.permissions import WRITE, Caller

__all__ = ["RenameFlags", "RenameOperations"]


class RenameFlags(IntFlag):
    """How ``renameat2`` treats the target; values are the kernel's."""

    REPLACE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class RenameOperations(DirectoryOperations):
    """`rename`."""

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        caller: Caller,
        flags: int = RenameFlags.REPLACE,
    ) -> None:
        """Moves a name to another place, atomically replacing what was there, refusing to, or exchanging both."""
        if flags not in (RenameFlags.REPLACE, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE):
            raise posix_error(errno.EINVAL, "rename knows NOREPLACE and EXCHANGE, one of them at a time")
        self._overlay.warm_entry(parent, name)
        self._overlay.warm_entry(new_parent, new_name)
        moves_directory = self._is_directory(parent, name)
        if moves_directory and flags == RenameFlags.REPLACE:
            self._warm_listing(new_parent, new_name)
        if parent != new_parent and (moves_directory or self._is_directory(new_parent, new_name)):
            self._warm_path(parent)
            self._warm_path(new_parent)
        with self._lock:
            source_directory = self._searchable(parent, caller)
            target_directory = self._searchable(new_parent, caller)
            if name in (b".", b".."):
                raise posix_error(errno.EBUSY)
            if new_name in (b".", b".."):
                raise posix_error(errno.EEXIST if flags == RenameFlags.NOREPLACE else errno.EBUSY)
            self._require_writable()
            source_entry = self._named(parent, name)
            if source_entry is None:
                raise posix_error(errno.ENOENT)
            target_entry = self._named(new_parent, new_name)
            source = self._entry_node(source_directory, source_entry)
            target = None if target_entry is None else self._entry_node(target_directory, target_entry)
            self._require_places(source, target, source_directory, target_directory, flags)
            if target is source:
                return
            self._require_renamable(source_directory, source, target_directory, target, caller, flags)
            if flags == RenameFlags.EXCHANGE:
                assert target is not None
                self._exchange(source_directory, name, source, target_directory, new_name, target)
            else:
                self._move(source_directory, name, source, target_directory, new_name, target)

    def _is_directory(self, parent: int, name: bytes) -> bool:
        """Whether a name stands for a directory; takes the lock itself."""
        entry = self._overlay.entries.young.get((parent, name))
        if entry is None:
            with self._lock:
                entry = self._overlay.entry(parent, name)
        return entry is not None and entry.kind == stat.S_IFDIR

    def _require_places(
        self, source: Inode, target: Inode | None, source_directory: Inode, target_directory: Inode, flags: int
    ) -> None:
        """Raises where the names stand in a way that forbids the move, whoever asks."""
        if target is not None and flags == RenameFlags.NOREPLACE:
            raise posix_error(errno.EEXIST)
        if target is None and flags == RenameFlags.EXCHANGE:
            raise posix_error(errno.ENOENT)
        if source_directory is target_directory:
            return
        if source.is_directory and self._is_within(target_directory, source):
            raise posix_error(errno.EINVAL, "a directory cannot be moved below itself")
        if target is not None and target.is_directory and self._is_within(source_directory, target):
            raise posix_error(errno.EINVAL if flags == RenameFlags.EXCHANGE else errno.ENOTEMPTY)

    def _require_renamable(
        self,
        source_directory: Inode,
        source: Inode,
        target_directory: Inode,
        target: Inode | None,
        caller: Caller,
        flags: int,
    ) -> None:
        """Raises where permissions, kinds or limits forbid the move."""
        exchange = flags == RenameFlags.EXCHANGE
        self._require_removable(source_directory, source, caller)
        if target is None:
            self._require_addable(target_directory, caller)
        else:
            self._require_removable(target_directory, target, caller)
            if not exchange and source.is_directory != target.is_directory:
                raise posix_error(errno.ENOTDIR if source.is_directory else errno.EISDIR)
        if source_directory is not target_directory:
            # Moving a directory changes its "..".
            if source.is_directory:
                self._require(source, caller, WRITE)
            if exchange and target is not None and target.is_directory:
                self._require(target, caller, WRITE)
            gains = source.is_directory and (target is None or not target.is_directory)
            if gains and target_directory.nlink >= MAX_LINKS:
                raise posix_error(errno.EMLINK)
        if not exchange and target is not None and target.is_directory and not self._is_empty(target):
            raise posix_error(errno.ENOTEMPTY)

    def _move(
        self,
        source_directory: Inode,
        name: bytes,
        source: Inode,
        target_directory: Inode,
        new_name: bytes,
        target: Inode | None,
    ) -> None:
        now = self._now()
        overlay = self._overlay
        overlay.set_entry(source_directory.ino, name, None)
        overlay.set_entry(target_directory.ino, new_name, EntryRecord(source.ino, source.mode & 0o170000))
        self._modified(source_directory, now)
        self._modified(target_directory, now)
        if target is not None:
            if target.is_directory:
                target_directory.nlink -= 1
            self._drop_link(target, now)
        self._moved(source, source_directory, target_directory, now)

    def _exchange(
        self,
        source_directory: Inode,
        name: bytes,
        source: Inode,
        target_directory: Inode,
        new_name: bytes,
        target: Inode,
    ) -> None:
        now = self._now()
        overlay = self._overlay
        overlay.set_entry(source_directory.ino, name, EntryRecord(target.ino, target.mode & 0o170000))
        overlay.set_entry(target_directory.ino, new_name, EntryRecord(source.ino, source.mode & 0o170000))
        self._modified(source_directory, now)
        self._modified(target_directory, now)
        self._moved(source, source_directory, target_directory, now)
        self._moved(target, target_directory, source_directory, now)

    def _moved(self, node: Inode, before: Inode, after: Inode, now: int) -> None:
        """Notes where an inode lies now; both directories have been marked as changed."""
        self._overlay.changed(node)
        node.ctime = now
        node.parent = after.ino
        if node.is_directory and before is not after:
            before.nlink -= 1
            after.nlink += 1

    def _is_within(self, directory: Inode, above: Inode) -> bool:
        """Whether a directory is another one, or lies anywhere below it."""
        seen: set[int] = set()
        ino = directory.ino
        while ino != above.ino:
            if ino == ROOT_INODE:
                return False
            if ino in seen:
                raise CorruptRecord(f"the directories above inode {directory.ino} form a circle")
            seen.add(ino)
            ino = self._node(ino).parent
        return True
