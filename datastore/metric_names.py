"""The metrics of a data store: one table, from which they are declared, drawn, alerted on and documented.

Values of labels come from the closed sets below or from configuration (``backend``, ``location``); never
from a key, a path, a URL or an error's text.  Names and values are append-only: they end up in other
people's dashboards.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from datastore.errors import ErrorCode
from metrics.spec import MetricKind, MetricSpec

__all__ = [
    "CACHE_REQUESTS",
    "CONTAINERS_LOADED",
    "DURATION",
    "ERRORS",
    "EXPECTED_ERRORS",
    "FIRST_BYTE",
    "IN_PROGRESS",
    "LAST_WRITE",
    "OPERATIONS",
    "PREFIX",
    "RETRIES",
    "SIZE",
    "STORE_METRICS",
    "TRANSFERRED",
    "Backend",
    "CacheResult",
    "Direction",
    "Operation",
    "Outcome",
    "RetryReason",
    "bucket",
    "count",
    "series",
    "total",
]

#: What the names start with in dashboards and rules: the prefix of ``Scope("stow")``.
PREFIX: Final = "stow_"


class Backend(StrEnum):
    """What kind of backend a store is over; kinds that are not of this project are ``other``."""

    S3 = "s3"
    GCS = "gcs"
    AZURE = "azure"
    SWIFT = "swift"
    LOCAL = "local"
    MEMORY = "memory"
    REDIS = "redis"
    OTHER = "other"

    @classmethod
    def of(cls, kind: str) -> Backend:
        """The backend of a kind of location, under any name it goes by."""
        return _BACKENDS.get(kind.lower(), cls.OTHER)


_BACKENDS: Final = {backend.value: backend for backend in Backend} | {
    "file": Backend.LOCAL,
    "google": Backend.GCS,
    "gs": Backend.GCS,
    "mem": Backend.MEMORY,
    "minio": Backend.S3,
}


class Operation(StrEnum):
    """What was asked of a store."""

    HEAD = "head"
    LIST = "list"
    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    DELETE_MANY = "delete_many"
    COPY = "copy"
    SIGN = "sign"
    CREATE_CONTAINER = "create_container"
    LOAD_CONTAINER = "load_container"
    DELETE_CONTAINER = "delete_container"


class Outcome(StrEnum):
    """How an operation ended."""

    OK = "ok"
    EXPECTED_ERROR = "expected_error"
    """An answer rather than a fault: the object is not there, or is already there."""
    ERROR = "error"
    CANCELLED = "cancelled"
    """The caller gave up: cancelled, or closed a stream before its end."""


class Direction(StrEnum):
    """Where bytes went, seen from this process."""

    IN = "in"
    OUT = "out"


class RetryReason(StrEnum):
    """Why an operation was tried again."""

    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    SERVER = "server"
    CONNECTION = "connection"


class CacheResult(StrEnum):
    """What a cache made of a request."""

    HIT = "hit"
    MISS = "miss"
    BYPASS = "bypass"


#: Codes that are answers; what counts as `Outcome.EXPECTED_ERROR` unless a store is told otherwise.
EXPECTED_ERRORS: Final = frozenset(
    {
        ErrorCode.NOT_FOUND,
        ErrorCode.NO_SUCH_CONTAINER,
        ErrorCode.ALREADY_EXISTS,
        ErrorCode.PRECONDITION_FAILED,
        ErrorCode.CONTAINER_NOT_EMPTY,
        ErrorCode.LIMIT_EXCEEDED,
        ErrorCode.NOT_SUPPORTED,
    }
)

_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_KIB, _MIB, _GIB = 2.0**10, 2.0**20, 2.0**30
_BYTES: Final = (
    *(4 * _KIB, 64 * _KIB, 256 * _KIB),
    *(_MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB),
    *(_GIB, 5 * _GIB),
)
_STORE: Final = ("backend", "location")
_LABELS: Final = (*_STORE, "operation")

OPERATIONS: Final = MetricSpec(
    name="operations",
    kind=MetricKind.COUNTER,
    help="Operations that ended, by how they ended; a read ends when its stream does",
    label_names=(*_LABELS, "outcome"),
)
ERRORS: Final = MetricSpec(
    name="operation_errors",
    kind=MetricKind.COUNTER,
    help="Operations that did not end well, expected errors and cancelled ones included, by error code",
    label_names=(*_LABELS, "code"),
)
DURATION: Final = MetricSpec(
    name="operation_duration_seconds",
    kind=MetricKind.HISTOGRAM,
    help="Seconds from the call to the end of the operation, whatever its outcome",
    label_names=_LABELS,
    buckets=_SECONDS,
)
FIRST_BYTE: Final = MetricSpec(
    name="read_first_byte_seconds",
    kind=MetricKind.HISTOGRAM,
    help="Seconds from the call of a read to its first bytes",
    label_names=_LABELS,
    buckets=_SECONDS,
)
TRANSFERRED: Final = MetricSpec(
    name="transferred_bytes",
    kind=MetricKind.COUNTER,
    help="Bytes read (in), those of unfinished reads included, and written (out) by writes that succeeded",
    label_names=(*_LABELS, "direction"),
)
SIZE: Final = MetricSpec(
    name="operation_size_bytes",
    kind=MetricKind.HISTOGRAM,
    help="Bytes a successful operation read (in) or wrote (out)",
    label_names=(*_LABELS, "direction"),
    buckets=_BYTES,
)
IN_PROGRESS: Final = MetricSpec(
    name="operations_in_progress",
    kind=MetricKind.GAUGE,
    help="Operations that have begun and not ended, open read streams included",
    label_names=_LABELS,
    multiprocess_mode="livesum",
)
RETRIES: Final = MetricSpec(
    name="retries",
    kind=MetricKind.COUNTER,
    help="Attempts after the first, by why they were needed",
    label_names=(*_LABELS, "reason"),
)
CACHE_REQUESTS: Final = MetricSpec(
    name="cache_requests",
    kind=MetricKind.COUNTER,
    help="Requests to the cache, by result",
    label_names=(*_LABELS, "result"),
)
CONTAINERS_LOADED: Final = MetricSpec(
    name="containers_loaded",
    kind=MetricKind.GAUGE,
    help="Containers the store has loaded",
    label_names=_STORE,
    multiprocess_mode="livesum",
)
LAST_WRITE: Final = MetricSpec(
    name="last_successful_write_timestamp_seconds",
    kind=MetricKind.GAUGE,
    help="Unix time of the last write that succeeded, 0 before the first",
    label_names=_STORE,
    multiprocess_mode="mostrecent",
)

#: Every metric of a store, in the order of the documentation.
STORE_METRICS: Final = (
    OPERATIONS,
    ERRORS,
    DURATION,
    FIRST_BYTE,
    TRANSFERRED,
    SIZE,
    IN_PROGRESS,
    RETRIES,
    CACHE_REQUESTS,
    CONTAINERS_LOADED,
    LAST_WRITE,
)


def series(metric: MetricSpec) -> str:
    """The name under which queries find a counter or a gauge."""
    (name,) = metric.series_names(PREFIX)
    return name


def bucket(metric: MetricSpec) -> str:
    """The name under which queries find a histogram's buckets."""
    return metric.series_names(PREFIX)[0]


def total(metric: MetricSpec) -> str:
    """The name under which queries find the sum of what a histogram observed."""
    return metric.series_names(PREFIX)[1]


def count(metric: MetricSpec) -> str:
    """The name under which queries find how often a histogram observed."""
    return metric.series_names(PREFIX)[2]
