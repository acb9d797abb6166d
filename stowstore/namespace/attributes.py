"""Attributes: reading them, changing them, and what the volume as a whole shows."""

from __future__ import annotations

import errno
import stat
from enum import Enum

import msgspec

from stowstore.namespace.core import Core
from stowstore.namespace.errors import posix_error
from stowstore.namespace.inodes import Attributes, Inode
from stowstore.namespace.permissions import WRITE, Caller, is_allowed, require_owner
from stowstore.namespace.quota import FileSystemStatus

__all__ = ["MAX_SIZE", "NOW", "AttributeChanges", "AttributeOperations", "Moment", "kept_time"]

#: The largest size of a file.
MAX_SIZE = (1 << 63) - 1


#: What 64 bits of nanoseconds reach.
_FIRST, _LAST = -(1 << 63), (1 << 63) - 1


class Moment(Enum):
    """A time that the file system reads from its own clock."""

    NOW = "now"


NOW = Moment.NOW


class AttributeChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What `setattr` is to change, None to leave as it is (``UTIME_OMIT``); times in nanoseconds, or `NOW`."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: int | Moment | None = None
    mtime: int | Moment | None = None
    #: Only a kernel that gathers writes sets it: it knows better than we when they were made.
    ctime: int | None = None


class AttributeOperations(Core):
    """Operations on one inode's attributes, and `statfs`."""

    def getattr(self, ino: int) -> Attributes:
        """The attributes of an inode, which may have lost its last name if it is open."""
        overlay = self._overlay
        if ino not in overlay.inodes.young:
            overlay.warm_inode(ino)
        with self._lock:
            node = overlay.inodes.young.get(ino)
            return (node if node is not None else self._node(ino)).attributes()

    def access(self, ino: int, mask: int, caller: Caller) -> None:
        """Raises EACCES unless the mode bits grant all of a mask (`os.R_OK` and its kin), EROFS for writing."""
        with self._lock:
            node = self._node(ino)
            if mask & WRITE and self.read_only and (node.is_regular or node.is_directory or stat.S_ISLNK(node.mode)):
                raise posix_error(errno.EROFS)
            if not is_allowed(node, caller, mask):
                raise posix_error(errno.EACCES)

    def setattr(self, ino: int, changes: AttributeChanges, caller: Caller, handle: int | None = None) -> Attributes:
        """Changes attributes, all or none, and gives the new ones.

        With the handle of a file open for writing, its size may be changed whatever the mode bits say (``ftruncate``).
        """
        self._warm_change(ino, changes)
        with self._lock:
            return self._change(ino, changes, caller, handle).attributes()

    def statfs(self) -> FileSystemStatus:
        """What the volume holds and may hold."""
        self._warm_usage()
        with self._lock:
            return self._usage.status()

    def usage(self) -> tuple[int, int]:
        """Bytes and inodes that a version made now would count."""
        self._warm_usage()
        with self._lock:
            return self._usage.used_bytes, self._usage.inode_count

    def set_limits(self, *, limit_bytes: int | None = None, limit_inodes: int | None = None) -> None:
        """Limits what the volume may hold; 0 is no limit.  What it holds already is never refused."""
        with self._lock:
            self._require_writable()
            usage = self._usage
            if limit_bytes is not None:
                usage.limit_bytes = max(limit_bytes, 0)
            if limit_inodes is not None:
                usage.limit_inodes = max(limit_inodes, 0)

    def _warm_change(self, ino: int, changes: AttributeChanges) -> None:
        """Fetches what a change will look at."""
        self._overlay.warm_inode(ino)
        size = changes.size
        if size is None and changes.uid is None and changes.gid is None:
            return
        self._warm_xattrs(ino)
        if size is not None:
            with self._lock:
                node = self._overlay.inode(ino)
            if node is not None and 0 < size < node.size:
                self._warm_extents(node, size, node.size)

    def _change(self, ino: int, changes: AttributeChanges, caller: Caller, handle: int | None) -> Inode:
        self._require_writable()
        node = self._node(ino)
        if self._checked:
            self._require_changeable(node, changes, caller, handle)
        now = self._now()
        if changes.size is not None:
            self._set_size(node, changes.size, caller, now)
        if changes.uid is not None or changes.gid is not None:
            self._set_owner(node, changes, caller, now)
        if changes.mode is not None:
            self._overlay.changed(node)
            mode = changes.mode & 0o7777
            if self._checked and caller.uid and not caller.is_in(node.gid):
                mode &= ~stat.S_ISGID
            node.mode = stat.S_IFMT(node.mode) | mode
            node.ctime = now
        if changes.atime is not None or changes.mtime is not None:
            self._set_times(node, changes, now)
        if changes.ctime is not None:
            self._overlay.changed(node)
            node.ctime = kept_time(changes.ctime)
        return node

    def _require_changeable(self, node: Inode, changes: AttributeChanges, caller: Caller, handle: int | None) -> None:
        """Raises what Linux does where the caller may not make a change; nothing has been changed then."""
        if changes.size is not None:
            opened = self._files.get(handle) if handle is not None else None
            if opened is not None and opened.node is node:
                if not opened.writable:
                    raise posix_error(errno.EINVAL)
            elif node.is_regular:
                self._require(node, caller, WRITE)
        if caller.uid == 0:
            return
        owner = caller.uid == node.uid
        if changes.uid is not None and not (owner and changes.uid == node.uid):
            raise posix_error(errno.EPERM)
        gid = changes.gid
        if gid is not None and not (owner and (gid == node.gid or caller.is_in(gid))):
            raise posix_error(errno.EPERM)
        if changes.mode is not None:
            require_owner(node, caller)
        times = (changes.atime, changes.mtime)
        if times == (NOW, NOW):
            if not owner and not is_allowed(node, caller, WRITE):
                raise posix_error(errno.EACCES)
        elif times != (None, None):
            require_owner(node, caller)

    def _set_size(self, node: Inode, size: int, caller: Caller, now: int) -> None:
        if not node.is_regular:
            raise posix_error(errno.EISDIR if node.is_directory else errno.EINVAL)
        if size < 0:
            raise posix_error(errno.EINVAL)
        if size > MAX_SIZE:
            raise posix_error(errno.EFBIG)
        self._overlay.changed(node)
        if size < node.size and (node.allocated or node.extents is not None):
            self._extents(node)
            self.content.truncate(node, size)
            self._account(node)
        node.size = size
        node.mtime = node.ctime = now
        if caller.uid:
            self._drop_privileges(node, caller)

    def _set_owner(self, node: Inode, changes: AttributeChanges, caller: Caller, now: int) -> None:
        self._overlay.changed(node)
        if not node.is_directory:
            self._drop_privileges(node, caller)
        if changes.uid is not None:
            node.uid = changes.uid
        if changes.gid is not None:
            node.gid = changes.gid
        node.ctime = now

    def _set_times(self, node: Inode, changes: AttributeChanges, now: int) -> None:
        self._overlay.changed(node)
        if changes.atime is not None:
            node.atime = now if changes.atime is NOW else kept_time(changes.atime)
        if changes.mtime is not None:
            node.mtime = now if changes.mtime is NOW else kept_time(changes.mtime)
        node.ctime = now


def kept_time(moment: int) -> int:
    """The nearest time that a record can hold, as Linux does it: the years 1677 to 2262."""
    return moment if _FIRST <= moment <= _LAST else max(_FIRST, min(moment, _LAST))
