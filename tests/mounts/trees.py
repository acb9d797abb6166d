"""Trees compared, as two sides look that were told the same.

`python -m tests.mounts.trees LOCAL MOUNTED` says what is not the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.mounts.behaviours.calling import about

__all__ = ["snapshot", "unlike"]


def unlike(local: Path, mounted: Path) -> dict[str, list[Any]]:
    """What is not the same of which path, told shortly."""
    wanted, found = snapshot(local), snapshot(mounted)
    told = {path: _different(wanted.get(path), found.get(path)) for path in wanted | found}
    return {path: different for path, different in told.items() if different}


def snapshot(top: Path) -> dict[str, Any]:
    """Every path below a directory: attributes, times that were set, content or target, twin, extended attributes."""
    found: dict[str, Any] = {}
    twins: dict[int, str] = {}
    for here, directories, files in sorted(os.walk(top)):
        for name in sorted((*directories, *files)):
            path = os.path.join(here, name)
            short = os.path.relpath(path, top)
            status = os.lstat(path)
            more: Any = None
            if os.path.islink(path):
                more = os.readlink(path)
            elif os.path.isfile(path) and status.st_size < 1 << 30:
                with open(path, "rb") as file:
                    more = file.read()
            twin = None if os.path.isdir(path) else twins.setdefault(status.st_ino, short)
            set_before = status.st_mtime_ns if status.st_mtime_ns < 10**18 else None
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in sorted(os.listxattr(path, follow_symlinks=False))
            }
            found[short] = (about(path), set_before, more, twin, xattrs)
    return found


def _different(wanted: Any, found: Any) -> list[Any]:
    if wanted is None or found is None:
        return [] if wanted is found else [wanted, found]
    told: list[Any] = []
    for left, right in zip(wanted, found, strict=True):
        if left != right and isinstance(left, bytes) and isinstance(right, bytes):
            places = [at for at, both in enumerate(zip(left, right, strict=False)) if both[0] != both[1]]
            ends = [(at, left[at], right[at]) for at in (places[0], places[-1])] if places else []
            told.append((len(left), len(right), len(places), ends))
        elif left != right:
            told.append((left, right))
    return told


if __name__ == "__main__":
    different = unlike(*map(Path, sys.argv[1:]))
    sys.exit("\n".join(f"{path}: {told}" for path, told in different.items()) or None)
