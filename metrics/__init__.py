"""How anything here is measured: scopes, labelled counters, stopwatches, histograms and their exposition.

```python
from metrics import Scope, labels, start_http_server

scope = Scope("stow")
reads = scope.counter("reads", "Objects read", ("outcome",))     # exposed as stow_reads_total
latency = scope.stopwatch("read", "Time to read an object")      # exposed as stow_read_seconds

with latency.start():
    reads.labels("ok").inc()

server = start_http_server(9100)                                 # http://127.0.0.1:9100/metrics
```

The objects are those of `prometheus_client`; this package adds one way of naming, declarations that may be
repeated, labels taken from the context, and safe defaults. It knows nothing of storage. The client's
`_created` series double the number of counters: whether to have them is the application's choice
(`prometheus_client.disable_created_metrics()` or `PROMETHEUS_DISABLE_CREATED_SERIES=true`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.context import current_labels, label_keys, labels, set_label_keys
    from metrics.errors import MetricClash, MetricError
    from metrics.exposition import (
        MetricsServer,
        generate_text,
        is_multiprocess,
        mark_process_dead,
        start_http_server,
        write_textfile,
    )
    from metrics.scope import DEFAULT_BUCKETS, ContextMetric, MultiprocessMode, Naming, Scope
    from metrics.stopwatch import Stopwatch, Timer, Unit

__all__ = [
    "DEFAULT_BUCKETS",
    "ContextMetric",
    "MetricClash",
    "MetricError",
    "MetricsServer",
    "MultiprocessMode",
    "Naming",
    "Scope",
    "Stopwatch",
    "Timer",
    "Unit",
    "current_labels",
    "generate_text",
    "is_multiprocess",
    "label_keys",
    "labels",
    "mark_process_dead",
    "set_label_keys",
    "start_http_server",
    "write_textfile",
]

_HOMES = {
    "metrics.context": ("current_labels", "label_keys", "labels", "set_label_keys"),
    "metrics.errors": ("MetricClash", "MetricError"),
    "metrics.exposition": (
        "MetricsServer",
        "generate_text",
        "is_multiprocess",
        "mark_process_dead",
        "start_http_server",
        "write_textfile",
    ),
    "metrics.scope": ("DEFAULT_BUCKETS", "ContextMetric", "MultiprocessMode", "Naming", "Scope"),
    "metrics.stopwatch": ("Stopwatch", "Timer", "Unit"),
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the client library brings a web server and a web client, which tables of metrics,
    # and processes that nobody scrapes, do without.
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
