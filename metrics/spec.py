"""Metrics as a table: what is declared, exposed, drawn and documented comes from one list of rows."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import field, frozen

from metrics.errors import MetricError

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    from metrics.scope import MultiprocessMode, Scope

__all__ = ["MetricKind", "MetricSpec"]


class MetricKind(StrEnum):
    """A Prometheus type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@frozen(kw_only=True)
class MetricSpec:
    """One row: `name` without the scope's prefix and without a counter's `_total`."""

    name: str
    kind: MetricKind
    help: str
    label_names: tuple[str, ...] = ()
    buckets: tuple[float, ...] = field(default=())
    multiprocess_mode: MultiprocessMode = "all"

    def counter(self, scope: Scope) -> Counter:
        """Declares the counter in a scope."""
        self._require(MetricKind.COUNTER)
        return scope.counter(self.name, self.help, self.label_names)

    def gauge(self, scope: Scope) -> Gauge:
        """Declares the gauge in a scope."""
        self._require(MetricKind.GAUGE)
        return scope.gauge(self.name, self.help, self.label_names, self.multiprocess_mode)

    def histogram(self, scope: Scope) -> Histogram:
        """Declares the histogram in a scope."""
        self._require(MetricKind.HISTOGRAM)
        return scope.histogram(self.name, self.help, self.label_names, self.buckets)

    def counter_family(self, scope: Scope) -> CounterMetricFamily:
        """Returns the empty family that a custom collector fills."""
        self._require(MetricKind.COUNTER)
        from prometheus_client.metrics_core import CounterMetricFamily

        return CounterMetricFamily(scope.full_name(self.name), self.help, labels=self.label_names)

    def gauge_family(self, scope: Scope) -> GaugeMetricFamily:
        """Returns the empty family that a custom collector fills."""
        self._require(MetricKind.GAUGE)
        from prometheus_client.metrics_core import GaugeMetricFamily

        return GaugeMetricFamily(scope.full_name(self.name), self.help, labels=self.label_names)

    def histogram_family(self, scope: Scope) -> HistogramMetricFamily:
        """Returns the empty family that a custom collector fills."""
        self._require(MetricKind.HISTOGRAM)
        from prometheus_client.metrics_core import HistogramMetricFamily

        return HistogramMetricFamily(scope.full_name(self.name), self.help, labels=self.label_names)

    def series_names(self, prefix: str) -> tuple[str, ...]:
        """Returns the names under which queries find the metric."""
        suffixes = {
            MetricKind.COUNTER: ("_total",),
            MetricKind.GAUGE: ("",),
            MetricKind.HISTOGRAM: ("_bucket", "_sum", "_count"),
        }
        return tuple(f"{prefix}{self.name}{suffix}" for suffix in suffixes[self.kind])

    def _require(self, kind: MetricKind) -> None:
        if self.kind is not kind:
            raise MetricError(f"metric {self.name} is a {self.kind}, not a {kind}")
