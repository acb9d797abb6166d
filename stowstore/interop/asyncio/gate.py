"""Where coroutines pass into threads: so many at once, and none left behind that nobody waits for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar
from weakref import WeakKeyDictionary

from datastore import context
from datastore.context import CancelToken, cancellable
from datastore.errors import ConfigError, DeadlineExceeded

T = TypeVar("T")

__all__ = ["Gate"]


class Gate:
    """Runs calls in threads, ``limit`` at once; whoever comes when all are taken waits without a thread.

    The deadline and the tokens of the calling context hold inside, and while waiting.  When the task is cancelled, the
    call is, too, and the task goes on once it has ended: no work is left under way.  Only a second cancellation does
    not wait; the place stays taken until the call has ended all the same.

    The places are those of one event loop; the threads are shared by all that use it.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"max_concurrency is {limit}", hint="at least one operation must be able to run")
        self.limit = limit
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="stow-async")

    async def run(
        self,
        call: Callable[[], T],
        *,
        token: CancelToken | None = None,
        unwanted: Callable[[T], object] | None = None,
    ) -> T:
        """What a call returns; ``token`` is the one its cancellation goes by.

        A result that comes after the cancellation is given to ``unwanted``.

        Raises:
            DeadlineExceeded: the deadline passed, in the call or before there was a place for it.
        """
        token = token or CancelToken()
        loop = asyncio.get_running_loop()
        places = self._loops.setdefault(loop, asyncio.Semaphore(self.limit))
        await self._enter(places)

        def work() -> T:
            with cancellable(token):
                context.check()
                return call()

        try:
            running = loop.run_in_executor(self._threads, contextvars.copy_context().run, work)
        except BaseException:
            places.release()
            raise
        running.add_done_callback(lambda done: _leave(places, done))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            token.cancel()
            if unwanted is not None:
                running.add_done_callback(lambda done: _dispose(done, unwanted))
            await asyncio.wait([running])
            raise

    async def close(self) -> None:
        """Waits for what is under way and ends the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _enter(self, places: asyncio.Semaphore) -> None:
        limits = context.current_limits()
        if limits is None:
            await places.acquire()
            return
        limits.check()
        try:
            async with asyncio.timeout(limits.remaining()):
                await places.acquire()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the deadline passed while {self.limit} other operations were under way",
                hint="allow more at once with max_concurrency, or begin fewer",
            ) from error


def _leave(places: asyncio.Semaphore, done: asyncio.Future[T]) -> None:
    places.release()
    if not done.cancelled():
        # Whoever was cancelled does not look at it.
        done.exception()


def _dispose(done: asyncio.Future[T], unwanted: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        with suppress(Exception):
            unwanted(done.result())
