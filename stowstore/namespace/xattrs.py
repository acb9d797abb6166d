"""Extended attributes, with the rules of their four classes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final

from stowstore.namespace.errors import posix_error
from stowstore.namespace.files import FileOperations
from stowstore.namespace.inodes import Inode
from stowstore.namespace.permissions import READ, WRITE, Caller

__all__ = ["XattrOperations", "require_xattr"]

_NAME_BYTES: Final = 255
_VALUE_BYTES: Final = 65536
_LIST_BYTES: Final = 65536

_USER: Final = b"user."
_TRUSTED: Final = b"trusted."
_SECURITY: Final = b"security."
_CLASSES: Final = (_USER, _TRUSTED, _SECURITY)

#: Classes that the mode bits say nothing about.
_UNCHECKED: Final = (_SECURITY, b"system.")


class XattrOperations(FileOperations):
    """Operations on extended attributes.

    ``user.`` follows the mode bits and exists on files and directories only, ``trusted.`` is the superuser's alone,
    ``security.`` everybody reads and the superuser writes; ``system.`` (access control lists) is not supported.
    """

    def getxattr(self, ino: int, name: bytes, caller: Caller) -> bytes:
        """The value of an attribute."""
        self._warm_xattrs(ino)
        with self._lock:
            node = self._node(ino)
            if name == b"security.capability" and not node.has_xattrs:
                raise posix_error(errno.ENODATA)
            self._require_readable(node, name, caller)
            value = self._xattrs(node).get(name)
        if value is None:
            raise posix_error(errno.ENODATA)
        return value

    def listxattr(self, ino: int, caller: Caller) -> list[bytes]:
        """The names of the attributes the caller may know of."""
        self._warm_xattrs(ino)
        with self._lock:
            node = self._node(ino)
            names = sorted(self._xattrs(node)) if node.has_xattrs else []
        if caller.uid:
            names = [name for name in names if not name.startswith(_TRUSTED)]
        return names

    def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller, flags: int = 0) -> None:
        """Sets an attribute; with ``os.XATTR_CREATE`` a new one only, with ``os.XATTR_REPLACE`` an existing one."""
        if flags & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
            raise posix_error(errno.EINVAL)
        if len(value) > _VALUE_BYTES:
            raise posix_error(errno.E2BIG)
        self._warm_xattrs(ino)
        with self._lock:
            node = self._node(ino)
            values = self._changeable(node, name, caller)
            if flags & os.XATTR_CREATE and name in values:
                raise posix_error(errno.EEXIST)
            if flags & os.XATTR_REPLACE and name not in values:
                raise posix_error(errno.ENODATA)
            _require_room(name, values)
            self._overlay.changed(node)
            self._store_xattr(node, name, bytes(value))
            node.ctime = self._now()

    def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        """Removes an attribute."""
        self._warm_xattrs(ino)
        with self._lock:
            node = self._node(ino)
            if name not in self._changeable(node, name, caller):
                raise posix_error(errno.ENODATA)
            self._overlay.changed(node)
            self._store_xattr(node, name, None)
            node.ctime = self._now()

    def _require_readable(self, node: Inode, name: bytes, caller: Caller) -> None:
        _require_length(name)
        if name.startswith(_TRUSTED):
            if caller.uid:
                raise posix_error(errno.ENODATA)
        elif not name.startswith(_UNCHECKED):
            if name.startswith(_USER) and not (node.is_regular or node.is_directory):
                raise posix_error(errno.ENODATA)
            self._require(node, caller, READ)
        _require_known(name)

    def _changeable(self, node: Inode, name: bytes, caller: Caller) -> dict[bytes, bytes]:
        """The attributes of an inode, one of which the caller may change."""
        _require_length(name)
        self._require_writable()
        if name.startswith(_TRUSTED):
            if caller.uid:
                raise posix_error(errno.EPERM)
        elif not name.startswith(_UNCHECKED):
            if name.startswith(_USER):
                if not (node.is_regular or node.is_directory):
                    raise posix_error(errno.EPERM)
                if node.is_directory and node.mode & stat.S_ISVTX and caller.uid not in (0, node.uid):
                    raise posix_error(errno.EPERM)
            self._require(node, caller, WRITE)
        _require_known(name)
        if name.startswith(_SECURITY) and caller.uid:
            raise posix_error(errno.EPERM)
        return self._xattrs(node)


def require_xattr(mode: int, name: bytes, value: bytes, others: Mapping[bytes, bytes]) -> None:
    """Raises what the superuser gets who sets an attribute of an inode of a mode that has others.

    Raises:
        OSError: EOPNOTSUPP or EPERM for what such inodes do not have; ERANGE, EINVAL, E2BIG or ENOSPC out of bounds.
    """
    _require_length(name)
    if name.startswith(_USER) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise posix_error(errno.EPERM)
    _require_known(name)
    if len(value) > _VALUE_BYTES:
        raise posix_error(errno.E2BIG, "a value has at most 64 KiB")
    _require_room(name, others)


def _require_length(name: bytes) -> None:
    if not 0 < len(name) <= _NAME_BYTES:
        raise posix_error(errno.ERANGE, "a name has 1 to 255 bytes")


def _require_known(name: bytes) -> None:
    if not name.startswith(_CLASSES):
        raise posix_error(errno.EOPNOTSUPP, "names begin with user., trusted. or security.")
    if name in _CLASSES or b"\0" in name:
        raise posix_error(errno.EINVAL, "a name goes on after its class, without a NUL")


def _require_room(name: bytes, others: Mapping[bytes, bytes]) -> None:
    if name not in others and sum(map(len, others)) + len(others) + len(name) + 1 > _LIST_BYTES:
        raise posix_error(errno.ENOSPC, "an inode keeps 64 KiB of attribute names")
