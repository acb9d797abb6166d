"""Sizes as people write them: units are powers of 1024, whatever their spelling; arithmetic is exact."""

from __future__ import annotations

import re
from typing import Final

from stowstore.named.errors import BelowUsed, InvalidSize

__all__ = ["DEFAULT_SIZE", "MAX_SIZE", "exact_size", "format_size", "parse_size", "resized"]

#: What a volume gets that is created without a size.
DEFAULT_SIZE: Final = "1GB"

#: The largest size, in bytes.
MAX_SIZE: Final = 2**63 - 1

_NUMBER: Final = re.compile(r"[0-9.]*", re.ASCII)
_DIGITS: Final = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)", re.ASCII)
_LETTERS: Final = "KMGTP"
_UNITS: Final = {"": 1, "B": 1} | {
    letter + end: 1024**power for power, letter in enumerate(_LETTERS, 1) for end in ("", "B", "I", "IB")
}
_SHOWN: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

#: Digits beyond which a number cannot change the result: 2**63 has 19 before the point, 1/1024**5 has 50 behind it.
_WHOLE_DIGITS: Final = 19
_PARTIAL_DIGITS: Final = 60


def parse_size(text: str) -> int:
    """The bytes a text means: ``1GB``, ``512 MiB``, ``.5g`` or a plain number; fractions of a byte are cut off.

    Raises:
        InvalidSize: it is no size, not positive, or above 2**63 - 1; ``problem`` says which.
    """
    given = text.strip()
    if not given:
        raise InvalidSize("invalid size: it is empty", problem="empty", hint=_example())
    if given[0] in "+-":
        raise InvalidSize(
            f"invalid size: {_shown(text)} has a sign", problem="signed", hint="only resize takes +SIZE and -SIZE"
        )
    found = _NUMBER.match(given)
    number = "" if found is None else found.group()
    if _DIGITS.fullmatch(number) is None:
        raise InvalidSize(f"invalid size: {_shown(text)}", problem="bad_number", hint=_example())
    factor = _UNITS.get(given[len(number) :].lstrip(" \t").upper())
    if factor is None:
        raise InvalidSize(
            f"invalid size: {_shown(text)} has an unknown unit",
            problem="unknown_unit",
            hint="units are B, KB, MB, GB, TB, PB",
        )
    whole, _, part = number.partition(".")
    whole = whole.lstrip("0")
    if len(whole) > _WHOLE_DIGITS:
        raise _overflow(text)
    from fractions import Fraction

    size = int(Fraction(f"{whole or 0}.{part[:_PARTIAL_DIGITS] or 0}") * factor)
    if size > MAX_SIZE:
        raise _overflow(text)
    if size <= 0:
        raise InvalidSize(
            f"volume size must be positive: {_shown(text)}", problem="not_positive", hint="give one byte or more"
        )
    return size


def format_size(size: int) -> str:
    """Bytes as people read them, to a tenth."""
    value = float(size)
    for unit in _SHOWN[:-1]:
        # What would be shown as 1024.0 of one unit is 1.0 of the next.
        if value < (1024 if unit == "B" else 1023.95):
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_SHOWN[-1]}"


def exact_size(size: int) -> str:
    """Bytes as a text that `parse_size` reads as exactly as many, in the largest unit that goes: ``60MB``."""
    power = 0
    while size and size % 1024 == 0 and power < len(_LETTERS):
        size //= 1024
        power += 1
    return f"{size}{_LETTERS[power - 1]}B" if power else f"{size}B"


def resized(text: str, *, current: int, used: int) -> int:
    """The size a volume of ``current`` bytes is to have: ``2GB``, or by how much, ``+1GB`` or ``-512MB``.

    Raises:
        InvalidSize: it is none, or what is left would not be positive or too much.
        BelowUsed: the volume holds more; the message has both numbers.
    """
    given = text.strip()
    sign = given[:1] if given[:1] in ("+", "-") else ""
    size = parse_size(given[len(sign) :])
    if sign:
        size = current + size if sign == "+" else current - size
    if size > MAX_SIZE:
        raise _overflow(text)
    if size <= 0:
        raise InvalidSize(
            f"volume size must be positive: {format_size(current)} {_shown(text)} is {size} bytes",
            problem="not_positive",
            hint="take away less than the volume has",
        )
    if size < used:
        raise BelowUsed(
            f"the volume holds {used} bytes, and {size} are asked for",
            requested=size,
            used=used,
            hint=f"delete files first, or ask for {format_size(used)} or more",
        )
    return size


def _overflow(text: str) -> InvalidSize:
    return InvalidSize(f"invalid size: {_shown(text)} is above 8191PB", problem="overflow", hint="give less")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _example() -> str:
    return "write a number with a unit, such as 512MB or 1.5GB"
