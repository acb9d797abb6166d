"""The ``/metrics`` of a mount, on the loopback address."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metrics import MetricsServer, start_http_server
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
        requests = CounterMetricFamily("stow_mount_requests", "Requests of the kernel", labels=("operation",))
        for name, count in served.requests.items():
            requests.add_metric((name,), count)
        yield requests
        yield CounterMetricFamily("stow_mount_failures", "Requests answered with an error", value=served.failures)
        yield CounterMetricFamily("stow_mount_read_bytes", "Bytes handed to readers", value=served.read_bytes)
        yield CounterMetricFamily("stow_mount_written_bytes", "Bytes taken from writers", value=served.written_bytes)
        yield CounterMetricFamily(
            "stow_mount_handed_over", "Requests that had to wait for the store or the disk", value=served.handed_over
        )
        yield GaugeMetricFamily("stow_mount_waiting", "Requests waiting now", value=served.in_workers)
        used, inodes = session.files.usage()
        yield GaugeMetricFamily("stow_mount_used_bytes", "Bytes the volume holds", value=used)
        yield GaugeMetricFamily("stow_mount_inodes", "Inodes the volume holds", value=inodes)
        yield GaugeMetricFamily(
            "stow_mount_staged_bytes", "Bytes not yet uploaded", value=session.files.content.staged_bytes
        )
        reader = session.chunks.reader.stats
        yield CounterMetricFamily("stow_mount_fetches", "Requests to the store for data", value=reader.requests)
        yield CounterMetricFamily(
            "stow_mount_fetched_bytes", "Bytes fetched from the store", value=reader.fetched_bytes
        )
