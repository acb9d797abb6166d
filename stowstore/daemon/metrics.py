"""The ``/metrics`` of a mount, on the loopback address: what the mount counts, and what its stores do."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datastore.metric_names import PREFIX
from metrics import MetricsServer, start_http_server
from metrics.spec import MetricKind, MetricSpec
from stowstore.daemon import metric_names as names
from stowstore.daemon.mounted import Mounted

__all__ = ["serve_metrics"]


def serve_metrics(mounted: Mounted, port: int) -> MetricsServer:
    """Serves what the daemon counts on 127.0.0.1, on a free port for 0."""
    registry = CollectorRegistry()
    registry.register(_MountCollector(mounted))
    return start_http_server(port, registry=registry)


class _MountCollector(Collector):
    """Reads the counters when they are asked for, so that serving costs nothing more."""

    def __init__(self, mounted: Mounted) -> None:
        self._mounted = mounted

    def collect(self) -> Iterator[Metric]:
        session = self._mounted.session
        served = self._mounted.server.statistics
        used, inodes = session.files.usage()
        reader = session.chunks.reader.stats
        access = "ro" if session.read_only else "rw"
        yield _family(names.INFO, 1, session.volume, access)
        requests = CounterMetricFamily(
            f"{PREFIX}{names.REQUESTS.name}", names.REQUESTS.help, labels=names.REQUESTS.label_names
        )
        for name, count in served.requests.items():
            requests.add_metric((name,), count)
        yield requests
        for spec, value in (
            (names.FAILURES, served.failures),
            (names.READ_BYTES, served.read_bytes),
            (names.WRITTEN_BYTES, served.written_bytes),
            (names.HANDED_OVER, served.handed_over),
            (names.WAITING, served.in_workers),
            (names.USED_BYTES, used),
            (names.INODES, inodes),
            (names.STAGED_BYTES, session.files.content.staged_bytes),
            (names.FETCHES, reader.requests),
            (names.FETCHED_BYTES, reader.fetched_bytes),
        ):
            yield _family(spec, value)
        # The root's store counts in the default registry, as it does in every process.
        yield from REGISTRY.collect()


def _family(spec: MetricSpec, value: float, *labels: str) -> Metric:
    make = CounterMetricFamily if spec.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = make(f"{PREFIX}{spec.name}", spec.help, labels=spec.label_names)
    family.add_metric(labels, value)
    return family
