"""The memory of this process, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["forget_peak", "peak_bytes", "resident_bytes"]


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


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0
