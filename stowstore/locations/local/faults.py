"""Errors of the operating system in the words of the taxonomy."""

from __future__ import annotations

import errno

from datastore.errors import (
    InvalidReference,
    LimitExceeded,
    NotSupported,
    PermissionDenied,
    StoreError,
    TransientError,
    from_os_error,
)

__all__ = ["nested", "translate"]


def translate(error: OSError) -> StoreError:
    """The error of the taxonomy for one of the file system; raise it ``from`` the original."""
    code = error.errno
    if code == errno.ENAMETOOLONG:
        return InvalidReference(
            "a segment of the key is longer than the file system takes (255 bytes on most)",
            reason="segment_too_long",
            hint="shorten the segment, or divide it by slashes",
        )
    if code == errno.EILSEQ:
        return InvalidReference("the file system does not take the characters of this name", reason="bad_name")
    if code == errno.ENOSPC:
        return StoreError(
            "no space is left on the file system; nothing was written", hint="free space or inodes, then write again"
        )
    if code == errno.EDQUOT:
        return StoreError("the disk quota is used up; nothing was written", hint="delete objects or raise the quota")
    if code == errno.EFBIG:
        return LimitExceeded("the object is larger than the file system or the process limit (ulimit -f) allows")
    if code in (errno.EMFILE, errno.ENFILE):
        return TransientError("too many files are open", hint="close streams, or raise ulimit -n")
    if code == errno.EROFS:
        return PermissionDenied("the file system is mounted read-only")
    if code == errno.ELOOP:
        return PermissionDenied(
            "the path leads through a symbolic link, which is never followed below the root",
            hint="put a directory there, or mount one (mount --bind)",
        )
    if code == errno.EXDEV:
        return NotSupported(
            "the container lies on another file system than the root, so nothing can be renamed into it",
            hint="make the mounted directory's parent the root of a location of its own",
        )
    return from_os_error(error)


def nested(error: OSError) -> StoreError:
    """The same for a write, where a path that runs through a file or onto a directory is a clash of two keys."""
    if isinstance(error, NotADirectoryError):
        return NotSupported(
            "a part of the key before a slash is an object itself: a file cannot also be a directory",
            hint="a location of kind 'file' cannot hold both 'a' and 'a/b'; use another key",
        )
    if isinstance(error, IsADirectoryError):
        return NotSupported(
            "there are objects below this key: a directory cannot also be a file",
            hint="a location of kind 'file' cannot hold both 'a' and 'a/b'; use another key",
        )
    return translate(error)
