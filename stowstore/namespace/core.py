"""What every group of operations stands on: live inodes, names, usage, and the one lock."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from stowstore.chunks.patience import WouldWait, must_not_wait
from stowstore.index.keys import EXTENTS, INODE, ROOT_INODE, SUPERBLOCK, XATTR, inode_of, name_of, xattr_prefix
from stowstore.index.records import NAME_BYTES, EntryRecord, InodeRecord, Superblock
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.errors import posix_error
from stowstore.namespace.handles import OpenDirectory, OpenFile, directory_entries
from stowstore.namespace.inodes import Inode
from stowstore.namespace.interfaces import Content, Extents, MetaStore
from stowstore.namespace.overlay import Overlay
from stowstore.namespace.permissions import (
    EXECUTE,
    WRITE,
    Caller,
    PermissionChecks,
    is_allowed,
    mode_in_directory,
    without_privileges,
)
from stowstore.namespace.quota import Usage

__all__ = ["MAX_LINKS", "Core"]

#: How many names one inode may have.
MAX_LINKS: Final = (1 << 31) - 1

_CAPABILITY: Final = b"security.capability"
_ROOT_MODE: Final = 0o040755
_DIRECTORY: Final = 0o040000
_EVERY_INODE: Final = 1 << 64

#: What a file without extents is loaded from.
_EMPTY: Final = InodeRecord(0, 0, 0, 0, 0, 0, 0, 0, 0)


class Core:
    """State and helpers; methods with an underscore run under the lock."""

    def __init__(
        self,
        snapshot: Snapshot,
        content: Content,
        *,
        metastore: MetaStore | None = None,
        read_only: bool = False,
        permissions: PermissionChecks = PermissionChecks.HERE,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.content = content
        self.metastore = metastore
        self.read_only = read_only
        self._checked = permissions is PermissionChecks.HERE
        self._now = clock
        self._lock = threading.Lock()
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._next_handle = 1
        #: How often a mount's kernel was given each inode; numbers only, since a kernel may know millions.
        self._known: dict[int, int] = {}
        #: Those of them that have lost their last name, and are held until the kernel forgets them.
        self._pinned: set[int] = set()
        self._usage_read: Usage | None = None
        if read_only:
            self._overlay = Overlay(snapshot, first_new_ino=_EVERY_INODE, journalled=False)
            return
        raw = snapshot.get(SUPERBLOCK)
        superblock = Superblock(next_ino=ROOT_INODE, inode_count=0) if raw is None else Superblock.decode(raw)
        self._usage_read = Usage(superblock)
        self._overlay = Overlay(snapshot, first_new_ino=superblock.next_ino, journalled=metastore is not None)
        if metastore is not None:
            self._recover(metastore)
        #: Whether a journal had anything.
        self._has_recovered = bool(self._overlay.live)
        content.recovered()
        if not self._usage.inode_count:
            self._make_root()

    @property
    def _usage(self) -> Usage:
        usage = self._usage_read
        if usage is None:
            raw = self._overlay.snapshot.get(SUPERBLOCK)
            usage = self._usage_read = Usage(Superblock() if raw is None else Superblock.decode(raw))
        return usage

    def _node(self, ino: int) -> Inode:
        node = self._overlay.inode(ino)
        if node is None:
            raise posix_error(errno.ESTALE, f"inode {ino} is no more")
        return node

    def _entry_node(self, directory: Inode, entry: EntryRecord) -> Inode:
        """The inode of an entry; a directory's only where it lies, or a damaged index could have endless paths."""
        node = self._overlay.inode(entry.ino)
        if node is None:
            raise posix_error(errno.EIO, f"an entry names inode {entry.ino}, which does not exist")
        if node.mode & 0o170000 == 0o040000 and (node.parent != directory.ino or node.ino == ROOT_INODE):
            raise posix_error(
                errno.EIO, f"inode {directory.ino} names directory {node.ino}, which lies in {node.parent}"
            )
        return node

    def _directory(self, ino: int) -> Inode:
        node = self._node(ino)
        if node.mode & 0o170000 != 0o040000:
            raise posix_error(errno.ENOTDIR)
        return node

    def _require(self, node: Inode, caller: Caller, mask: int) -> None:
        if self._checked and caller.uid and not is_allowed(node, caller, mask):
            raise posix_error(errno.EACCES)

    def _require_writable(self) -> None:
        if self.read_only:
            raise posix_error(errno.EROFS)

    def _search(self, parent: int, name: bytes, caller: Caller) -> tuple[Inode, EntryRecord | None]:
        """A directory that may be searched, and what a valid name in it stands for."""
        directory = self._searchable(parent, caller)
        return directory, self._named(parent, name)

    def _searchable(self, parent: int, caller: Caller) -> Inode:
        directory = self._overlay.inodes.young.get(parent) or self._node(parent)
        if directory.mode & 0o170000 != 0o040000:
            raise posix_error(errno.ENOTDIR)
        if self._checked and caller.uid and not is_allowed(directory, caller, EXECUTE):
            raise posix_error(errno.EACCES)
        return directory

    def _named(self, parent: int, name: bytes) -> EntryRecord | None:
        self._require_name(name)
        return self._overlay.entry(parent, name)

    @staticmethod
    def _require_name(name: bytes) -> None:
        if not name:
            raise posix_error(errno.ENOENT)
        if len(name) > NAME_BYTES:
            raise posix_error(errno.ENAMETOOLONG)
        if b"/" in name or b"\0" in name:
            raise posix_error(errno.EINVAL, "a name contains neither a slash nor NUL")

    def _require_absent(self, parent: int, name: bytes, caller: Caller) -> Inode:
        """A directory in which the caller may create a name."""
        directory, entry = self._search(parent, name, caller)
        if entry is not None or name in (b".", b".."):
            raise posix_error(errno.EEXIST)
        self._require_writable()
        self._require_addable(directory, caller)
        return directory

    def _require_addable(self, directory: Inode, caller: Caller) -> None:
        if not directory.nlink:
            raise posix_error(errno.ENOENT, "the directory has been removed")
        self._require(directory, caller, WRITE | EXECUTE)

    def _allocate(self, directory: Inode, mode: int, caller: Caller, nlink: int) -> Inode:
        """A new inode, counted but not yet in the overlay."""
        usage = self._usage
        usage.require_inode()
        mode, gid = mode_in_directory(directory, mode, caller)
        node = Inode(usage.next_ino, mode, caller.uid, gid, nlink, self._now())
        usage.next_ino += 1
        if nlink:
            usage.inode_count += 1
        else:
            usage.orphan_inodes += 1
        return node

    def _enter(self, directory: Inode, name: bytes, node: Inode, now: int) -> None:
        """Gives an inode a name."""
        self._overlay.set_entry(directory.ino, name, EntryRecord(node.ino, node.mode & 0o170000))
        node.parent = directory.ino
        self._modified(directory, now)

    def _modified(self, directory: Inode, now: int) -> None:
        """Sets the times of a directory whose entries have changed."""
        self._overlay.changed(directory)
        directory.mtime = directory.ctime = now

    def _drop_link(self, node: Inode, now: int) -> None:
        """Takes a name from an inode; a directory's last name takes all its links."""
        self._overlay.changed(node)
        node.ctime = now
        node.nlink = 0 if node.is_directory else node.nlink - 1
        if node.nlink:
            return
        usage = self._usage
        usage.inode_count -= 1
        usage.used_bytes -= node.allocated
        self._overlay.remove(node)
        if node.ino in self._known:
            self._pin(node)
        if node.opens:
            usage.orphan_inodes += 1
            usage.orphan_bytes += node.allocated
        else:
            self._forget_content(node)

    def _hold(self, node: Inode, count: int = 1) -> None:
        node.opens += count
        self._overlay.opened[node.ino] = node

    def _pin(self, node: Inode) -> None:
        """Holds an inode without names that a mount's kernel knows."""
        if node.ino not in self._pinned:
            self._pinned.add(node.ino)
            self._hold(node)

    def _let_go(self, node: Inode, count: int = 1) -> None:
        node.opens -= min(count, node.opens)
        if node.opens:
            return
        self._overlay.opened.pop(node.ino, None)
        if not node.nlink:
            usage = self._usage
            usage.orphan_inodes -= 1
            usage.orphan_bytes -= node.allocated
            self._overlay.inodes.drop(node.ino)
            self._forget_content(node)

    def _forget_content(self, node: Inode) -> None:
        if node.extents is not None:
            self.content.forget(node.extents)
            node.extents = None
            node.packed = b""

    def _extents(self, node: Inode) -> Extents:
        """The extents of a regular file, read when first needed."""
        extents = node.extents
        if extents is None:
            record = node.record() if node.packed or node.many else _EMPTY
            extents = node.extents = self.content.load(node.ino, record, self._scan)
        return extents

    # What waits for the store is read before the lock is taken, so that under it it is found in memory: nobody else has
    # to wait for it.  A thread that must not wait has it done by another one.

    def _warm_extents(self, node: Inode, start: int, stop: int) -> None:
        """Fetches the extents of a range."""
        extents = node.extents
        if not node.many if extents is None else extents.is_loaded:
            return
        with self._lock:
            if self._extents(node).is_loaded_in(start, stop):
                return
        self._require_patience()
        self.content.fetch_extents(node.ino, start, stop, self._scan)

    def _warm_xattrs(self, ino: int) -> None:
        """Fetches the extended attributes of an inode, and the inode."""
        overlay = self._overlay
        node = overlay.inodes.young.get(ino)
        if node is None:
            overlay.warm_inode(ino)
            with self._lock:
                node = overlay.inode(ino)
        if node is None or not node.has_xattrs or node.xattrs is not None or ino >= overlay.first_new_ino:
            return
        self._require_patience()
        for _ in self._scan(xattr_prefix(ino), xattr_prefix(ino + 1)):
            pass

    def _warm_listing(self, parent: int, name: bytes) -> None:
        """Fetches what tells whether a directory is empty, if that is what the name stands for."""
        overlay = self._overlay
        with self._lock:
            entry = overlay.entry(parent, name)
            if entry is None or entry.kind != _DIRECTORY or entry.ino >= overlay.first_new_ino:
                return
            snapshot, changes = overlay.snapshot, overlay.directory_changes(entry.ino)
        self._require_patience()
        next(directory_entries(snapshot, entry.ino, changes), None)

    def _warm_path(self, ino: int) -> None:
        """Fetches a directory and those above it."""
        overlay = self._overlay
        seen: set[int] = set()
        while ino not in seen and ino != ROOT_INODE:
            seen.add(ino)
            overlay.warm_inode(ino)
            with self._lock:
                node = overlay.inode(ino)
            if node is None:
                return
            ino = node.parent

    def _warm_usage(self) -> None:
        """Fetches the superblock."""
        if self._usage_read is None:
            self._overlay.warm(SUPERBLOCK)

    @staticmethod
    def _require_patience() -> None:
        if must_not_wait():
            raise WouldWait

    def _scan(self, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        return self._overlay.snapshot.scan(start, stop)

    def _account(self, node: Inode) -> None:
        """Counts what a change of extents has added or given back."""
        extents = node.extents
        assert extents is not None
        delta = extents.allocated - node.allocated
        if delta:
            node.allocated += delta
            if node.nlink:
                self._usage.used_bytes += delta
            else:
                self._usage.orphan_bytes += delta

    def _drop_privileges(self, node: Inode, caller: Caller) -> None:
        """Takes setuid, setgid and file capabilities away, after `Overlay.changed`."""
        if node.mode & 0o6000:
            node.mode = without_privileges(node, caller)
        if node.has_xattrs and _CAPABILITY in self._xattrs(node):
            self._store_xattr(node, _CAPABILITY, None)

    def _xattrs(self, node: Inode) -> dict[bytes, bytes]:
        """The extended attributes of an inode, read when first needed."""
        found = node.xattrs
        if found is None:
            found = {}
            if node.has_xattrs:
                if node.ino < self._overlay.first_new_ino:
                    stored = self._scan(xattr_prefix(node.ino), xattr_prefix(node.ino + 1))
                    found = {name_of(key): value for key, value in stored}
                for name, value in self._overlay.xattr_changes(node.ino).items():
                    if value is None:
                        found.pop(name, None)
                    else:
                        found[name] = value
            node.xattrs = found
        return found

    def _store_xattr(self, node: Inode, name: bytes, value: bytes | None) -> None:
        """Sets or drops one attribute, after `Overlay.changed`."""
        values = self._xattrs(node)
        if value is None:
            del values[name]
        else:
            values[name] = value
        node.has_xattrs = bool(values)
        if node.nlink:
            self._overlay.set_xattr(node.ino, name, value)

    def _make_root(self) -> None:
        usage = self._usage
        node = Inode(ROOT_INODE, _ROOT_MODE, 0, 0, 2, self._now())
        node.parent = ROOT_INODE
        usage.next_ino = max(usage.next_ino, ROOT_INODE + 1)
        usage.inode_count = 1
        self._overlay.add(node)

    def _recover(self, metastore: MetaStore) -> None:
        """Takes up the changes that a journal has kept."""
        live = self._overlay.live
        extents: dict[int, dict[bytes, bytes | None]] = {}
        records: dict[int, InodeRecord] = {}
        for key, value in metastore.load():
            kind = key[:1]
            if kind == SUPERBLOCK:
                if value is not None:
                    self._usage_read = Usage(Superblock.decode(value))
                continue
            ino = inode_of(key)
            if kind == INODE:
                if value is None:
                    live.inodes[ino] = None
                else:
                    records[ino] = InodeRecord.decode(value)
            elif kind == EXTENTS:
                extents.setdefault(ino, {})[key] = value
            elif kind == XATTR:
                live.xattrs.setdefault(ino, {})[name_of(key)] = value
            else:
                entry = None if value is None else EntryRecord.decode(value)
                live.entries.setdefault(ino, {})[name_of(key)] = entry
        for ino in [ino for ino in live.xattrs if ino not in records]:
            del live.xattrs[ino]
        for ino, record in records.items():
            node = live.inodes[ino] = Inode.from_record(ino, record)
            if node.is_regular and (record.extents or record.many_extents or ino in extents):
                node.extents = self.content.load(ino, record, self._scan, extents.get(ino))
