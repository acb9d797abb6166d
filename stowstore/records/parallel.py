"""Doing one thing to many items with a few threads."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from queue import SimpleQueue
from typing import TypeVar

from attrs import frozen

__all__ = ["Progress", "TransferState", "each"]

T = TypeVar("T")
R = TypeVar("R")


@frozen(kw_only=True)
class TransferState:
    """How far a transfer is: files and bytes that were moved or found in place already, and of how many."""

    uuid: str
    files: int
    total_files: int
    bytes: int
    total_bytes: int
    moved_files: int
    moved_bytes: int


#: Told now and then how far a transfer is; called from the thread that began it.
Progress = Callable[[TransferState], None]


class _Ended:
    """What a worker says last."""


def each(items: Iterable[T], act: Callable[[T], R], parallel: int) -> Iterator[R]:
    """The results of calling ``act`` with each item, as they come, from ``parallel`` threads.

    Nothing is taken from ``items`` ahead.  The first error stops the others after the item they are at, and is raised
    once they have; so does closing the iterator.  Deadlines and tokens of the calling context hold in the threads.
    """
    if isinstance(items, Sized) and not len(items):
        return
    results: SimpleQueue[R | _Ended | BaseException] = SimpleQueue()
    source, lock, stopped = iter(items), threading.Lock(), threading.Event()
    ended = _Ended()

    def work() -> None:
        try:
            while not stopped.is_set():
                with lock:
                    try:
                        item = next(source)
                    except StopIteration:
                        break
                results.put(act(item))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            stopped.set()
            results.put(error)
        finally:
            results.put(ended)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name="stow-records", daemon=True)
        for _ in range(max(1, parallel))
    ]
    failure: BaseException | None = None
    running = 0
    try:
        for thread in threads:
            thread.start()
            running += 1
        while running:
            result = results.get()
            if isinstance(result, _Ended):
                running -= 1
            elif isinstance(result, BaseException):
                failure = failure or result
            elif failure is None:
                yield result
    finally:
        stopped.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failure is not None:
        raise failure
