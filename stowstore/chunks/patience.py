"""Threads that must not wait: they are told that something would have to be fetched, instead of fetching it.

A thread that serves everybody, such as a mount's, serves under `never_waiting`.  Code that is prepared for it asks
`must_not_wait` before it begins to change anything, and raises `WouldWait`; the thread then hands the whole operation
to another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["WouldWait", "must_not_wait", "never_waiting"]


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


@contextmanager
def never_waiting() -> Iterator[None]:
    """Says that the calling thread must not wait for the network or for room, until the block ends."""
    before = _patience.never_waits
    _patience.never_waits = True
    try:
        yield
    finally:
        _patience.never_waits = before


def must_not_wait() -> bool:
    """Whether the calling thread said so."""
    return _patience.never_waits
