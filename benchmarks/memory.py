"""The memory of this process, as the kernel counts it, and that of the machine before it is needed."""

from __future__ import annotations

import mmap
from pathlib import Path

__all__ = ["back_free_memory", "forget_peak", "peak_bytes", "resident_bytes"]


def back_free_memory(size: int) -> None:
    """Takes ``size`` bytes of free memory and gives them back at once, so that they are there when work needs them.

    A virtual machine that reports its free memory has to ask its host for every page again, which was seen to take ten
    times as long as copying 512 MiB into the page cache does: whoever comes second, or does not reuse what it has just
    given up, would be measured with that.  Half of what is available is not exceeded.
    """
    size = min(size, _available() // 2) // mmap.PAGESIZE * mmap.PAGESIZE
    if size:
        with mmap.mmap(-1, size) as pages:
            pages[:: mmap.PAGESIZE] = b"\1" * (size // mmap.PAGESIZE)


def forget_peak() -> None:
    """Starts the peak of resident memory anew (proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # Not permitted everywhere; the peak then includes what came before.
        pass


def peak_bytes() -> int:
    """The peak of this process; `getrusage` would also report that of the process it was forked from."""
    return _status("VmHWM:")


def resident_bytes() -> int:
    """What this process has in memory now."""
    return _status("VmRSS:")


def _available() -> int:
    return _kibibytes("/proc/meminfo", "MemAvailable:")


def _status(name: str) -> int:
    return _kibibytes("/proc/self/status", name)


def _kibibytes(table: str, name: str) -> int:
    for line in Path(table).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0
