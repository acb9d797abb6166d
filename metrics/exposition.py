"""How metrics leave the process: over HTTP, as a text file, or as text.

In multi-process mode (`PROMETHEUS_MULTIPROC_DIR` set before Python starts, an empty directory) every process
writes its values to files there, and each of the functions below, asked for the default registry, reads them
all. What that mode cannot carry are custom collectors.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import CollectorRegistry, Metric, generate_latest, values, write_to_textfile
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.multiprocess import mark_process_dead as _mark_process_dead
from prometheus_client.registry import RestrictedRegistry

from metrics.errors import MetricError

__all__ = [
    "MetricsServer",
    "generate_text",
    "is_multiprocess",
    "mark_process_dead",
    "start_http_server",
    "write_textfile",
]


def start_http_server(
    port: int = 0, addr: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> "MetricsServer":
    """Starts serving metrics in a background thread and returns its handle.

    Port 0 takes a free one. Only this machine can connect unless `addr` says otherwise (`"0.0.0.0"` for
    all): metrics tell what a service does and nothing asks who reads them. Any path answers, `/metrics` by
    convention. `registry` None is the default one, or all processes' values in multi-process mode. Raises
    `OSError` when the address is taken.
    """
    server, thread = prometheus_client.start_http_server(port, addr, registry=_source(registry))
    return MetricsServer(server, thread)


class MetricsServer:
    """A running metrics endpoint: a context manager, stopped by `close()`, which may be called twice."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.addr: str = str(server.server_address[0])
        self.port: int = server.server_port

    @property
    def url(self) -> str:
        """The address to scrape."""
        host = f"[{self.addr}]" if ":" in self.addr else self.addr
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops serving and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MetricsServer({self.url})"


def write_textfile(path: str | os.PathLike[str], registry: CollectorRegistry | None = None) -> None:
    """Writes all metrics to a file for the node exporter's textfile collector, which reads `*.prom`.

    The file is replaced whole by a rename, so a reader never sees half of it.
    """
    write_to_textfile(os.fspath(Path(path)), _source(registry))


def generate_text(registry: CollectorRegistry | None = None) -> str:
    """Returns all metrics in the Prometheus text format."""
    return generate_latest(_source(registry)).decode()


def is_multiprocess() -> bool:
    """Returns whether the client library keeps its values in files, which it decides when it is imported."""
    return values.ValueClass is not values.MutexValue


def mark_process_dead(pid: int) -> None:
    """Drops the `live*` gauges of a process that ended; for gunicorn's `child_exit` hook and its kin.

    Its counters stay: they happened. Raises `MetricError` outside multi-process mode.
    """
    if not is_multiprocess():
        raise MetricError(
            "mark_process_dead is for multi-process mode: set PROMETHEUS_MULTIPROC_DIR before Python starts"
        )
    _mark_process_dead(pid)  # type: ignore[no-untyped-call]


class _AllProcesses(CollectorRegistry):
    """A registry that reads the files of every process afresh at each scrape."""

    def collect(self) -> Iterable[Metric]:
        return self._fresh().collect()

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        return self._fresh().restricted_registry(names)

    def _fresh(self) -> CollectorRegistry:
        registry = CollectorRegistry(support_collectors_without_names=True)
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry


def _source(registry: CollectorRegistry | None) -> CollectorRegistry:
    if registry is not None:
        return registry
    return _AllProcesses() if is_multiprocess() else prometheus_client.REGISTRY
