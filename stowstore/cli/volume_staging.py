"""Where commands stage what they bring into a volume: a directory of their own, gone with them however they end.

A command that is killed cannot clean up, so the next one does: a directory belongs to a command while that holds a
lock on it, and whoever finds one of this user's unlocked removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["staging_directory"]

_PREFIX = "stowstore-staging-"


@contextmanager
def staging_directory() -> Iterator[Path]:
    """A new directory below ``TMPDIR``, removed at the end; those that killed commands have left are removed first."""
    _sweep(Path(tempfile.gettempdir()))
    path, lock = _locked()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _locked() -> tuple[Path, int]:
    """A new directory and its lock; made again where a sweep came between the two."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _open(path)
        if lock is None:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            # A file system without locks: nobody gets one there, so nothing is swept either.
            return path, lock
        if os.fstat(lock).st_nlink:
            return path, lock
        os.close(lock)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        lock = _open(path)
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            # Somebody works in it.
            continue
        finally:
            os.close(lock)


def _open(path: Path) -> int | None:
    """A directory to be locked; None when it is gone, or none of ours."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
