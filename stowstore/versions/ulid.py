"""ULIDs: 128-bit names that sort by the time they were made (github.com/ulid/spec)."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

__all__ = ["is_ulid", "new_ulid", "ulid_bytes", "ulid_seconds", "ulid_text"]

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}

_lock = threading.Lock()
_last = 0


def ulid_bytes() -> bytes:
    """Sixteen bytes: milliseconds since 1970 in the first six, randomness behind; ascending within a process."""
    global _last  # noqa: PLW0603 - names made in one millisecond must ascend too
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    with _lock:
        if value <= _last:
            value = _last + 1
        _last = value
    return value.to_bytes(16, "big")


def new_ulid() -> str:
    """The same as 26 letters of Crockford's base 32."""
    return ulid_text(ulid_bytes())


def ulid_text(raw: bytes) -> str:
    """Sixteen bytes as 26 letters; the first is never above 7."""
    value = int.from_bytes(raw, "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    """Whether the text is one, in its canonical spelling."""
    return len(text) == 26 and text[0] in "01234567" and all(letter in _VALUES for letter in text)


def ulid_seconds(text: str) -> float:
    """When it was made, in seconds since 1970."""
    value = 0
    for letter in text[:10]:
        value = value << 5 | _VALUES[letter]
    return value / 1000
