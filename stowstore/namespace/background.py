"""Threads that work in the background of a process that serves, and make way for the thread that does.

Linux gives each thread a priority of its own, which the threads it starts inherit.  Only a process that serves asks for
it: elsewhere whoever commits waits for just these threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

__all__ = ["is_behind", "make_way", "stay_behind"]

#: How much nicer the background is: a tenth of the processor is left to it where the foreground wants all.
_NICENESS: Final = 10

_wanted = threading.Event()


def stay_behind() -> None:
    """Has the threads of this process that call `make_way` from now on work at low priority."""
    _wanted.set()


def is_behind() -> bool:
    """Whether the background of this process stays behind."""
    return _wanted.is_set()


def make_way() -> None:
    """Says that the calling thread, and those it starts, work in the background; for good."""
    if _wanted.is_set() and sys.platform == "linux":
        with contextlib.suppress(OSError):
            niceness = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + _NICENESS, 19)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
