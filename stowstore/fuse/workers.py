"""Workers: threads for requests that wait, started as they are needed and kept for the next."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from datastore.context import CancelToken, cancellable

__all__ = ["Workers"]

_Job: TypeAlias = tuple[CancelToken, Callable[[], None]]

#: How long the end of the server waits for each worker, seconds; they are daemons, so none outlives the process.
_PATIENCE: Final = 10.0


class Workers:
    """Runs jobs, each under its own cancellation, at most so many at once; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, token: CancelToken, job: Callable[[], None]) -> None:
        """Has a job run soon; it must not raise."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=f"worker-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put((token, job))

    def close(self) -> None:
        """Waits until what was submitted is done, and ends the threads."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            token, work = job
            with cancellable(token):
                work()
            with self._lock:
                self._idle += 1
