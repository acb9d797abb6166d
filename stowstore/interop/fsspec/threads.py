"""The threads that fetch ahead and side by side, shared by all file systems of a process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

__all__ = ["WORKERS", "executor"]

#: How many requests are under way at once for the bulk verbs and for reading ahead.
WORKERS: Final = 16

_running: dict[int, ThreadPoolExecutor] = {}


def executor() -> ThreadPoolExecutor:
    """The threads of this process, begun when first asked for; a forked child has none of its parent's."""
    found = _running.get(os.getpid())
    if found is None:
        # A pool has no threads before it is used, so the one that came second costs nothing.
        found = _running.setdefault(os.getpid(), ThreadPoolExecutor(WORKERS, thread_name_prefix="stow-fsspec"))
    return found
