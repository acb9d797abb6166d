"""Series under flytestdlib's and thanos objstore's names, recorded by Prometheus from those of a stowstore.

Costs the application nothing, and ``:`` in names is meant for it.  Whoever cannot add rules finds
flytestdlib's names in `datastore.legacy_names`.  Sums keep job and instance: a counter added up over
processes cannot be given to ``rate()``, because one that restarts would look like a jump.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import evolve

from datastore.metric_names import (
    CACHE_REQUESTS,
    DURATION,
    ERRORS,
    FIRST_BYTE,
    LAST_WRITE,
    OPERATIONS,
    SIZE,
    TRANSFERRED,
    Operation,
    bucket,
    count,
    series,
    total,
)
from metrics.dashboards.rules import RecordingRule, RuleGroup
from metrics.legacy import QUANTILES
from metrics.spec import MetricSpec

__all__ = ["FLYTE_UNRECORDED", "flyte_rules", "thanos_rules"]


#: Families of flytestdlib that have no series to be recorded from, and why.
FLYTE_UNRECORDED: Final[Mapping[str, str]] = {
    "cache_write_err": "cache faults are not counted apart",
    "remote_fetch_ms": "the store below the cache is measured as a store of its own",
    "proto_fetch_ms": "messages are measured as the reads they are",
    "marshal_ms": "encoding is no operation of a store",
    "unmarshal_ms": "encoding is no operation of a store",
    "marshal_failure": "encoding is no operation of a store",
    "unmarshal_failure": "encoding is no operation of a store",
    "write_failure_unrelated_to_cache": "messages are measured as the writes they are",
    "read_failure_unrelated_to_cache": "messages are measured as the reads they are",
    "copy:length_ms": "a size is known before a copy starts",
    "copy:write_failure_unrelated_to_cache": "a copy is one operation",
    "copy:read_failure_unrelated_to_cache": "a copy is one operation",
}

_ELSEWHERE: Final = 'code!~"CANCELLED|INVALID_REFERENCE|CONTAINER_NOT_ALLOWED"'
_FLYTE_TIMED: Final = {
    "head": DURATION,
    "list": DURATION,
    "read_open": FIRST_BYTE,
    "write": DURATION,
    "delete": DURATION,
}


def flyte_rules(prefix: str = "flyte:storage:") -> RuleGroup:
    """flytestdlib's series as recording rules; ``prefix`` is the scope of the store that is replaced.

    The context's labels (project, domain and so on) are not there; backend and location are, except on the
    twins.
    """
    return RuleGroup(name="stow_flyte_names", rules=tuple(_flyte(prefix)))


def _flyte(prefix: str) -> Iterable[RecordingRule]:
    errors = series(ERRORS)
    yield from _with_twin(f"{prefix}bad_key", f'SUM ({errors}{{code="INVALID_REFERENCE"}})', ERRORS)
    yield from _with_twin(f"{prefix}bad_container", f'SUM ({errors}{{code="CONTAINER_NOT_ALLOWED"}})', ERRORS)
    for operation in ("head", "list"):
        selected = f'{errors}{{operation="{operation}", {_ELSEWHERE}}}'
        yield from _with_twin(f"{prefix}{operation}_failure", f"SUM ({selected})", ERRORS)
    for operation in ("read", "write", "delete"):
        selected = f'{errors}{{operation="{operation}", {_ELSEWHERE}}}'
        labelled, twin = _with_twin(f"{prefix}{operation}_failure", f"SUM ({selected})", ERRORS)
        by_type = f'label_replace({selected}, "failure_type", "$1", "code", "(.*)")'
        yield evolve(labelled, expr=f"sum without (operation, code) (\n  {by_type}\n)")
        yield twin
    for name, metric in _FLYTE_TIMED.items():
        matcher = f'{{operation="{name.removesuffix("_open")}"}}'
        for suffix, source in (("bucket", bucket(metric)), ("sum", total(metric)), ("count", count(metric))):
            yield from _with_twin(f"{prefix}{name}", f"SUM ({source}{matcher})", metric, suffix=f"_{suffix}")
        yield from _summary(f"{prefix}{name}", metric, matcher)
    yield from _summary(f"{prefix}copy:overall", DURATION, '{operation="copy"}')
    for name, result in (("cache_hit", "hit"), ("cache_miss", "miss")):
        selected = f'{series(CACHE_REQUESTS)}{{result="{result}"}}'
        yield RecordingRule(record=f"{prefix}{name}", expr=f"sum without (operation, result) ({selected})")


def _summary(name: str, metric: MetricSpec, matcher: str) -> Iterable[RecordingRule]:
    for quantile in QUANTILES:
        expr = f"1000 * histogram_quantile({quantile}, SUM (rate({bucket(metric)}{matcher}[10m])))"
        yield from _with_twin(name, expr, metric, suffix="_ms", labels={"quantile": str(quantile)})
    yield from _with_twin(name, f"1000 * SUM ({total(metric)}{matcher})", metric, suffix="_ms_sum")
    yield from _with_twin(name, f"SUM ({count(metric)}{matcher})", metric, suffix="_ms_count")


def _with_twin(
    name: str, expr: str, metric: MetricSpec, *, suffix: str = "", labels: Mapping[str, str] | None = None
) -> tuple[RecordingRule, RecordingRule]:
    """The rule by store and the one without our labels; ``SUM`` in ``expr`` is where they differ."""
    by_store = f"sum without ({', '.join(metric.label_names[2:])})"
    twin = f"sum without ({', '.join(metric.label_names)})"
    return (
        RecordingRule(record=f"{name}{suffix}", expr=expr.replace("SUM", by_store), labels=labels or {}),
        RecordingRule(record=f"{name}_unlabeled{suffix}", expr=expr.replace("SUM", twin), labels=labels or {}),
    )


#: thanos objstore's name of each of our operations; its ``exists`` is a head here too.
_THANOS: Final = {
    Operation.HEAD: "attributes",
    Operation.LIST: "iter",
    Operation.READ: "get",
    Operation.WRITE: "upload",
    Operation.DELETE: "delete",
}


def thanos_rules(prefix: str = "objstore_bucket_") -> RuleGroup:
    """thanos objstore's series as recording rules, with the location in the label ``bucket``."""
    rules: list[RecordingRule] = []
    for operation, theirs in _THANOS.items():
        sources = [
            ("operations_total", series(OPERATIONS), ""),
            ("operation_failures_total", series(OPERATIONS), ', outcome="error"'),
            *_histogram("operation_duration_seconds", DURATION),
        ]
        if operation in (Operation.READ, Operation.WRITE):
            sources += _histogram("operation_transferred_bytes", SIZE)
        if operation is Operation.READ:
            sources.append(("operation_fetched_bytes_total", series(TRANSFERRED), ""))
        for record, source, matcher in sources:
            selected = f'{source}{{operation="{operation.value}"{matcher}}}'
            expr = f"sum without (location, operation, outcome, direction) ({_bucket_label(selected)})"
            rules.append(RecordingRule(record=f"{prefix}{record}", expr=expr, labels={"operation": theirs}))
    last_write = f"max without (location) ({_bucket_label(series(LAST_WRITE))})"
    rules.append(RecordingRule(record=f"{prefix}last_successful_upload_time", expr=last_write))
    return RuleGroup(name="stow_thanos_names", rules=tuple(rules))


def _histogram(name: str, metric: MetricSpec) -> list[tuple[str, str, str]]:
    return [
        (f"{name}_bucket", bucket(metric), ""),
        (f"{name}_sum", total(metric), ""),
        (f"{name}_count", count(metric), ""),
    ]


def _bucket_label(selected: str) -> str:
    return f'label_replace({selected}, "bucket", "$1", "location", "(.*)")'
