"""One run of a task: who makes its versions, and what becomes of the volumes it opens."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from contextvars import Token
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from datastore.errors import StoreError
from datastore.events import get_logger
from stowstore.interop.tasks.publishing import published
from stowstore.volumes.lineage import Producer, reset_producer, set_producer
from stowstore.volumes.registry import Key, registry
from stowstore.volumes.rw import RWVolume
from stowstore.volumes.volume import Volume
from stowstore.volumes.watching import watching

__all__ = ["Leftovers", "TaskScope", "running", "task"]

F = TypeVar("F", bound=Callable[..., Any])

_log = get_logger(component="tasks")


class Leftovers(StrEnum):
    """What becomes of changes that a task has neither committed nor returned."""

    #: They are gone: the next attempt begins with the newest version.
    DISCARD = "discard"
    #: They stay in the journal of this machine, and the next to open the volume here goes on with them.
    KEEP = "keep"


class TaskScope:
    """One run of a task, as a context manager, ``with`` or ``async with``.

    Versions published in it are ``produced_by`` the producer, which is asked for when the task begins.  At its end,
    failed or not, every volume that it has opened or mounted is closed: mounts go, leases are given back, and nothing
    is published that was not by then.  What was open before belongs to somebody else and stays.  Threads that the task
    starts count if they run in a copy of its context, as those of `asyncio.to_thread`.

    Used once, by one task.
    """

    def __init__(
        self, producer: Producer | Callable[[], Producer] = None, *, leftovers: Leftovers | str = Leftovers.DISCARD
    ) -> None:
        self._producer = producer
        self._leftovers = Leftovers(leftovers)
        self._opened: dict[Key, tuple[Any, Path | None]] = {}
        self._not_ours: set[Key] = set()
        self._token: Token[Any] | None = None
        self._watching: AbstractContextManager[None] | None = None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The volumes the task has opened or mounted so far, those it has closed again included."""
        return tuple(volume for volume, _ in self._opened.values())

    def __enter__(self) -> Self:
        # Asked here: versions are published in other threads as well.
        producer = self._producer() if callable(self._producer) else self._producer
        self._token = set_producer(producer) if producer is not None else None
        self._watching = watching(self._note)
        self._watching.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self._end(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        # A task that is cancelled gives its leases back, too.
        await asyncio.shield(asyncio.to_thread(self._end, error))

    def _note(self, volume: Any, meta_dir: Path | None) -> None:
        key = volume._key()
        known = self._opened.get(key)
        self._opened[key] = (volume, meta_dir or (None if known is None else known[1]))
        if not registry.may_be_uncommitted(key):
            self._not_ours.discard(key)
        elif known is None:
            # Opened to be read: the journal that somebody has left is not this task's to discard.
            self._not_ours.add(key)

    def _leave(self) -> None:
        assert self._watching is not None
        self._watching.__exit__(None, None, None)
        if self._token is not None:
            reset_producer(self._token)

    def _end(self, error: BaseException | None) -> None:
        """Closes the volumes, the last first, each whatever becomes of the others.

        Raises:
            StoreError: one could not be closed; not over the error of the task itself, which is told of it.
        """
        try:
            with ExitStack() as ending:
                for key, (volume, meta_dir) in self._opened.items():
                    ending.callback(self._close, key, volume, meta_dir)
        except (StoreError, OSError) as problem:
            if error is None:
                raise
            error.add_note(f"and a volume of the task could not be closed: {problem}")
            _log.warning("task.volume_not_closed", error=str(problem))

    def _close(self, key: Key, volume: Any, meta_dir: Path | None) -> None:
        if not isinstance(volume, RWVolume):
            volume.blocking.close()
            return
        if registry.mount_of(key) is not None:
            # Its programs may be using it still.
            volume.blocking.unmount(force=True)
        if self._leftovers is Leftovers.KEEP:
            volume.blocking.close()
            return
        if key not in self._not_ours and registry.may_be_uncommitted(key):
            volume.blocking.open(meta_dir=meta_dir)
        volume.blocking.close(discard=True)


def running(
    producer: Producer | Callable[[], Producer] = None, *, leftovers: Leftovers | str = Leftovers.DISCARD
) -> TaskScope:
    """The scope of one run of a task; see `TaskScope`."""
    return TaskScope(producer, leftovers=leftovers)


def task(
    function: F | None = None,
    *,
    producer: Producer | Callable[[], Producer] = None,
    leftovers: Leftovers | str = Leftovers.DISCARD,
    message: str | None = None,
) -> Any:
    """A function or coroutine function whose calls are tasks: in a scope, and with what it returns `published`.

    ``producer`` None is the name of the function.
    """
    if function is None:
        return functools.partial(task, producer=producer, leftovers=leftovers, message=message)
    body = function
    maker = producer if producer is not None else f"{body.__module__}.{body.__qualname__}"
    if inspect.iscoroutinefunction(body):

        @functools.wraps(body)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            async with running(maker, leftovers=leftovers):
                return await asyncio.to_thread(published, await body(*args, **kwargs), message)

        return run_async

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        with running(maker, leftovers=leftovers):
            return published(body(*args, **kwargs), message)

    return run
