"""What the host has room for."""

from __future__ import annotations

import os
from pathlib import Path

from stowstore.named.errors import NoSpace
from stowstore.named.sizes import format_size

__all__ = ["available_memory", "require_disk", "require_memory"]

_MEMORY = Path("/proc/meminfo")


def available_memory() -> int:
    """Bytes of RAM that could be used without swapping, as the kernel reckons."""
    for line in _MEMORY.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return 0


def require_memory(size: int) -> None:
    """Refuses what does not fit into RAM.

    Raises:
        NoSpace: it does not; the message has both numbers.
    """
    there = available_memory()
    if size > there:
        raise NoSpace(
            f"No space left on device: {format_size(size)} of memory are asked for, {format_size(there)} are available",
            hint="ask for less, or for a volume of type filesystem",
        )


def require_disk(where: Path, size: int) -> None:
    """Refuses what the disk below a directory has no room for.

    Raises:
        NoSpace: it has not; the message has both numbers.
    """
    found = os.statvfs(where)
    there = found.f_bavail * found.f_frsize
    if size > there:
        raise NoSpace(
            f"No space left on device: {format_size(size)} are asked for, {where} has {format_size(there)}",
            hint="ask for less, or free some room first",
        )
