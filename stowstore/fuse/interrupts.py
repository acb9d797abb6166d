"""Requests that workers have, and which of them are given up when their callers are interrupted.

The kernel tells of every signal, and a read or fsync that answers EINTR to one that its caller handles breaks programs
that work on disks, where only who is killed gives up.  So it is looked up whether the caller was killed; the kernel
tells only once, so who was not is looked at again from time to time.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Final

from datastore.context import CancelToken

__all__ = ["Interrupts"]

#: How often callers that were interrupted are looked at again, seconds.
_INTERVAL: Final = 0.1

_KILLED: Final = 1 << (signal.SIGKILL - 1)


class Interrupts:
    """The requests that are under way, by their numbers; thread-safe."""

    def __init__(self) -> None:
        self._requests: dict[int, tuple[CancelToken, int]] = {}
        self._interrupted: set[int] = set()
        self._watched = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._requests)

    def under_way(self) -> frozenset[int]:
        """The numbers of all of them."""
        return frozenset(self._requests)

    def begin(self, unique: int, thread: int) -> CancelToken:
        """Takes note of a request and of the thread that makes it, and gives what is cancelled when it is given up."""
        token = CancelToken()
        self._requests[unique] = token, thread
        return token

    def finish(self, unique: int) -> None:
        """Forgets a request."""
        self._requests.pop(unique, None)

    def interrupt(self, unique: int) -> None:
        """Gives a request up if its caller was killed, now or later."""
        if self._given_up(unique):
            return
        with self._lock:
            self._interrupted.add(unique)
            if self._watched:
                return
            self._watched = True
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            with self._lock:
                interrupted = list(self._interrupted)
            given_up = {unique for unique in interrupted if self._given_up(unique)}
            with self._lock:
                self._interrupted -= given_up
                if not self._interrupted:
                    self._watched = False
                    return

    def _given_up(self, unique: int) -> bool:
        """Whether nothing is left to be done about a request that was interrupted."""
        found = self._requests.get(unique)
        if found is None:
            return True
        token, thread = found
        if not _was_killed(thread):
            return False
        token.cancel()
        return True


def _was_killed(thread: int) -> bool:
    """Whether a thread has SIGKILL pending, which every signal becomes that ends a process; or cannot be seen."""
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    pending = [int(line.split()[1], 16) for line in lines if line.startswith((b"SigPnd:", b"ShdPnd:"))]
    return any(signals & _KILLED for signals in pending)
