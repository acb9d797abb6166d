"""What the kinds on obstore share: calls under limits, bodies both ways, and failures read from its texts.

obstore's blocking calls cannot be stopped.  Without a deadline or a token they are the fastest way and used as they
are; otherwise the same call runs as a coroutine on one background loop, where it can be cancelled.

Its runtime does not survive a fork: a child made after the first use would hang for ever, so it is told to use
spawn (`errors.ForkUnsafe`).  A child made before the first use works.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple

from datastore.context import Limits, current_limits
from datastore.errors import DeadlineExceeded, ForkUnsafe, StoreError
from datastore.source import Source

__all__ = [
    "Failure",
    "SourcePieces",
    "StreamBody",
    "call",
    "failure_of",
    "gather",
    "mark_used",
    "run_within",
    "works",
]

#: How much of a streamed body is fetched ahead at once.
STREAM_CHUNK = 1 << 20

#: Requests of one `gather` at a time.
_CONCURRENT = 16

_STATUS = re.compile(r"status code: (\d{3})|\(code: (\d{3})\)")
_CODE = re.compile(r"<Code>([A-Za-z0-9._-]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<\n]*)")
_BULK_MESSAGE = re.compile(r"Bulk delete request failed for key .*: ([^:\n]*) \(code: \d{3}\)")


def call(blocking: Callable[..., Any], asynchronous: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Makes one obstore call, within the limits of the context if it has any.

    Raises:
        ForkUnsafe: this process was forked after obstore's first use.
        DeadlineExceeded, Cancelled: the context ended first; whether the request took effect is unknown.
    """
    if _state.forked:
        _refuse_fork()
    limits = current_limits()
    if limits is not None:
        return run_within(limits, asynchronous, *args, **kwargs)
    _state.used = True
    return blocking(*args, **kwargs)


def run_within(limits: Limits, asynchronous: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs ``asynchronous(...)`` on the background loop and stops it when the limits say so.

    Raises:
        ForkUnsafe, DeadlineExceeded, Cancelled
    """
    limits.check()
    future = _submit(_awaited(asynchronous, args, kwargs))
    forget = [token.on_cancel(future.cancel) for token in limits.tokens]
    try:
        return future.result(limits.remaining())
    except CancelledError:
        limits.check()
        raise
    except FutureTimeout as error:
        if not future.done():
            future.cancel()
            raise DeadlineExceeded(f"the deadline of {limits.seconds:g} s passed during a request") from error
        raise
    except BaseException:
        future.cancel()
        raise
    finally:
        for take_back in forget:
            take_back()


def gather(asynchronous: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of many calls, a bounded number at a time, with what a call raised in its place."""

    async def every() -> list[Any]:
        slots = asyncio.Semaphore(_CONCURRENT)

        async def one(args: tuple[Any, ...]) -> Any:
            async with slots:
                return await asynchronous(*args)

        return await asyncio.gather(*(one(args) for args in calls), return_exceptions=True)

    found: list[Any] = run_within(current_limits() or _UNLIMITED, every)
    return found


class StreamBody:
    """The body of an obstore answer as a driver's `Body`; ``translate`` makes its errors ours."""

    __slots__ = ("_chunks", "_limits", "_rest", "_translate")

    def __init__(self, result: Any, translate: Callable[[Exception], Exception]) -> None:
        self._chunks = result.stream(min_chunk_size=STREAM_CHUNK)
        self._limits = current_limits()
        self._rest: memoryview = memoryview(b"")
        self._translate = translate

    def read(self, size: int, /) -> bytes:
        rest = self._rest
        if not rest:
            rest = memoryview(self._next())
        self._rest = rest[size:]
        return bytes(rest[:size])

    def close(self) -> None:
        self._chunks = None
        self._rest = memoryview(b"")

    def _next(self) -> bytes:
        if _state.forked:
            _refuse_fork()
        chunks, limits = self._chunks, self._limits
        try:
            if limits is None:
                piece: bytes = next(chunks, b"")
            else:
                try:
                    piece = run_within(limits, chunks.__anext__)
                except StopAsyncIteration:
                    piece = b""
        except StoreError:
            raise
        except Exception as error:
            raise self._translate(error) from error
        return piece


class SourcePieces:
    """A source as the iterator obstore uploads from.

    What the source raises is kept in ``error``, to be raised again unchanged: what comes back through obstore is not
    always the same object.
    """

    def __init__(self, source: Source, size: int) -> None:
        self._read = source.read
        self._size = size
        self.error: BaseException | None = None

    def __iter__(self) -> SourcePieces:
        return self

    def __next__(self) -> bytes:
        try:
            piece = self._read(self._size)
        except BaseException as error:
            self.error = error
            raise
        if not piece:
            raise StopIteration
        return piece


class Failure(NamedTuple):
    """What an answer said: HTTP status and the service's own code, 0 and "" when there was no answer."""

    status: int
    code: str
    message: str

    @property
    def text(self) -> str:
        """One line for people, without URLs: their queries can be credentials."""
        if not self.status:
            return self.message or "no answer from the service"
        said = ": ".join(part for part in (self.code, self.message) if part)
        return f"the service answered {self.status}{f' {said}' if said else ''}"


def failure_of(error: BaseException) -> Failure:
    """Reads status, code and message from an obstore error's text, where alone they are."""
    text = str(error).partition("\n\nDebug source")[0]
    status = _STATUS.search(text)
    if status is None:
        # "... in 3.4ms - HTTP error: error sending request": what stands before it names URLs.
        return Failure(0, "", text.rpartition(" - ")[2].partition("\n")[0] if " - " in text else "the request failed")
    code = _CODE.search(text)
    message = _MESSAGE.search(text) or _BULK_MESSAGE.search(text)
    return Failure(
        int(status[1] or status[2]), code[1] if code else "", message[1].strip().rstrip(".") if message else ""
    )


def works() -> bool:
    """Whether obstore answers in this process: not when it was forked after obstore's first use."""
    return not _state.forked


def mark_used() -> None:
    """Notes that obstore's threads run from here on; needed where it is used without `call`."""
    _state.used = True


class _State:
    """Of this process: whether obstore was used, whether that was before a fork, and the background loop."""

    __slots__ = ("forked", "lock", "loop", "used")

    def __init__(self) -> None:
        self.used = False
        self.forked = False
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None


_state = _State()
_UNLIMITED = Limits(None, None, ())


def _after_fork() -> None:
    _state.forked = _state.forked or _state.used
    _state.lock = threading.Lock()
    _state.loop = None


os.register_at_fork(after_in_child=_after_fork)


def _refuse_fork() -> None:
    raise ForkUnsafe(
        f"process {os.getpid()} was forked from one that had used the store's client library, which cannot go on",
        hint="use the 'spawn' or 'forkserver' start method, or fork before the first use of a store",
    )


def _submit(work: Coroutine[Any, Any, Any]) -> Any:
    if _state.forked:
        work.close()
        _refuse_fork()
    _state.used = True
    loop = _state.loop
    if loop is None:
        with _state.lock:
            if _state.loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="stowstore-obstore", daemon=True).start()
                _state.loop = loop
            loop = _state.loop
    return asyncio.run_coroutine_threadsafe(work, loop)


async def _awaited(asynchronous: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return await asynchronous(*args, **kwargs)
