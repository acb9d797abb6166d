"""How names, sizes and times are shown to people."""

from __future__ import annotations

import os
from datetime import datetime

__all__ = ["printable", "size_text", "time_text"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(name: str | bytes) -> str:
    """A name as it may be shown: what is no UTF-8 or would drive a terminal is escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size_text(size: float) -> str:
    """A number of bytes as people read it."""
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def time_text(moment: datetime | None) -> str:
    """A moment in local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""
