"""Locks of the kernel on files: they end with the last process that has the descriptor, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["acquire", "is_free", "open_lock", "try_acquire"]


def open_lock(path: Path) -> int:
    """A descriptor to lock a file by, which only its user may open; made where it is missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_acquire(descriptor: int, *, shared: bool = False) -> bool:
    """Takes a lock if nobody is in the way."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def acquire(descriptor: int, *, shared: bool = False, patience: float) -> bool:
    """Takes a lock within so many seconds; whether it has."""
    end = time.monotonic() + patience
    pause = 0.001
    while not try_acquire(descriptor, shared=shared):
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.02)
    return True


def is_free(path: Path) -> bool:
    """Whether nobody has a lock on a file; whoever asks has it for a moment."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    with _closing(descriptor):
        return try_acquire(descriptor)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
