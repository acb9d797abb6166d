# ruff: noqa: A002 -- `help` is what Prometheus and its client call it
"""Scopes: where metrics get their first name, their registry and their rules of naming."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, Generic, Literal, TypeVar, overload

import prometheus_client
from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from metrics.context import current_labels, process_keys
from metrics.errors import MetricError
from metrics.names import check_label_names, check_metric_name, clean_flyte_name
from metrics.registration import Declaration, get_or_create
from metrics.stopwatch import Stopwatch, Unit

__all__ = ["DEFAULT_BUCKETS", "ContextMetric", "MultiprocessMode", "Naming", "Scope"]

M = TypeVar("M", Counter, Gauge, Histogram, Stopwatch)
W = TypeVar("W", bound=MetricWrapperBase)
C = TypeVar("C", bound=Collector)

MultiprocessMode = Literal[
    "all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum", "mostrecent", "livemostrecent"
]

DEFAULT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, those of the Go client."""


class Naming(StrEnum):
    """How a scope joins and checks names."""

    PROMETHEUS = "prometheus"
    """Underscores between the parts, full names of units, bad characters refused."""
    FLYTE = "flyte"
    """Colons between the parts, short names of units, bad characters cleaned away, as flytestdlib does."""


class Scope:
    """A prefix for metric names within one registry.

    Declaring is idempotent: the same name in the same registry gives the same object, so two stores may
    share a scope; the same name with another type or other labels raises `MetricClash`. Names are checked
    against the classic Prometheus pattern (`MetricError`, a `ValueError`). Nothing is registered before a
    metric is declared. Thread-safe.
    """

    __slots__ = ("naming", "prefix", "registry")

    def __init__(
        self, name: str, registry: CollectorRegistry | None = None, naming: Naming = Naming.PROMETHEUS
    ) -> None:
        self.registry: Final = prometheus_client.REGISTRY if registry is None else registry
        self.naming: Final = naming
        self.prefix: Final = _prefix(name, naming)

    def sub(self, name: str) -> "Scope":
        """Returns the scope `name` within this one: same registry, same naming."""
        _prefix(name, self.naming)
        return Scope(self.prefix + name, self.registry, self.naming)

    def full_name(self, name: str) -> str:
        """Returns `name` under this scope's prefix, checked (and cleaned under `Naming.FLYTE`)."""
        if not name:
            raise MetricError(f"a metric in scope {self.prefix!r} has an empty name: give it at least one letter")
        if self.naming is Naming.FLYTE:
            return check_metric_name(clean_flyte_name(self.prefix + name), colons=True)
        return check_metric_name(self.prefix + name, colons=False)

    @overload
    def counter(
        self, name: str, help: str, label_names: Sequence[str] = (), *, context_labels: Literal[False] = False
    ) -> Counter: ...
    @overload
    def counter(
        self, name: str, help: str, label_names: Sequence[str] = (), *, context_labels: Literal[True]
    ) -> "ContextMetric[Counter]": ...
    def counter(
        self, name: str, help: str, label_names: Sequence[str] = (), *, context_labels: bool = False
    ) -> "Counter | ContextMetric[Counter]":
        """Returns the counter exposed as `<prefix><name>_total`; a `_total` in `name` is not doubled."""
        names = _label_names(label_names, context_labels=context_labels)
        counter = self._declare(Counter, name.removesuffix("_total"), help, names)
        return ContextMetric(counter, names) if context_labels else counter

    @overload
    def gauge(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        multiprocess_mode: MultiprocessMode = "all",
        *,
        context_labels: Literal[False] = False,
    ) -> Gauge: ...
    @overload
    def gauge(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        multiprocess_mode: MultiprocessMode = "all",
        *,
        context_labels: Literal[True],
    ) -> "ContextMetric[Gauge]": ...
    def gauge(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        multiprocess_mode: MultiprocessMode = "all",
        *,
        context_labels: bool = False,
    ) -> "Gauge | ContextMetric[Gauge]":
        """Returns the gauge `<prefix><name>`; `multiprocess_mode` says how processes' values add up."""
        names = _label_names(label_names, context_labels=context_labels)
        gauge = self._declare(Gauge, name, help, names, multiprocess_mode=multiprocess_mode)
        return ContextMetric(gauge, names) if context_labels else gauge

    @overload
    def histogram(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        context_labels: Literal[False] = False,
    ) -> Histogram: ...
    @overload
    def histogram(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        context_labels: Literal[True],
    ) -> "ContextMetric[Histogram]": ...
    def histogram(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        context_labels: bool = False,
    ) -> "Histogram | ContextMetric[Histogram]":
        """Returns the histogram `<prefix><name>` with these upper bounds (`+Inf` is added)."""
        names = _label_names(label_names, reserved="le", context_labels=context_labels)
        bounds = _check_buckets(name, buckets)
        histogram = self._declare(Histogram, name, help, names, buckets=bounds)
        return ContextMetric(histogram, names) if context_labels else histogram

    @overload
    def stopwatch(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        unit: Unit = Unit.SECONDS,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        context_labels: Literal[False] = False,
    ) -> Stopwatch: ...
    @overload
    def stopwatch(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        unit: Unit = Unit.SECONDS,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        context_labels: Literal[True],
    ) -> "ContextMetric[Stopwatch]": ...
    def stopwatch(
        self,
        name: str,
        help: str,
        label_names: Sequence[str] = (),
        unit: Unit = Unit.SECONDS,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        context_labels: bool = False,
    ) -> "Stopwatch | ContextMetric[Stopwatch]":
        """Returns a stopwatch over the histogram `<prefix><name>_<unit>`.

        `buckets` are in seconds and converted to the unit. Prefer seconds: they are what Prometheus expects.
        """
        if not name:
            raise MetricError(f"a stopwatch in scope {self.prefix!r} has an empty name")
        names = _label_names(label_names, reserved="le", context_labels=context_labels)
        bounds = tuple(float(f"{bound / unit.seconds:.12g}") for bound in _check_buckets(name, buckets))
        suffix = f"_{unit.suffix if self.naming is Naming.FLYTE else unit.long_name}"
        full = name if name.endswith(suffix) else name + suffix
        stopwatch = Stopwatch(self._declare(Histogram, full, help, names, buckets=bounds), unit)
        return ContextMetric(stopwatch, names) if context_labels else stopwatch

    def collector(self, name: str, make: Callable[[], C], definition: object = None) -> C:
        """Registers a custom collector once under `name` and returns it, or the one registered before.

        For values that are worked out at the time of a scrape; multi-process mode does not see them. Raises
        `MetricClash` when `definition`, what the collector was made from, is not equal to that of the one
        registered before, and when a family of the collector is taken.
        """

        def make_and_register() -> C:
            collector = make()
            self.registry.register(collector)
            return collector

        declaration = Declaration(name=self.full_name(name), kind="collector", details={"definition": definition})
        return get_or_create(self.registry, declaration, make_and_register)

    def _declare(self, kind: type[W], name: str, help: str, label_names: tuple[str, ...], **details: Any) -> W:
        full_name = self.full_name(name)
        declaration = Declaration(name=full_name, kind=kind.__name__.lower(), label_names=label_names, details=details)
        return get_or_create(
            self.registry,
            declaration,
            lambda: kind(full_name, help, label_names, registry=self.registry, **details),
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scope)
            and (self.prefix, self.naming) == (other.prefix, other.naming)
            and self.registry is other.registry
        )

    def __hash__(self) -> int:
        return hash((self.prefix, self.naming, id(self.registry)))

    def __reduce__(self) -> tuple[Any, ...]:
        if self.registry is not prometheus_client.REGISTRY:
            raise TypeError(f"{self!r} has a registry of its own, which cannot be sent to another process")
        return Scope, (self.prefix, None, self.naming)

    def __repr__(self) -> str:
        return f"Scope({self.prefix!r}, naming={self.naming.value})"


@frozen
class ContextMetric(Generic[M]):
    """A metric whose labels include those of the context, see `metrics.labels`."""

    metric: M
    label_names: tuple[str, ...]

    def labels(self, **extra: str) -> M:
        """Returns the child for the context labels in force plus `extra`, which must be exactly the metric's
        own.

        A context label without a value is the empty text.
        """
        if not self.label_names:
            return self.metric
        current = current_labels()
        keys = process_keys.keys
        if unknown := extra.keys() - set(self.label_names):
            raise MetricError(f"{self.metric} has no label {', '.join(sorted(unknown))}")
        if missing := set(self.label_names) - extra.keys() - set(keys):
            raise MetricError(f"{self.metric} needs a value for label {', '.join(sorted(missing))}")
        values = [extra[name] if name in extra else current.get(name, "") for name in self.label_names]
        return self.metric.labels(*values)


def _prefix(name: str, naming: Naming) -> str:
    separator = ":" if naming is Naming.FLYTE else "_"
    if not name:
        raise MetricError("a scope's name is empty: give it at least one letter")
    stem = clean_flyte_name(name) if naming is Naming.FLYTE else name
    stem = stem.rstrip(separator)
    if not stem:
        raise MetricError(f"scope name {name!r} has nothing left to be called by: use letters")
    return check_metric_name(stem, colons=naming is Naming.FLYTE) + separator


def _label_names(names: Sequence[str], *, context_labels: bool, reserved: str = "") -> tuple[str, ...]:
    checked = check_label_names(names, reserved=reserved)
    if not context_labels:
        return checked
    return tuple(sorted({*checked, *process_keys.use()}))


def _check_buckets(name: str, buckets: Sequence[float]) -> tuple[float, ...]:
    bounds = tuple(float(bound) for bound in buckets)
    if not bounds or any(low >= high for low, high in pairwise(bounds)) or bounds[0] != bounds[0]:
        raise MetricError(f"buckets of {name} must be at least one upper bound, each above the last: {bounds}")
    return bounds
