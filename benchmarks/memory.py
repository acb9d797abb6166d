"""The memory of this process, as the kernel counts it, and that of the machine before it is needed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["back_free_memory", "forget_peak", "peak_bytes", "resident_bytes"]

_PIECE = 1 << 20


def back_free_memory(size: int, directory: Path) -> None:
    """Makes sure of ``size`` bytes of memory for files in a directory, so that work which needs them finds them.

    A virtual machine that reports its free memory has to ask its host again for each page, which was seen to take ten
    times as long as copying 512 MiB into the page cache does: whoever comes second, or keeps what it has written, would
    be measured with that.  The pages of a file that is removed are the next to be used again.
    """
    piece = bytes(_PIECE)
    scratch = directory / "memory"
    with scratch.open("wb", buffering=0) as file:
        for _ in range(0, size, _PIECE):
            file.write(piece)
    scratch.unlink()


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
