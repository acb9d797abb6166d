"""POSIX errors, as the kernel words them."""

from __future__ import annotations

import os

__all__ = ["posix_error"]


def posix_error(code: int, detail: str = "") -> OSError:
    """An `OSError` (of the matching subclass) with the system's text, and what else is worth knowing."""
    text = os.strerror(code)
    return OSError(code, f"{text}: {detail}" if detail else text)
