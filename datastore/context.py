"""Deadlines and cancellation that travel with the caller's context.

Go's ``ctx`` becomes ``with deadline(seconds):`` and ``with cancellable() as token:``.  Both are context variables:
they hold for the current thread or task and everything it awaits, nest (the nearest deadline wins), and cost one
look-up where none is set.  Every store operation checks them before it starts, between retries and between the
pieces of a stream; drivers that can stop a request in flight watch the `Limits` themselves.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from datastore.errors import Cancelled, DeadlineExceeded

__all__ = [
    "CancelToken",
    "Limits",
    "cancellable",
    "check",
    "current_limits",
    "deadline",
    "remaining",
    "sleep",
    "under",
    "wait_for",
]


class CancelToken:
    """Cancels the operations that run under it; thread-safe, and for good."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Cancels; calling it again changes nothing."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def wait(self, seconds: float | None) -> bool:
        """Sleeps until cancelled or the seconds are over; says whether it is cancelled."""
        return self._event.wait(seconds)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back once when cancelled, at once if it already is; returns a function that takes that back."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


class Limits:
    """What bounds the work of one context: a point on the monotonic clock, and tokens that may cancel it."""

    __slots__ = ("seconds", "tokens", "until")

    def __init__(self, until: float | None, seconds: float | None, tokens: tuple[CancelToken, ...]) -> None:
        self.until = until
        self.seconds = seconds
        self.tokens = tokens

    def remaining(self) -> float | None:
        """Seconds left, never below zero; None without a deadline."""
        return None if self.until is None else max(0.0, self.until - time.monotonic())

    def check(self) -> None:
        """Raises when the time is over or a token was cancelled.

        Raises:
            DeadlineExceeded: the deadline has passed.
            Cancelled: a token was cancelled.
        """
        for token in self.tokens:
            if token.cancelled:
                raise Cancelled("the operation was cancelled")
        if self.until is not None and time.monotonic() >= self.until:
            raise DeadlineExceeded(f"the deadline of {self.seconds:g} s has passed")

    def sleep(self, seconds: float) -> None:
        """Sleeps, but no longer than the context lives.

        Raises:
            DeadlineExceeded: the sleep would outlast the deadline; raised at once, without sleeping.
            Cancelled: a token was cancelled meanwhile.
        """
        left = self.remaining()
        if left is not None and seconds >= left:
            raise DeadlineExceeded(
                f"the deadline of {self.seconds:g} s leaves no time to wait {round(seconds, 3):g} s more"
            )
        if self.tokens:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                # Waiting on the first and looking at the others keeps one thread for any number of tokens.
                self.tokens[0].wait(left if len(self.tokens) == 1 else min(left, _POLL))
                self.check()
        else:
            time.sleep(seconds)
        self.check()


#: How soon a wait on one thing notices that another, a token, has changed.
_POLL = 0.05

_NONE = Limits(None, None, ())
_limits: contextvars.ContextVar[Limits | None] = contextvars.ContextVar("datastore_limits", default=None)

#: The limits of this context, or None when nothing bounds it; no function of ours, as every operation asks.
current_limits: Callable[[], Limits | None] = _limits.get


@contextmanager
def deadline(seconds: float) -> Iterator[Limits]:
    """Bounds every store operation inside the block to ``seconds`` from now, streams it opened included.

    Inside another deadline the earlier end holds.

    Raises:
        ValueError: ``seconds`` is negative or not a number.
    """
    if not seconds >= 0:
        raise ValueError(f"a deadline is a number of seconds from now, not {seconds!r}")
    outer = _limits.get() or _NONE
    until = time.monotonic() + seconds
    if outer.until is not None and outer.until <= until:
        limits = outer
    else:
        limits = Limits(until, seconds, outer.tokens)
    reset = _limits.set(limits)
    try:
        yield limits
    finally:
        _limits.reset(reset)


@contextmanager
def cancellable(token: CancelToken | None = None) -> Iterator[CancelToken]:
    """Lets ``token.cancel()``, called from anywhere, stop the store operations inside the block."""
    token = token or CancelToken()
    outer = _limits.get() or _NONE
    reset = _limits.set(Limits(outer.until, outer.seconds, (*outer.tokens, token)))
    try:
        yield token
    finally:
        _limits.reset(reset)


@contextmanager
def under(limits: Limits | None) -> Iterator[None]:
    """Runs the block under limits taken from another context, as a stream does that outlives the one it began in."""
    reset = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(reset)


def remaining() -> float | None:
    """Seconds left to the deadline of this context, or None without one."""
    limits = _limits.get()
    return None if limits is None else limits.remaining()


def check() -> None:
    """Raises `DeadlineExceeded` or `Cancelled` when this context is over."""
    limits = _limits.get()
    if limits is not None:
        limits.check()


def sleep(seconds: float) -> None:
    """Sleeps, but no longer than this context lives; see `Limits.sleep`."""
    limits = _limits.get()
    if limits is None:
        time.sleep(seconds)
    else:
        limits.sleep(seconds)


def wait_for(event: threading.Event, limits: Limits | None = None) -> None:
    """Waits for an event of another thread, but no longer than the limits (by default this context's) allow.

    Raises:
        DeadlineExceeded, Cancelled: the limits ended first.
    """
    limits = limits or _limits.get()
    if limits is None:
        event.wait()
        return
    while not event.is_set():
        limits.check()
        # One thread can wait for one thing: tokens are looked at meanwhile.
        event.wait(_POLL if limits.tokens else limits.remaining())
