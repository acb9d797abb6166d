"""What a mount asks for beyond POSIX: whole answers in one turn, and inodes that the kernel keeps in mind."""

from __future__ import annotations

from collections.abc import Sequence

from stowstore.namespace.handles import DirectoryEntry
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.xattrs import XattrOperations

__all__ = ["KernelOperations"]


class KernelOperations(XattrOperations):
    """Operations of a mount whose kernel checks permissions, and names only directories it has looked up."""

    def find(self, parent: int, name: bytes) -> Attributes | None:
        """What a name in a directory stands for, retained once; None where there is nothing.

        ``.`` is the inode itself whatever it is, ``..`` the directory above: that is how a kernel that has forgotten a
        path finds it again.
        """
        overlay = self._overlay
        key = (parent, name)
        if key not in overlay.entries.young:
            overlay.warm_entry(parent, name)
        with self._lock:
            if name == b".":
                node = self._node(parent)
            elif name == b"..":
                node = self._node(self._directory(parent).parent)
            else:
                directory = self._directory(parent)
                entry = overlay.entries.young.get(key) or self._named(parent, name)
                if entry is None or not entry.ino:
                    return None
                node = self._entry_node(directory, entry)
            self._retain(node.ino)
            return node.attributes()

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

    def present(self, directory: int, entries: Sequence[DirectoryEntry]) -> list[Attributes | None]:
        """The attributes of entries of a directory, retained once each; None of one that is no more what it was.

        Entries named ``.`` and ``..`` have none either: nobody looks them up.
        """
        overlay = self._overlay
        young = overlay.inodes.young
        for entry in entries:
            if entry.ino not in young:
                overlay.warm_inode(entry.ino)
        found: list[Attributes | None] = []
        with self._lock:
            for name, ino, _, cookie, _ in entries:
                node = None
                if cookie > 2:
                    node = young.get(ino) or overlay.inode(ino)
                    if node is not None and not self.read_only:
                        now = overlay.entry(directory, name)
                        if now is None or now.ino != ino:
                            node = None
                        else:
                            self._retain(ino)
                found.append(None if node is None else node.attributes())
        return found

    def _retain(self, ino: int, count: int = 1) -> None:
        if self.read_only:
            # Nothing is ever removed, so nothing has to be kept.
            return
        known = self._known
        known[ino] = known.get(ino, 0) + count
        opened = self._overlay.opened.get(ino)
        if opened is not None and not opened.nlink:
            self._pin(opened)
