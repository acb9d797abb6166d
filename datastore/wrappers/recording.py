"""Where the numbers of a store's operations are kept.

A `Recorder` takes what happened to one operation of one store.  There are two, which expose the same
families: `TallyRecorder` adds to plain integers of its own thread, added up when Prometheus scrapes;
`ClientRecorder` uses the client library's objects, which is several times slower and the only way in
multi-process mode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from operator import add
from time import time
from typing import Final

from prometheus_client import Metric
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from datastore.errors import ErrorCode
from datastore.metric_names import (
    DURATION,
    ERRORS,
    FIRST_BYTE,
    IN_PROGRESS,
    LAST_WRITE,
    OPERATIONS,
    SIZE,
    TRANSFERRED,
    Direction,
    Operation,
    Outcome,
)
from metrics import Scope
from metrics.perthread import PerThread

__all__ = ["ClientRecorder", "Recorder", "StoreCollector", "TallyRecorder"]

#: Codes that exist from the start, so that `rate()` sees their first error; the others appear with it.
FAULTS: Final = (
    ErrorCode.GENERIC,
    ErrorCode.TRANSIENT,
    ErrorCode.THROTTLED,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.PERMISSION_DENIED,
)

#: The operations that move bytes, and which way.
MOVING: Final[Mapping[Operation, Direction]] = {Operation.READ: Direction.IN, Operation.WRITE: Direction.OUT}


_SECONDS: Final = DURATION.buckets
_SIZES: Final = SIZE.buckets


class Recorder(ABC):
    """Records one operation of one store; thread-safe.  Every `begin` is followed by one `succeed` or `fail`."""

    __slots__ = ()

    @abstractmethod
    def begin(self) -> None:
        """An operation begins."""

    @abstractmethod
    def succeed(self, seconds: float, size: int = 0, first_byte: float | None = None) -> None:
        """It ended well, ``size`` bytes were moved, the first of them after ``first_byte`` seconds."""

    @abstractmethod
    def fail(
        self, outcome: Outcome, code: ErrorCode, seconds: float, size: int = 0, first_byte: float | None = None
    ) -> None:
        """It ended otherwise, after ``size`` bytes."""


class _Tally:
    """What one thread did of one operation."""

    __slots__ = (
        "active",
        "bytes",
        "codes",
        "first_byte",
        "first_byte_sum",
        "last_success",
        "outcomes",
        "seconds",
        "seconds_sum",
        "sizes",
        "sizes_sum",
        "succeeded",
    )

    def __init__(self) -> None:
        self.active = 0  # below zero where a thread ends what others began
        self.succeeded = 0
        self.bytes = 0
        self.last_success = 0.0
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.codes = dict.fromkeys(FAULTS, 0)
        self.seconds = [0] * (len(DURATION.buckets) + 1)
        self.seconds_sum = 0.0
        self.first_byte = [0] * (len(FIRST_BYTE.buckets) + 1)
        self.first_byte_sum = 0.0
        self.sizes = [0] * (len(SIZE.buckets) + 1)
        self.sizes_sum = 0


class TallyRecorder(Recorder):
    """Adds to the calling thread's `_Tally`."""

    __slots__ = ("_is_write", "_local", "_tallies")

    def __init__(self, operation: Operation) -> None:
        self._is_write = operation is Operation.WRITE
        self._tallies = PerThread(_Tally)
        self._local = self._tallies.local

    def begin(self) -> None:
        self._local.mine.active += 1

    def succeed(self, seconds: float, size: int = 0, first_byte: float | None = None) -> None:
        tally = self._local.mine
        tally.active -= 1
        tally.succeeded += 1
        tally.seconds[bisect_left(_SECONDS, seconds)] += 1
        tally.seconds_sum += seconds
        tally.sizes[bisect_left(_SIZES, size)] += 1
        tally.sizes_sum += size
        if first_byte is not None:
            tally.first_byte[bisect_left(_SECONDS, first_byte)] += 1
            tally.first_byte_sum += first_byte
        elif self._is_write:
            tally.last_success = time()

    def fail(
        self, outcome: Outcome, code: ErrorCode, seconds: float, size: int = 0, first_byte: float | None = None
    ) -> None:
        tally = self._local.mine
        tally.active -= 1
        tally.outcomes[outcome] += 1
        if code not in tally.codes:
            tally.codes[code] = 0
        tally.codes[code] += 1
        tally.seconds[bisect_left(_SECONDS, seconds)] += 1
        tally.seconds_sum += seconds
        tally.bytes += size
        if first_byte is not None:
            tally.first_byte[bisect_left(_SECONDS, first_byte)] += 1
            tally.first_byte_sum += first_byte

    def total(self) -> _Tally:
        """What all threads did."""
        total = _Tally()
        tallies = self._tallies.all()
        # At once, for threads go on meanwhile; what is begun here and ended there may still look negative.
        total.active = max(0, sum([tally.active for tally in tallies]))
        for tally in tallies:
            total.succeeded += tally.succeeded
            for outcome, count in tally.outcomes.items():
                total.outcomes[outcome] += count
            for code, count in list(tally.codes.items()):
                total.codes[code] = total.codes.get(code, 0) + count
            total.seconds = [*map(add, total.seconds, tally.seconds)]
            total.seconds_sum += tally.seconds_sum
            total.first_byte = [*map(add, total.first_byte, tally.first_byte)]
            total.first_byte_sum += tally.first_byte_sum
            total.sizes = [*map(add, total.sizes, tally.sizes)]
            total.sizes_sum += tally.sizes_sum
            total.bytes += tally.bytes
            total.last_success = max(total.last_success, tally.last_success)
        total.outcomes[Outcome.OK] = total.succeeded
        total.bytes += total.sizes_sum
        return total


class StoreCollector(Collector):
    """Exposes the tallies of every store of one scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._stores: dict[tuple[str, str], Mapping[Operation, TallyRecorder]] = {}

    def recorders(self, backend: str, location: str) -> Mapping[Operation, TallyRecorder]:
        """The recorders of one store, made the first time."""
        made = {operation: TallyRecorder(operation) for operation in Operation}
        return self._stores.setdefault((backend, location), made)  # atomic

    def describe(self) -> Iterable[Metric]:
        return self._families({})

    def collect(self) -> Iterable[Metric]:
        return self._families(self._stores.copy())

    def _families(self, stores: Mapping[tuple[str, str], Mapping[Operation, TallyRecorder]]) -> Iterable[Metric]:
        operations = OPERATIONS.counter_family(self._scope)
        errors = ERRORS.counter_family(self._scope)
        durations = DURATION.histogram_family(self._scope)
        first_bytes = FIRST_BYTE.histogram_family(self._scope)
        transferred = TRANSFERRED.counter_family(self._scope)
        sizes = SIZE.histogram_family(self._scope)
        in_progress = IN_PROGRESS.gauge_family(self._scope)
        last_write = LAST_WRITE.gauge_family(self._scope)
        for store, recorders in stores.items():
            for operation, recorder in recorders.items():
                labels = (*store, operation.value)
                total = recorder.total()
                for outcome, count in total.outcomes.items():
                    operations.add_metric((*labels, outcome.value), count)
                for code, count in total.codes.items():
                    errors.add_metric((*labels, code.value), count)
                _add_histogram(durations, labels, DURATION.buckets, total.seconds, total.seconds_sum)
                in_progress.add_metric(labels, total.active)
                if operation is Operation.READ:
                    _add_histogram(first_bytes, labels, FIRST_BYTE.buckets, total.first_byte, total.first_byte_sum)
                if operation in MOVING:
                    moving = (*labels, MOVING[operation].value)
                    transferred.add_metric(moving, total.bytes)
                    _add_histogram(sizes, moving, SIZE.buckets, total.sizes, total.sizes_sum)
                if operation is Operation.WRITE:
                    last_write.add_metric(store, total.last_success)
        return operations, errors, durations, first_bytes, transferred, sizes, in_progress, last_write


class ClientRecorder(Recorder):
    """Records with children of the client library's metrics, made beforehand."""

    def __init__(self, scope: Scope, backend: str, location: str, operation: Operation) -> None:
        labels = (backend, location, operation.value)
        moving = (*labels, MOVING.get(operation, Direction.IN).value)
        moves = operation in MOVING
        self._labels = labels
        self._errors = ERRORS.counter(scope)
        operations = OPERATIONS.counter(scope)
        self._outcomes = {outcome: operations.labels(*labels, outcome.value) for outcome in Outcome}
        self._ok = self._outcomes[Outcome.OK]
        self._codes = {code: self._errors.labels(*labels, code.value) for code in FAULTS}
        self._seconds = DURATION.histogram(scope).labels(*labels)
        self._in_progress = IN_PROGRESS.gauge(scope).labels(*labels)
        is_read, is_write = operation is Operation.READ, operation is Operation.WRITE
        self._first_byte = FIRST_BYTE.histogram(scope).labels(*labels) if is_read else None
        self._bytes = TRANSFERRED.counter(scope).labels(*moving) if moves else None
        self._sizes = SIZE.histogram(scope).labels(*moving) if moves else None
        self._last_write = LAST_WRITE.gauge(scope).labels(backend, location) if is_write else None

    def begin(self) -> None:
        self._in_progress.inc()

    def succeed(self, seconds: float, size: int = 0, first_byte: float | None = None) -> None:
        self._ok.inc()
        self._end(seconds, size, first_byte)
        if self._sizes is not None:
            self._sizes.observe(size)
        if self._last_write is not None:
            self._last_write.set(time())

    def fail(
        self, outcome: Outcome, code: ErrorCode, seconds: float, size: int = 0, first_byte: float | None = None
    ) -> None:
        self._outcomes[outcome].inc()
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = self._errors.labels(*self._labels, code.value)
        counter.inc()
        self._end(seconds, size, first_byte)

    def _end(self, seconds: float, size: int, first_byte: float | None) -> None:
        self._in_progress.dec()
        self._seconds.observe(seconds)
        if first_byte is not None and self._first_byte is not None:
            self._first_byte.observe(first_byte)
        if self._bytes is not None:
            self._bytes.inc(size)


def _add_histogram(
    family: HistogramMetricFamily, labels: tuple[str, ...], bounds: tuple[float, ...], counts: list[int], total: float
) -> None:
    names = [floatToGoString(bound) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
    family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), total)
