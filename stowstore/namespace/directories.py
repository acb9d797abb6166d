"""Names: looking them up, making and removing them, listing them."""

from __future__ import annotations

import errno
import stat

from stowstore.index.keys import ROOT_INODE
from stowstore.namespace.attributes import AttributeOperations
from stowstore.namespace.core import MAX_LINKS
from stowstore.namespace.errors import posix_error
from stowstore.namespace.handles import DirectoryEntry, DirectoryStream, OpenDirectory, directory_entries
from stowstore.namespace.inodes import Attributes, Inode, attributes_of
from stowstore.namespace.permissions import EXECUTE, READ, WRITE, Caller, require_unsticky

__all__ = ["DirectoryOperations"]

_DIRECTORY = stat.S_IFDIR
_DOTS = (b".", b"..")
_TARGET_BYTES = 4095
_NODE_KINDS = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


class DirectoryOperations(AttributeOperations):
    """Operations on directories and their entries."""

    def lookup(self, parent: int, name: bytes, caller: Caller) -> Attributes:
        """The attributes of what a name in a directory stands for; knows ``.`` and ``..``."""
        self._overlay.warm_entry(parent, name)
        with self._lock:
            directory, entry = self._search(parent, name, caller)
            if entry is not None:
                return self._entry_node(directory, entry).attributes()
            if name == b".":
                return directory.attributes()
            if name == b"..":
                return self._node(directory.parent).attributes()
        raise posix_error(errno.ENOENT)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Makes a directory."""
        self._overlay.warm_entry(parent, name)
        with self._lock:
            directory = self._require_absent(parent, name, caller)
            if directory.nlink >= MAX_LINKS:
                raise posix_error(errno.EMLINK)
            node = self._allocate(directory, stat.S_IFDIR | (mode & 0o1777 & ~caller.umask), caller, 2)
            node.parent = parent
            self._overlay.add(node)
            self._enter(directory, name, node, node.btime)
            directory.nlink += 1
            return node.attributes()

    def mknod(self, parent: int, name: bytes, mode: int, caller: Caller, rdev: int = 0) -> Attributes:
        """Makes a file, fifo, socket or device; a device needs the superuser."""
        self._overlay.warm_entry(parent, name)
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        with self._lock:
            if kind not in _NODE_KINDS:
                raise posix_error(errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL)
            directory = self._require_absent(parent, name, caller)
            device = kind in (stat.S_IFCHR, stat.S_IFBLK)
            if device and caller.uid and self._checked:
                raise posix_error(errno.EPERM)
            node = self._allocate(directory, kind | (mode & 0o7777 & ~caller.umask), caller, 1)
            node.rdev = rdev if device else 0
            self._overlay.add(node)
            self._enter(directory, name, node, node.btime)
            return node.attributes()

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Makes a symbolic link; its text is kept as it is."""
        if not target:
            raise posix_error(errno.ENOENT)
        if len(target) > _TARGET_BYTES:
            raise posix_error(errno.ENAMETOOLONG)
        self._overlay.warm_entry(parent, name)
        with self._lock:
            directory = self._require_absent(parent, name, caller)
            node = self._allocate(directory, stat.S_IFLNK | 0o777, caller, 1)
            node.target = bytes(target)
            node.size = len(target)
            self._overlay.add(node)
            self._enter(directory, name, node, node.btime)
            return node.attributes()

    def readlink(self, ino: int) -> bytes:
        """The text of a symbolic link."""
        self._overlay.warm_inode(ino)
        with self._lock:
            node = self._node(ino)
            if not stat.S_ISLNK(node.mode):
                raise posix_error(errno.EINVAL)
            return node.target

    def link(self, ino: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        """Gives an inode another name; one made with O_TMPFILE gets its first."""
        self._overlay.warm_entry(parent, name)
        self._overlay.warm_inode(ino)
        with self._lock:
            node = self._node(ino)
            directory = self._require_absent(parent, name, caller)
            if node.is_directory:
                raise posix_error(errno.EPERM)
            if not node.nlink and not node.linkable:
                raise posix_error(errno.ENOENT, "the file has been removed")
            if node.nlink >= MAX_LINKS:
                raise posix_error(errno.EMLINK)
            now = self._now()
            if node.nlink:
                self._overlay.changed(node)
                node.nlink += 1
            else:
                self._adopt(node)
            node.ctime = now
            self._enter(directory, name, node, now)
            return node.attributes()

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Removes a name of anything but a directory; an open file lives on for its holders."""
        self._overlay.warm_entry(parent, name)
        with self._lock:
            directory = self._searchable(parent, caller)
            if name in (b".", b".."):
                raise posix_error(errno.EISDIR)
            node = self._removable(directory, name, caller)
            if node.is_directory:
                raise posix_error(errno.EISDIR)
            now = self._now()
            self._overlay.set_entry(parent, name, None)
            self._modified(directory, now)
            self._drop_link(node, now)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Removes an empty directory."""
        self._overlay.warm_entry(parent, name)
        self._warm_listing(parent, name)
        with self._lock:
            directory = self._searchable(parent, caller)
            if name == b".":
                raise posix_error(errno.EINVAL)
            if name == b"..":
                raise posix_error(errno.ENOTEMPTY)
            node = self._removable(directory, name, caller)
            if not node.is_directory:
                raise posix_error(errno.ENOTDIR)
            if not self._is_empty(node):
                raise posix_error(errno.ENOTEMPTY)
            now = self._now()
            self._overlay.set_entry(parent, name, None)
            self._modified(directory, now)
            directory.nlink -= 1
            self._drop_link(node, now)

    def opendir(self, ino: int, caller: Caller) -> int:
        """A handle to list a directory."""
        self._overlay.warm_inode(ino)
        with self._lock:
            node = self._directory(ino)
            self._require(node, caller, READ)
            handle = self._next_handle
            self._next_handle += 1
            self._directories[handle] = OpenDirectory(node)
            self._hold(node)
            return handle

    def readdir(self, handle: int, cookie: int = 0, count: int = 1024) -> list[DirectoryEntry]:
        """Up to so many entries behind a cookie, ``.`` and ``..`` first; an empty list at the end.

        A handle lists the directory as it was when it was last read from the start: every entry that was there is seen
        exactly once, whatever happens to the directory meanwhile.
        """
        opened = self._open_directory(handle)
        stream = opened.stream
        if stream is None or not cookie:
            with self._lock:
                stream = opened.stream = self._stream(opened.node)
        return stream.read(cookie, count)

    def may_wait_for_listing(self, handle: int) -> bool:
        """Whether reading on may fetch something: the directory is in the version below."""
        return self._is_stored(self._open_directory(handle).node)

    def readdirplus(self, handle: int, cookie: int = 0, count: int = 1024) -> list[DirectoryEntry]:
        """The same with present attributes; None for entries gone meanwhile, and directories that lie elsewhere.

        A damaged index may name a directory in several places: who walks by inode numbers would never come to an end.
        """
        entries = self.readdir(handle, cookie, count)
        overlay = self._overlay
        snapshot = overlay.snapshot
        stored = overlay.unchanged_inodes(snapshot, [entry.ino for entry in entries])
        found: list[DirectoryEntry] = []
        with self._lock:
            directory = self._open_directory(handle).node.ino
            if snapshot is not overlay.snapshot:
                # A commit has ended meanwhile.
                stored = {}
            for name, ino, kind, cookie, _ in entries:
                record = stored.get(ino)
                if record is not None and not overlay.is_changed(ino):
                    parent, attributes = record.parent, attributes_of(ino, record)
                elif (node := overlay.inode(ino)) is not None:
                    parent, attributes = node.parent, node.attributes()
                else:
                    found.append(DirectoryEntry(name, ino, kind, cookie))
                    continue
                lies_here = parent == directory and ino != ROOT_INODE
                if attributes.mode & 0o170000 == _DIRECTORY and not lies_here and name not in _DOTS:
                    found.append(DirectoryEntry(name, ino, kind, cookie))
                else:
                    found.append(DirectoryEntry(name, ino, kind, cookie, attributes))
        return found

    def releasedir(self, handle: int) -> None:
        """Closes a handle of `opendir`."""
        with self._lock:
            opened = self._directories.pop(handle, None)
            if opened is None:
                raise posix_error(errno.EBADF)
            self._let_go(opened.node)

    def _open_directory(self, handle: int) -> OpenDirectory:
        try:
            return self._directories[handle]
        except KeyError:
            raise posix_error(errno.EBADF) from None

    def _stream(self, node: Inode) -> DirectoryStream:
        overlay = self._overlay
        snapshot = overlay.snapshot if self._is_stored(node) else None
        return DirectoryStream(node, snapshot, overlay.directory_changes(node.ino))

    def _is_stored(self, node: Inode) -> bool:
        return node.ino < self._overlay.first_new_ino

    def _removable(self, directory: Inode, name: bytes, caller: Caller) -> Inode:
        """What a name in a directory stands for, which the caller may remove from there."""
        self._require_writable()
        entry = self._named(directory.ino, name)
        if entry is None:
            raise posix_error(errno.ENOENT)
        node = self._entry_node(directory, entry)
        self._require_removable(directory, node, caller)
        return node

    def _require_removable(self, directory: Inode, node: Inode, caller: Caller) -> None:
        if self._checked:
            self._require(directory, caller, WRITE | EXECUTE)
            require_unsticky(directory, node, caller)

    def _is_empty(self, node: Inode) -> bool:
        overlay = self._overlay
        changes = overlay.directory_changes(node.ino)
        if any(entry is not None for entry in changes.values()):
            return False
        snapshot = overlay.snapshot if self._is_stored(node) else None
        return next(directory_entries(snapshot, node.ino, changes), None) is None

    def _adopt(self, node: Inode) -> None:
        """Takes an inode that had no name into the versions to come."""
        usage = self._usage
        usage.orphan_inodes -= 1
        usage.orphan_bytes -= node.allocated
        usage.inode_count += 1
        usage.used_bytes += node.allocated
        node.nlink = 1
        node.linkable = False
        self._overlay.add(node)
        for name, value in (node.xattrs or {}).items():
            self._overlay.set_xattr(node.ino, name, value)
