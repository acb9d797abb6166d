"""Where the pieces of a bulk job run: in threads of this process, or wherever else a `Runner` takes them.

A bulk verb is written as a function of the module level, which gets what it works on and one small item, and returns
a small result.  What it works on is opened where it runs: a `Place` says what, in plain data without secrets.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Generic, Protocol, TypeVar

from datastore.errors import ConfigError

__all__ = ["Cluster", "Place", "Runner", "ThreadRunner", "require_same_directory"]

Opened = TypeVar("Opened")
Opened_co = TypeVar("Opened_co", covariant=True)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Place(Hashable, Protocol[Opened_co]):
    """What the pieces of one job work on: hashable, and small enough to be sent with each of them.

    A process opens equal places once; so a place that stands for one run of a job says which run it is.
    """

    def open(self) -> Opened_co:
        """Opens it in this process, with the credentials this process has.

        Raises:
            StoreError: it cannot be opened here.
        """
        ...


class Runner(Protocol[Opened_co]):
    """Does one thing to many items."""

    @property
    def slots(self) -> int:
        """How many pieces can run at once: what a job is divided by."""
        ...

    def map(self, act: Callable[[Opened_co, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results of calling ``act`` with each item, in the order of the items.

        A few items are taken ahead of the results.  A piece may run more than once where a worker is lost, so it has
        to come to the same again.  The first error is raised, and what has not begun then never does; so it is when
        the iterator is closed.

        Raises:
            StoreError, OSError: what ``act`` raised, or that the runner itself has failed.
        """
        ...


class Cluster(Protocol):
    """Makes runners for places."""

    def at(self, place: Place[Opened]) -> Runner[Opened]:
        """A runner whose pieces work on a place, opened by each process that needs it."""
        ...


class ThreadRunner(Generic[Opened]):
    """Runs pieces in threads of this process, on what is open already; deadlines of the caller hold in them."""

    def __init__(self, opened: Opened, slots: int) -> None:
        self._opened = opened
        self._slots = slots

    @property
    def slots(self) -> int:
        return self._slots

    def map(self, act: Callable[[Opened, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        with ThreadPoolExecutor(self._slots, "stowstore-run") as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for item in items:
                    waiting.append(pool.submit(copy_context().run, act, self._opened, item))
                    if len(waiting) >= 4 * self._slots:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def require_same_directory(path: str, ino: int, mtime_ns: int) -> None:
    """Refuses a directory that is not the one the client sees under this path.

    Raises:
        ConfigError: it is not there, or another one.
    """
    hint = "workers need the directory under the same path: share its file system, or use local workers"
    try:
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(f"a worker cannot see {path}: {error.strerror}", hint=hint) from error
    # Some network file systems number inodes on each machine, and times may be seen late: either tells.
    if status.st_ino != ino and status.st_mtime_ns != mtime_ns:
        raise ConfigError(f"a worker sees another directory at {path}", hint=hint)
