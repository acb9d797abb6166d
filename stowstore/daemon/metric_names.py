"""The metrics of a mount: one table, from which they are exposed, drawn and alerted on.

A mount is a process that is scraped by itself, so what it counts needs no label for it; ``mount_info`` says which
volume an instance serves.  Names are append-only: they end up in other people's dashboards.
"""

from __future__ import annotations

from typing import Final

from metrics.spec import MetricKind, MetricSpec

__all__ = [
    "FAILURES",
    "FETCHED_BYTES",
    "FETCHES",
    "HANDED_OVER",
    "INFO",
    "INODES",
    "MOUNT_METRICS",
    "READ_BYTES",
    "REQUESTS",
    "STAGED_BYTES",
    "USED_BYTES",
    "WAITING",
    "WRITTEN_BYTES",
]


def _counter(name: str, text: str, *labels: str) -> MetricSpec:
    return MetricSpec(name=name, kind=MetricKind.COUNTER, help=text, label_names=labels)


def _gauge(name: str, text: str, *labels: str) -> MetricSpec:
    return MetricSpec(name=name, kind=MetricKind.GAUGE, help=text, label_names=labels)


INFO: Final = _gauge("mount_info", "1, and by its labels the volume that is mounted, and how", "volume", "access")
REQUESTS: Final = _counter("mount_requests", "Requests of the kernel", "operation")
FAILURES: Final = _counter("mount_failures", "Requests answered with an error")
READ_BYTES: Final = _counter("mount_read_bytes", "Bytes handed to readers")
WRITTEN_BYTES: Final = _counter("mount_written_bytes", "Bytes taken from writers")
HANDED_OVER: Final = _counter("mount_handed_over", "Requests that had to wait for the store or the disk")
WAITING: Final = _gauge("mount_waiting", "Requests waiting now")
USED_BYTES: Final = _gauge("mount_used_bytes", "Bytes the volume holds")
INODES: Final = _gauge("mount_inodes", "Inodes the volume holds")
STAGED_BYTES: Final = _gauge("mount_staged_bytes", "Bytes not yet uploaded")
FETCHES: Final = _counter("mount_fetches", "Requests to the store for data")
FETCHED_BYTES: Final = _counter("mount_fetched_bytes", "Bytes fetched from the store")

#: Every metric of a mount, in the order of the documentation.
MOUNT_METRICS: Final = (
    INFO,
    REQUESTS,
    FAILURES,
    READ_BYTES,
    WRITTEN_BYTES,
    HANDED_OVER,
    WAITING,
    USED_BYTES,
    INODES,
    STAGED_BYTES,
    FETCHES,
    FETCHED_BYTES,
)
