"""Work that asks the store: in threads, cancelled for good, answered on the thread of the screen."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from textual.app import App

from datastore.context import CancelToken, cancellable
from datastore.errors import Cancelled, StoreError

__all__ = ["Background", "Job"]

T = TypeVar("T")


class Job:
    """One piece of work, as it sees itself."""

    def __init__(self, app: App[Any], token: CancelToken) -> None:
        self._app = app
        self._token = token

    def check(self) -> None:
        """Ends the work if nobody wants it any more.

        Raises:
            Cancelled: nobody does.
        """
        if self._token.cancelled:
            raise Cancelled("the operation was cancelled")

    def tell(self, hear: Callable[..., None], *values: Any) -> None:
        """Calls a function on the thread of the screen, soon; never once the work was cancelled."""

        def heard() -> None:
            if not self._token.cancelled:
                hear(*values)

        self._app.call_later(heard)


class Background:
    """Runs work in threads, of each group the newest only.  Used on the thread of the screen."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._tokens: dict[Hashable, CancelToken] = {}

    def start(
        self,
        group: Hashable,
        work: Callable[[Job], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Begins; what the group was at is cancelled.  ``done`` or ``failed`` is called unless this is cancelled."""
        self.cancel(group)
        token = self._tokens[group] = CancelToken()
        job = Job(self._app, token)

        def run() -> None:
            try:
                with cancellable(token):
                    result = work(job)
            except Cancelled:
                return
            except (StoreError, OSError, ValueError, struct.error) as error:
                # A hostile index may hold numbers that no key can.
                job.tell(ended)
                job.tell(failed, error)
            else:
                job.tell(ended)
                job.tell(done, result)

        def ended() -> None:
            if self._tokens.get(group) is token:
                del self._tokens[group]

        self._app.run_worker(run, thread=True)

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._tokens)

    def is_running(self, group: Hashable) -> bool:
        """Whether the group is at something."""
        return group in self._tokens

    def cancel(self, group: Hashable) -> None:
        """Ends what a group is at, a request in flight included."""
        token = self._tokens.pop(group, None)
        if token is not None:
            token.cancel()

    def cancel_all(self) -> None:
        """Ends everything."""
        for group in list(self._tokens):
            self.cancel(group)
