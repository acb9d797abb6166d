"""How values read: sizes, moments, and text from the store with what could deceive made visible."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

__all__ = ["ago", "count_text", "day_text", "moment_text", "ratio_text", "shortened", "size_text", "visible"]

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size_text(size: float) -> str:
    """A number of bytes: ``0 B``, ``1.5 GiB``."""
    value = float(size)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def count_text(count: int, one: str, many: str | None = None) -> str:
    """``1 version``, ``12,000 versions``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def ratio_text(larger: int, smaller: int) -> str:
    """How many times as much: ``3.2 to 1``."""
    return f"{larger / smaller:.1f} to 1" if smaller else "none"


def moment_text(moment: datetime | None) -> str:
    """A moment to the minute; in UTC, as the page may be read anywhere."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M")


def day_text(moment: datetime, span: timedelta) -> str:
    """A moment as an axis over so long a time needs it."""
    if span < timedelta(minutes=10):
        return moment.strftime("%H:%M:%S")
    if span < timedelta(days=2):
        return moment.strftime("%m-%d %H:%M")
    return moment.strftime("%Y-%m-%d" if span < timedelta(days=1000) else "%Y-%m")


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago a moment was, in one unit: ``3 days ago``."""
    if moment is None:
        return ""
    seconds = (now - moment).total_seconds()
    if seconds < 60:
        return "just now"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{count_text(int(seconds // length), unit)} ago"
    raise AssertionError("unreachable")


def visible(text: str) -> str:
    """Text in one line with what cannot be seen, or turns the direction of what follows, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """Text that is cut off where it is longer than so many letters."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"
