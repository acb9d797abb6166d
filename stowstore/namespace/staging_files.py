"""The files of a staging area, and the directory that belongs to one area at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from datastore.errors import ConfigError

__all__ = ["anonymous_file", "claim_directory", "made_files", "segment_file", "sums_file", "sync_directory"]


def segment_file(directory: Path, name: bytes) -> Path:
    """Where a segment of that name lies."""
    return directory / f"{name.hex()}.segment"


def sums_file(segment: Path) -> Path:
    """Where the checksums of a segment lie."""
    return segment.with_suffix(".sums")


def made_files(segment: Path) -> tuple[int, int]:
    """Descriptors of a new segment and of its checksums; both are made, or neither."""
    descriptor = os.open(segment, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND
        return descriptor, os.open(sums_file(segment), flags, 0o600)
    except OSError:
        os.close(descriptor)
        segment.unlink()
        raise


def anonymous_file() -> int:
    """A descriptor of a file that has no name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stowstore-staging", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def claim_directory(directory: Path) -> int:
    """A descriptor that keeps the directory, until it is closed, from every other area.

    Raises:
        ConfigError: another one has it.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"the staging area {directory} is used by another session", hint="give every session a cache_dir of its own"
        ) from error
    return descriptor


def sync_directory(directory: Path) -> None:
    """Returns when the disk has the names of what was made in a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
