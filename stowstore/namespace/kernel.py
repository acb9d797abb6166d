"""What a mount asks for beyond POSIX: whole answers in one turn, and inodes that the kernel keeps in mind."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from stowstore.chunks.patience import WouldWait, never_waiting
from stowstore.index.node import LEAF_RECORDS
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.handles import DirectoryEntry
from stowstore.namespace.inodes import Attributes, Inode
from stowstore.namespace.permissions import Caller
from stowstore.namespace.xattrs import XattrOperations

__all__ = ["SHOWN_BYTES", "KernelOperations"]

_SHOWN: Final = Struct("<6Q10I")  # ino size blocks a m c | a_ns m_ns c_ns mode nlink uid gid rdev blksize flags

#: The length of what `KernelOperations.show` gives.
SHOWN_BYTES: Final = _SHOWN.size

#: Leaves of the index that are read for the attributes of one reply to who lists a directory.
_LEAVES: Final = 8

_SECOND: Final = 10**9
_DOTS: Final = (b".", b"..")
_U64: Final = (1 << 64) - 1
_PAGE: Final = 4096


class KernelOperations(XattrOperations):
    """Operations of a mount whose kernel checks permissions, and names only directories it has looked up."""

    def find(self, parent: int, name: bytes) -> Attributes | None:
        """What a name in a directory stands for, retained once; None where there is nothing.

        ``.`` is the inode itself whatever it is, ``..`` the directory above: that is how a kernel that has forgotten a
        path finds it again.
        """
        self._overlay.warm_entry(parent, name)
        if name == b"..":
            self._warm_parent(parent)
        with self._lock:
            node = self._found(parent, name)
            if node is None:
                return None
            self._retain(node.ino)
            return node.attributes()

    def look_up(self, parent: int, name: bytes) -> bytes | None:
        """The same, as `show` gives it."""
        overlay = self._overlay
        if parent < overlay.first_new_ino:
            overlay.warm_entry(parent, name)
        if name == b"..":
            self._warm_parent(parent)
        with self._lock:
            entry = overlay.entries.young.get((parent, name))
            if entry is None:
                node = None
            elif entry.ino or name in _DOTS:
                node = overlay.inodes.young.get(entry.ino)
            else:
                return None
            if node is None or node.mode & 0o170000 == 0o040000:
                # Not just known, or a directory, which has to be where it lies.
                node = self._found(parent, name)
                if node is None:
                    return None
            if not self.read_only:
                known, ino = self._known, node.ino
                known[ino] = known.get(ino, 0) + 1
                if not node.nlink:
                    self._pin(node)
            return node.shown or _shown(node)

    def show(self, ino: int) -> bytes:
        """The attributes of an inode in the kernel's layout (``struct fuse_attr``), whose first field is its number."""
        overlay = self._overlay
        node = overlay.inodes.young.get(ino)
        if node is not None:
            found = node.shown
            if found is not None:
                return found
        else:
            overlay.warm_inode(ino)
        with self._lock:
            node = self._node(ino)
            return node.shown or _shown(node)

    def change(self, ino: int, changes: AttributeChanges, caller: Caller) -> bytes:
        """What `setattr` does, and what `show` gives afterwards."""
        self._warm_change(ino, changes)
        with self._lock:
            node = self._change(ino, changes, caller, None)
            return node.shown or _shown(node)

    def may_have_xattrs(self, ino: int) -> bool:
        """Whether an inode can have extended attributes, as far as that is known at once; False is certain."""
        node = self._overlay.inodes.young.get(ino)
        return node is None or node.has_xattrs

    def make_file(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[bytes, int]:
        """Makes and opens a file as `create` does; what `show` gives of it, retained once, and the handle."""
        overlay = self._overlay
        if parent < overlay.first_new_ino:
            overlay.warm_entry(parent, name)
        with self._lock:
            node, handle = self._create(parent, name, mode, flags, caller)
            self._retain(node.ino)
            return node.shown or _shown(node), handle

    def introduce(self, ino: int) -> bytes:
        """The same of an inode that has just been made or named, retained once."""
        with self._lock:
            self._retain(ino)
            node = self._node(ino)
            return node.shown or _shown(node)

    def number_handles_from(self, handle: int) -> None:
        """Numbers the handles opened from now on from ``handle`` up, so that they differ from another file system's."""
        with self._lock:
            self._next_handle = max(self._next_handle, handle)

    def retain(self, ino: int, count: int = 1) -> None:
        """Keeps an inode alive without a handle, as long as a mount knows it."""
        with self._lock:
            self._retain(ino, count)

    def forget(self, ino: int, count: int = 1) -> None:
        """Takes back as many `retain`."""
        if self.read_only:
            return
        with self._lock:
            left = self._known.get(ino, 0) - count
            if left > 0:
                self._known[ino] = left
                return
            self._known.pop(ino, None)
            if ino in self._pinned:
                self._pinned.discard(ino)
                self._let_go(self._overlay.opened[ino])

    def present(self, directory: int, entries: Sequence[DirectoryEntry]) -> list[bytes | None]:
        """What `show` gives of entries of a directory, retained once each; None of one that is no more what it was.

        Entries named ``.`` and ``..`` have none either: nobody looks them up.  Nor have all whose inodes lie far apart
        in the index, as directories do that were each filled before the next was made: who only wants their names does
        not wait until as many leaves are read, and who wants more looks them up.
        """
        overlay = self._overlay
        young = overlay.inodes.young
        far = self._warm_some(entries)
        found: list[bytes | None] = []
        with self._lock:
            for name, ino, _, cookie, _ in entries:
                node = None
                if cookie > 2 and ino not in far:
                    node = young.get(ino) or overlay.inode(ino)
                    if node is not None and not self.read_only:
                        now = overlay.entry(directory, name)
                        if now is None or now.ino != ino:
                            node = None
                        else:
                            self._retain(ino)
                found.append(None if node is None else node.shown or _shown(node))
        return found

    def _warm_some(self, entries: Sequence[DirectoryEntry]) -> set[int]:
        """Fetches the inodes of entries together as far as they take few leaves of the index; the numbers of others."""
        overlay = self._overlay
        young = overlay.inodes.young
        leaves: set[int] = set()
        near: list[int] = []
        far: set[int] = set()
        for entry in entries:
            ino = entry.ino
            if ino in young:
                continue
            # Where an inode lies is known once it is read; inodes of about the same number lie together.
            leaf = ino // LEAF_RECORDS
            if leaf in leaves or len(leaves) < _LEAVES:
                leaves.add(leaf)
                near.append(ino)
                continue
            try:
                with never_waiting():
                    overlay.warm_inode(ino)
            except WouldWait:
                far.add(ino)
        overlay.warm_inodes(near)
        return far

    def _warm_parent(self, ino: int) -> None:
        """Fetches the directory above one."""
        with self._lock:
            directory = self._overlay.inode(ino)
        if directory is not None:
            self._overlay.warm_inode(directory.parent)

    def _found(self, parent: int, name: bytes) -> Inode | None:
        if name == b".":
            return self._node(parent)
        if name == b"..":
            return self._node(self._directory(parent).parent)
        entry = self._overlay.entries.young.get((parent, name))
        if entry is None:
            self._directory(parent)
            entry = self._named(parent, name)
        if entry is None or not entry.ino:
            return None
        return self._entry_node(self._directory(parent), entry)

    def _retain(self, ino: int, count: int = 1) -> None:
        if self.read_only:
            # Nothing is ever removed, so nothing has to be kept.
            return
        known = self._known
        known[ino] = known.get(ino, 0) + count
        opened = self._overlay.opened.get(ino)
        if opened is not None and not opened.nlink:
            self._pin(opened)


def _shown(node: Inode) -> bytes:
    """The attributes as the kernel has them, kept for the next; times before 1970 go as two's complement."""
    atime, atime_ns = divmod(node.atime, _SECOND)
    mtime, mtime_ns = divmod(node.mtime, _SECOND)
    ctime, ctime_ns = divmod(node.ctime, _SECOND)
    found = node.shown = _SHOWN.pack(
        node.ino,
        node.size,
        (node.allocated + 511) >> 9,
        atime & _U64,
        mtime & _U64,
        ctime & _U64,
        atime_ns,
        mtime_ns,
        ctime_ns,
        node.mode,
        node.nlink,
        node.uid,
        node.gid,
        node.rdev,
        _PAGE,
        0,
    )
    return found
