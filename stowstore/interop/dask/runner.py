"""A runner on the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from threading import Event
from typing import Any, Final, Generic, NamedTuple, NoReturn
from uuid import uuid4

from datastore import context
from datastore.errors import ConfigError, PermissionDenied, StoreError
from stowstore.interop.dask.errors import ClusterFailed
from stowstore.runners import Item, Opened, Place, Result

__all__ = ["DaskRunner"]

#: How often a wait notices that its context was cancelled, seconds.
_POLL: Final = 0.5

#: Pieces under way for each thread of the cluster: one that is slow must not starve the others.
_AHEAD: Final = 4

#: How many places a worker keeps open: those of the jobs it is at, and few of jobs that ended.
_KEPT_PLACES: Final = 4

_MISSING: Final = ": credentials and keys are not sent to workers, set them in the environment of each"

_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


#: How long the scheduler may take to say what has become of a piece that is done, seconds.
_ANSWER_SECONDS: Final = 60.0


class _Waiting(NamedTuple):
    """A piece that was handed out, and what is set when it is done, or never will be."""

    future: Any
    settled: Event


class DaskRunner(Generic[Opened]):
    """Runs pieces on workers; Dask repeats those whose worker is lost, and gives up a piece that ends several."""

    def __init__(self, client: Any, place: Place[Opened]) -> None:
        self._client = client
        self._place = place

    @property
    def slots(self) -> int:
        try:
            return max(1, int(sum(self._client.nthreads().values())))
        except (OSError, *_CANCELLED) as error:
            self._lost(error)

    def map(self, act: Callable[[Opened, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        most = max(8, _AHEAD * self.slots)
        waiting: deque[_Waiting] = deque()
        try:
            for item in items:
                waiting.append(self._submit(act, item))
                if len(waiting) >= most:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            if waiting:
                # Of a cluster that is gone nothing is left to be cancelled.
                with contextlib.suppress(Exception):
                    self._client.cancel([future for future, _ in waiting], force=True)

    def _submit(self, act: Callable[[Opened, Item], Result], item: Item) -> _Waiting:
        settled = Event()
        try:
            # Pieces are not pure: the files they read, and what workers may do, change between two runs.
            future = self._client.submit(run_piece, self._place, act, item, pure=False, key=_key(act))
            future.add_done_callback(lambda _: settled.set())
        except Exception as error:  # noqa: BLE001 - Dask tells a closed client by several kinds of errors
            self._lost(error)
        return _Waiting(future, settled)

    def _result(self, waiting: _Waiting) -> Any:
        from distributed import KilledWorker

        future, settled = waiting
        while not settled.wait(_POLL):
            context.check()
            if future.done() or self._client.status in ("closing", "closed"):
                break
        try:
            if future.status == "finished":
                return future.result(timeout=_ANSWER_SECONDS)
            failure = future.exception(timeout=_ANSWER_SECONDS) if future.status == "error" else None
        except (OSError, *_CANCELLED) as error:
            self._lost(error)
        if failure is None:
            self._lost(ConnectionError(f"a piece of the work is {future.status}"))
        if isinstance(failure, KilledWorker):
            raise ClusterFailed(
                "a piece of the work ended one worker after the other, and was given up",
                hint="look at the logs of the workers: memory limits end them most often; then run the command again",
            ) from failure
        if isinstance(failure, ImportError):
            raise ConfigError(
                f"a worker cannot import what the work needs: {failure}",
                hint="install the same release of stowstore[dask] on every worker",
            ) from failure
        raise failure

    def _lost(self, error: BaseException) -> NoReturn:
        raise ClusterFailed(
            f"the connection to the Dask scheduler was lost: {error}",
            hint="nothing half done is visible; run the command again, and it goes on from what was done",
        ) from error


def run_piece(place: Place[Opened], act: Callable[[Opened, Item], Result], item: Item) -> Result:
    """What a worker runs: one piece, on a place this process opens once."""
    try:
        opened = _opened(place)
    except StoreError as error:
        _explain(error, _MISSING)
        raise
    try:
        return act(opened, item)
    except StoreError as error:
        _explain(error, _MISSING if isinstance(error, PermissionDenied) else "")
        raise


@lru_cache(_KEPT_PLACES)
def _opened(place: Place[Any]) -> Any:
    return place.open()


def _explain(error: StoreError, more: str) -> None:
    """Says where an error comes from, and what may be missing there."""
    where = f"this was on the worker {_worker()}{more}"
    error.hint = f"{error.hint}; {where}" if error.hint else where


def _worker() -> str:
    from distributed import get_worker

    try:
        return f"{get_worker().address} ({socket.gethostname()})"
    except ValueError:
        return socket.gethostname()


def _key(act: Callable[..., Any]) -> str:
    """A name that people find again on the dashboard, and that nothing else has."""
    return f"stow-{getattr(act, '__name__', 'piece')}-{uuid4().hex}"
