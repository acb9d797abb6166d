"""What makes two trees the same."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

__all__ = ["attributes", "require_attributes", "snapshot"]


def snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    """Names, kinds, modes, owners, times, links and contents of all that lies in a directory."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, directories, names in os.walk(directory):
        for name in [*directories, *names]:
            path = Path(parent, name)
            status = path.lstat()
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            found[os.path.relpath(path, directory)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                links,
                content,
            )
    return found


def attributes(directory: Path) -> dict[str, dict[bytes, bytes]]:
    """Names and extended attributes of all that lies in a directory."""
    return {
        os.path.relpath(path, directory): {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        for path in directory.rglob("*")
    }


def require_attributes(directory: Path) -> None:
    """Skips where the file system of a directory keeps no extended attributes, but in CI."""
    try:
        os.setxattr(directory, "user.probe", b"")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or os.environ.get("CI"):
            raise
        pytest.skip("the temporary directory's file system keeps no extended attributes")
    os.removexattr(directory, "user.probe")
