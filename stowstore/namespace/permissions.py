"""Who may do what: mode bits, ownership, sticky directories, setuid and setgid, as Linux decides them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from stowstore.namespace.errors import posix_error
from stowstore.namespace.inodes import Attributes, Inode

__all__ = [
    "EXECUTE",
    "READ",
    "ROOT",
    "WRITE",
    "Caller",
    "PermissionChecks",
    "is_allowed",
    "mode_in_directory",
    "require_owner",
    "require_unsticky",
    "without_privileges",
]

READ: Final = os.R_OK
WRITE: Final = os.W_OK
EXECUTE: Final = os.X_OK


def _group_set(groups: Iterable[int]) -> frozenset[int]:
    return frozenset(groups)


@frozen(kw_only=True)
class Caller:
    """On whose behalf an operation runs.  The user 0 has every capability."""

    uid: int
    gid: int
    groups: frozenset[int] = field(default=frozenset(), converter=_group_set)
    umask: int = 0o022

    def is_in(self, gid: int) -> bool:
        """Whether a group is one of the caller's."""
        return gid == self.gid or gid in self.groups


#: The superuser, who creates with exactly the mode asked for.
ROOT: Final = Caller(uid=0, gid=0, umask=0)


class PermissionChecks(StrEnum):
    """Who checks permissions.

    A mount with ``default_permissions`` leaves that to the kernel, which knows the caller's supplementary groups;
    requests do not carry them.
    """

    HERE = "here"
    KERNEL = "kernel"


def is_allowed(node: Inode, caller: Caller, mask: int) -> bool:
    """Whether the mode bits grant all of a mask of `READ`, `WRITE` and `EXECUTE`."""
    mode = node.mode
    uid = caller.uid
    if uid == 0:
        return not mask & EXECUTE or bool(mode & 0o111) or stat.S_ISDIR(mode)
    if uid == node.uid:
        mode >>= 6
    elif caller.is_in(node.gid):
        mode >>= 3
    return not mask & ~mode & 7


def require_owner(node: Inode, caller: Caller) -> None:
    """Raises EPERM unless the caller owns the inode or is the superuser."""
    if caller.uid not in (0, node.uid):
        raise posix_error(errno.EPERM)


def require_unsticky(directory: Inode, node: Inode, caller: Caller) -> None:
    """Raises EPERM where a sticky directory keeps others from removing an entry."""
    if directory.mode & stat.S_ISVTX and caller.uid not in (0, node.uid, directory.uid):
        raise posix_error(errno.EPERM)


def mode_in_directory(directory: Inode, mode: int, caller: Caller) -> tuple[int, int]:
    """The mode and the group of what a caller creates in a directory; in a setgid directory it inherits."""
    if not directory.mode & stat.S_ISGID:
        return mode, caller.gid
    if stat.S_ISDIR(mode):
        mode |= stat.S_ISGID
    elif mode & stat.S_ISGID and mode & stat.S_IXGRP and caller.uid and not caller.is_in(directory.gid):
        mode &= ~stat.S_ISGID
    return mode, directory.gid


def without_privileges(node: Inode | Attributes, caller: Caller) -> int:
    """The mode after somebody else's hands were on the content or the ownership: setuid and setgid are taken away.

    Setgid without group execution stands for mandatory locking and stays with members of the group.
    """
    mode = node.mode & ~stat.S_ISUID
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or (caller.uid and not caller.is_in(node.gid))):
        mode &= ~stat.S_ISGID
    return mode
