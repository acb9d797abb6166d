"""Threads that must not wait: they are told that something would have to be fetched, instead of fetching it.

A thread that serves everybody, such as a mount's, calls `never_wait` once.  Code that is prepared for it asks
`must_not_wait` before it begins to change anything, and raises `WouldWait`; the thread then hands the whole operation
to another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["WouldWait", "must_not_wait", "never_wait"]


class WouldWait(Exception):
    """The operation needs something that is not in memory; nothing of it has been done.

    ``rest`` does what is left of it on another thread, where something has been done already.
    """

    def __init__(self, rest: Callable[[], Any] | None = None) -> None:
        super().__init__("this would have to wait")
        self.rest = rest


class _Patience(threading.local):
    never_waits = False


_patience = _Patience()


def never_wait() -> None:
    """Says that the calling thread must not wait for the network or for room."""
    _patience.never_waits = True


def must_not_wait() -> bool:
    """Whether the calling thread said so."""
    return _patience.never_waits
