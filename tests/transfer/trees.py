"""What makes two trees the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["snapshot"]


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
