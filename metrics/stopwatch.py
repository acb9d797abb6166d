"""Stopwatches: histograms of durations whose name says their unit."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

__all__ = ["Stopwatch", "Timer", "Unit"]


class Unit(Enum):
    """A unit of time: its length in seconds, its short and its long name."""

    NANOSECONDS = (1e-9, "ns", "nanoseconds")
    MICROSECONDS = (1e-6, "us", "microseconds")
    MILLISECONDS = (1e-3, "ms", "milliseconds")
    SECONDS = (1.0, "s", "seconds")
    MINUTES = (60.0, "m", "minutes")
    HOURS = (3600.0, "h", "hours")

    def __init__(self, seconds: float, suffix: str, long_name: str) -> None:
        self.seconds = seconds
        self.suffix = suffix
        self.long_name = long_name


class Observable(Protocol):
    """What a stopwatch writes to: a histogram, or a summary."""

    def observe(self, amount: float) -> None: ...
    def labels(self, *values: str, **named: str) -> "Observable": ...


class Stopwatch:
    """Measures durations on the monotonic clock and observes them in its unit, as a float.

    Thread-safe: one stopwatch serves any number of timers at once.
    """

    __slots__ = ("_target", "unit")

    def __init__(self, target: Observable, unit: Unit = Unit.SECONDS) -> None:
        self._target = target
        self.unit = unit

    def start(self) -> "Timer":
        """Returns a running timer; its `stop()`, or the end of its `with` block, observes it once."""
        return Timer(self)

    @contextmanager
    def time(self) -> Iterator["Timer"]:
        """Times a `with` block, or every call of a function when used as a decorator, failures included."""
        with Timer(self) as timer:
            yield timer

    def observe(self, seconds: float) -> None:
        """Observes a duration that was measured elsewhere.

        Raises `ValueError` when it is negative or not finite: one NaN would spoil the histogram's sum for
        ever.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a duration must be a finite number of seconds from 0 up, not {seconds!r}")
        self._target.observe(seconds / self.unit.seconds)

    def labels(self, *values: str, **named: str) -> "Stopwatch":
        """Returns the stopwatch for these label values."""
        return Stopwatch(self._target.labels(*values, **named), self.unit)


class Timer:
    """A running measurement of a `Stopwatch`."""

    __slots__ = ("_seconds", "_started", "_stopwatch")

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._seconds: float | None = None
        self._started = time.perf_counter()

    def stop(self) -> float:
        """Observes the time since the start and returns it in seconds; later calls return it again."""
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._started
            self._stopwatch.observe(self._seconds)
        return self._seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
