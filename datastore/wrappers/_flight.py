"""Many threads that want one thing: one fetches it, the others wait for it."""

from __future__ import annotations

import copy
import threading
from types import TracebackType
from typing import Generic, Self, TypeVar

from datastore.context import wait_for
from datastore.errors import Cancelled, DeadlineExceeded, StoreError

__all__ = ["Flight"]

T = TypeVar("T")


class Flight(Generic[T]):
    """The work of a leader, who enters it as a context and calls `land`; others `join`."""

    __slots__ = ("_done", "_error", "_result")

    def __init__(self) -> None:
        self._done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    def land(self, result: T) -> None:
        """Hands the result to everybody who joined."""
        self._result = result

    def join(self) -> T | None:
        """Waits for the leader's result; None when it has none.

        Raises:
            DeadlineExceeded, Cancelled: the context of the caller is over.
        """
        wait_for(self._done)
        return self._result

    @property
    def failure(self) -> StoreError | None:
        """The leader's failure, as a copy to raise; None when it gave up for reasons of its own, its deadline say."""
        error = self._error
        if not isinstance(error, StoreError) or isinstance(error, (DeadlineExceeded, Cancelled)):
            return None
        # An exception belongs to the thread that raises it: its traceback grows there.
        mine = copy.copy(error)
        mine.__cause__ = error
        return mine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._error = error
        self._done.set()
