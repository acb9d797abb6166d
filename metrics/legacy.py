"""Metrics under the exact names and types that flytestdlib exposes, for dashboards that cannot change.

The client library cannot make them: it appends `_total` to every counter and has no quantiles in its
summaries. So they come from a custom collector, with counters as untyped samples (`rate()` takes them all
the same). Custom collectors do not exist in multi-process mode, and neither do these names.

Which families there are is the caller's table. Source: flyteorg/flyte, `flytestdlib/promutils`, and
prometheus/client_golang for the sliding window (five slices of two minutes).
"""

import math
import random
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import Final

from attrs import field, frozen
from prometheus_client import Metric
from prometheus_client.registry import Collector

from metrics.context import current_labels, process_keys
from metrics.errors import MetricError
from metrics.exposition import is_multiprocess
from metrics.names import check_label_names
from metrics.scope import DEFAULT_BUCKETS, Naming, Scope

__all__ = ["QUANTILES", "LegacyFamily", "LegacyKind", "LegacyMetrics", "SlidingQuantiles"]

QUANTILES: Final = (0.5, 0.9, 0.99)


class LegacyKind(StrEnum):
    """How a family is exposed."""

    COUNTER = "counter"
    """Untyped, under the bare name."""
    SUMMARY = "summary"
    """Milliseconds, with the quantiles 0.5, 0.9 and 0.99 of the last ten minutes."""
    HISTOGRAM = "histogram"
    """Seconds, with the Go client's default buckets."""


def _label_names(names: Iterable[str]) -> tuple[str, ...]:
    return check_label_names(names)


@frozen(kw_only=True)
class LegacyFamily:
    """One family of the table: `name` is exposed under the scope's prefix as it is.

    With `context_labels` it has the process-wide label keys besides `label_names`; with `twin` everything is
    also recorded without labels under `twin_name`.
    """

    name: str
    kind: LegacyKind
    help: str
    label_names: tuple[str, ...] = field(default=(), converter=_label_names)
    context_labels: bool = False
    twin: bool = False

    @property
    def twin_name(self) -> str:
        """The name of the unlabelled twin; a summary's unit stays last."""
        stem, unit = self.name.rsplit("_", 1) if self.kind is LegacyKind.SUMMARY else (self.name, "")
        return f"{stem}_unlabeled_{unit}" if unit else f"{stem}_unlabeled"


class LegacyMetrics(Collector):
    """The families of a table under one scope. Made by `register`. Thread-safe."""

    def __init__(self, scope: Scope, families: Iterable[LegacyFamily]) -> None:
        self._lock = threading.Lock()
        self._recorders: dict[str, tuple[LegacyFamily, tuple[_Recorder, ...]]] = {}
        for family in families:
            keys = process_keys.use() if family.context_labels else ()
            label_names = tuple(sorted({*family.label_names, *keys}))
            recorders = [_Recorder(scope.full_name(family.name), family, label_names)]
            if family.twin:
                recorders.append(_Recorder(scope.full_name(family.twin_name), family, ()))
            self._recorders[family.name] = (family, tuple(recorders))

    @classmethod
    def register(cls, scope: Scope, families: Iterable[LegacyFamily]) -> "LegacyMetrics":
        """Registers the families in the scope's registry and returns what to record them with.

        The second caller with the same scope and table gets the first one's object. Raises `MetricError` in
        multi-process mode and for a scope that is not `Naming.FLYTE`, `MetricClash` when a name is taken.
        """
        if is_multiprocess():
            raise MetricError(
                "legacy metric names need a custom collector, which multi-process mode "
                "(PROMETHEUS_MULTIPROC_DIR) does not have: recreate the old names with recording rules, "
                "or expose each process by itself"
            )
        if scope.naming is not Naming.FLYTE:
            raise MetricError(f"legacy metric names need a scope with Naming.FLYTE, not {scope!r}")
        table = tuple(families)
        return scope.collector("legacy", lambda: cls(scope, table), definition=table)

    def count(self, name: str, amount: float = 1, **extra: str) -> None:
        """Adds to the counter `name`, and to its twin; `extra` are the values of its own labels."""
        if not amount >= 0:
            raise ValueError(f"counter {name} can only go up, not by {amount!r}")
        self._record(name, (LegacyKind.COUNTER,), amount, extra)

    def observe(self, name: str, seconds: float, **extra: str) -> None:
        """Records a duration, measured in seconds, in the summary or histogram `name`, and in its twin."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a duration must be a finite number of seconds from 0 up, not {seconds!r}")
        self._record(name, (LegacyKind.SUMMARY, LegacyKind.HISTOGRAM), seconds, extra)

    def describe(self) -> Iterable[Metric]:
        """Returns the families without samples, so that the registry can refuse names that are taken."""
        return [recorder.metric() for recorder in self._all()]

    def collect(self) -> Iterable[Metric]:
        """Returns the families with their samples."""
        with self._lock:
            return [recorder.filled() for recorder in self._all()]

    def _all(self) -> Iterator["_Recorder"]:
        for _, recorders in self._recorders.values():
            yield from recorders

    def _record(self, name: str, kinds: tuple[LegacyKind, ...], value: float, extra: Mapping[str, str]) -> None:
        if name not in self._recorders:
            raise MetricError(f"no legacy metric {name!r} in the table this was registered with")
        family, recorders = self._recorders[name]
        if family.kind not in kinds:
            raise MetricError(f"legacy metric {name!r} is a {family.kind}, not a {' or a '.join(kinds)}")
        if extra.keys() != set(family.label_names):
            raise MetricError(
                f"legacy metric {name!r} has the labels {family.label_names!r}, not {tuple(sorted(extra))!r}"
            )
        values = {**current_labels(), **extra}
        with self._lock:
            for recorder in recorders:
                recorder.add(tuple(values.get(label, "") for label in recorder.label_names), value)


class SlidingQuantiles:
    """Quantiles of what was observed lately. Not thread-safe: its owner holds a lock.

    Time is cut into slices, each a uniform sample of bounded size of what was observed in it; a slice is
    dropped when it is older than the window. So memory is bounded at any rate, and quantiles are exact until
    a slice has seen more than its capacity.
    """

    def __init__(
        self,
        *,
        window: float = 600.0,
        slices: int = 5,
        capacity: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slice_seconds = window / slices
        self._slices = slices
        self._capacity = capacity
        self._clock = clock
        self._recent: list[tuple[int, list[float], list[int]]] = []  # slice number, sample, [number seen]

    def observe(self, value: float) -> None:
        """Adds one value to the current slice."""
        now = self._expire()
        if not self._recent or self._recent[-1][0] != now:
            self._recent.append((now, [], [0]))
        _, sample, seen = self._recent[-1]
        seen[0] += 1
        if len(sample) < self._capacity:
            sample.append(value)
        elif (place := random.randrange(seen[0])) < self._capacity:
            sample[place] = value

    def quantiles(self, wanted: Sequence[float]) -> list[float]:
        """Returns for each of `wanted` the smallest value that many do not exceed, NaN if there is none."""
        self._expire()
        weighted = sorted((value, seen[0] / len(sample)) for _, sample, seen in self._recent for value in sample)
        if not weighted:
            return [math.nan] * len(wanted)
        ranks = list(accumulate(weight for _, weight in weighted))
        last = len(weighted) - 1
        # A hair less than the rank, for the sum of weights is not exact.
        return [weighted[min(bisect_left(ranks, q * ranks[-1] * (1 - 1e-12)), last)][0] for q in wanted]

    def _expire(self) -> int:
        now = int(self._clock() / self._slice_seconds)
        while self._recent and self._recent[0][0] <= now - self._slices:
            del self._recent[0]
        return now


class _Recorder:
    """All children of one exposed family."""

    def __init__(self, full_name: str, family: LegacyFamily, label_names: tuple[str, ...]) -> None:
        self.label_names = label_names
        self._full_name = full_name
        self._family = family
        self._children: dict[tuple[str, ...], _Child] = {}
        if not label_names:
            self._children[()] = _CHILDREN[family.kind]()

    def add(self, labels: tuple[str, ...], value: float) -> None:
        if labels not in self._children:
            self._children[labels] = _CHILDREN[self._family.kind]()
        self._children[labels].add(value)

    def metric(self) -> Metric:
        exposed = "unknown" if self._family.kind is LegacyKind.COUNTER else self._family.kind.value
        return Metric(self._full_name, self._family.help, exposed)

    def filled(self) -> Metric:
        metric = self.metric()
        for values, child in self._children.items():
            labels = dict(zip(self.label_names, values, strict=True))
            for suffix, more, value in child.samples():
                metric.add_sample(self._full_name + suffix, {**labels, **more}, value)
        return metric


Samples = Iterable[tuple[str, dict[str, str], float]]


class _CounterChild:
    def __init__(self) -> None:
        self._value = 0.0

    def add(self, value: float) -> None:
        self._value += value

    def samples(self) -> Samples:
        yield "", {}, self._value


class _SummaryChild:
    def __init__(self) -> None:
        self._quantiles = SlidingQuantiles()
        self._count = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        milliseconds = value * 1000
        self._quantiles.observe(milliseconds)
        self._count += 1
        self._sum += milliseconds

    def samples(self) -> Samples:
        for quantile, value in zip(QUANTILES, self._quantiles.quantiles(QUANTILES), strict=True):
            yield "", {"quantile": str(quantile)}, value
        yield "_sum", {}, self._sum
        yield "_count", {}, self._count


class _HistogramChild:
    def __init__(self) -> None:
        self._buckets = [0] * (len(DEFAULT_BUCKETS) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._buckets[bisect_left(DEFAULT_BUCKETS, value)] += 1
        self._sum += value

    def samples(self) -> Samples:
        totals = list(accumulate(self._buckets))
        for bound, total in zip((*DEFAULT_BUCKETS, math.inf), totals, strict=True):
            yield "_bucket", {"le": _bound_text(bound)}, total
        yield "_sum", {}, self._sum
        yield "_count", {}, totals[-1]


def _bound_text(bound: float) -> str:
    # As the Go client writes it: 1, not 1.0.
    return "+Inf" if math.isinf(bound) else f"{bound:g}"


_Child = _CounterChild | _SummaryChild | _HistogramChild
_CHILDREN: Final[dict[LegacyKind, Callable[[], _Child]]] = {
    LegacyKind.COUNTER: _CounterChild,
    LegacyKind.SUMMARY: _SummaryChild,
    LegacyKind.HISTOGRAM: _HistogramChild,
}
