"""Durations as people and upstream's configuration write them: ``"5s"``, ``"1h30m"``, ``"100ms"``."""

from __future__ import annotations

import re
from fractions import Fraction

from datastore.errors import ConfigError

__all__ = ["parse_duration"]

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+")


def parse_duration(value: object) -> int:
    """Nanoseconds of a duration in Go's syntax (``time.ParseDuration``); a bare number is nanoseconds, "" is 0.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value in ("", "0"):
            return 0
        if _WHOLE.fullmatch(value):
            total = sum(Fraction(number) * _NANOSECONDS[unit] for number, unit in _PART.findall(value))
            return int(-total if value.startswith("-") else total)
    raise ConfigError(f"bad_duration: {value!r} is no duration", hint='write "5s", "30m" or "1h30m"')
