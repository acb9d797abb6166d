"""The store's dashboard, alerts and translations of older names, all from the table of its metrics.

``python -m datastore.dashboards`` writes the files that come with `metrics.dashboards`; a test holds them
current.
"""

from __future__ import annotations

from typing import Final

from datastore.metric_names import (
    CACHE_REQUESTS,
    CONTAINERS_LOADED,
    DURATION,
    ERRORS,
    FIRST_BYTE,
    IN_PROGRESS,
    LAST_WRITE,
    OPERATIONS,
    RETRIES,
    SIZE,
    TRANSFERRED,
    bucket,
    count,
    series,
    total,
)
from datastore.translated_names import flyte_rules, thanos_rules
from metrics.dashboards import ship
from metrics.dashboards.grafana import Dashboard, Panel, PanelKind, Query, Row, Variable
from metrics.dashboards.rules import AlertRule, RuleGroup, rules_yaml
from metrics.spec import MetricSpec

__all__ = ["files", "store_alerts", "store_dashboard"]


def files() -> dict[str, str]:
    """The shipped files, by name."""
    made = "Made by `python -m datastore.dashboards`: change the table there, not this file."
    return {
        "stow_store.json": store_dashboard().to_json(),
        "stow_store_alerts.yml": rules_yaml([store_alerts()], comment=made),
        "flyte_names.yml": rules_yaml(
            [flyte_rules()], comment=f"flytestdlib's series, recorded from those of a stowstore.\n{made}"
        ),
        "thanos_names.yml": rules_yaml(
            [thanos_rules()], comment=f"thanos objstore's series, recorded from those of a stowstore.\n{made}"
        ),
    }


# -- dashboard ------------------------------------------------------------------------------------------------------

_STORE: Final = 'location=~"$location", backend=~"$backend"'
_CHOSEN: Final = f'{_STORE}, operation=~"$operation"'


def _rate(name: str, *conditions: str, **equal: str) -> str:
    matchers = (*conditions, *(f'{label}="{value}"' for label, value in equal.items()))
    return f"rate({name}{{{', '.join((_CHOSEN, *matchers))}}}[$__rate_interval])"


def _quantile(quantile: float, metric: MetricSpec) -> str:
    return f"histogram_quantile({quantile}, sum by (le, operation) ({_rate(bucket(metric))}))"


def _panel(title: str, *queries: tuple[str, str], unit: str, description: str = "", width: int = 8) -> Panel:
    return Panel(
        title=title,
        queries=tuple(Query(expr=expr, legend=legend) for expr, legend in queries),
        unit=unit,
        description=description,
        width=width,
    )


def _heat_map(title: str, metric: MetricSpec, unit: str, width: int = 8) -> Panel:
    query = Query(expr=f"sum by (le) (increase({bucket(metric)}{{{_CHOSEN}}}[$__rate_interval]))", legend="{{le}}")
    return Panel(title=title, queries=(query,), kind=PanelKind.HEATMAP, unit=unit, width=width)


def store_dashboard() -> Dashboard:
    """What a store does, in four rows: health, latency, volume of data, resilience."""
    operations = f"sum ({_rate(series(OPERATIONS))})"
    failures = _rate(series(ERRORS), 'code!="CANCELLED"')
    bytes_by = f"sum by (operation, direction) ({_rate(total(SIZE))})"
    sizes_by = f"sum by (operation, direction) ({_rate(count(SIZE))})"
    requests = f"sum ({_rate(series(CACHE_REQUESTS))})"
    health = (
        _panel(
            "Operations per second",
            (f"sum by (operation) ({_rate(series(OPERATIONS))})", "{{operation}}"),
            unit="ops",
        ),
        _panel(
            "Share of operations that failed, by code",
            (
                f"sum by (code) ({failures})\n  / ignoring (code) group_left\n{operations}",
                "{{code}}",
            ),
            unit="percentunit",
            description="Answers such as NOT_FOUND are among them; alerts leave them out.",
        ),
        _panel(
            "In progress",
            (f"sum by (operation) ({series(IN_PROGRESS)}{{{_CHOSEN}}})", "{{operation}}"),
            unit="short",
        ),
        _panel(
            "Since the last successful write",
            (
                f"time() - (max by (backend, location) ({series(LAST_WRITE)}{{{_STORE}}}) > 0)",
                "{{backend}} {{location}}",
            ),
            unit="s",
            width=12,
        ),
        _panel(
            "Containers loaded",
            (
                f"sum by (backend, location) ({series(CONTAINERS_LOADED)}{{{_STORE}}})",
                "{{backend}} {{location}}",
            ),
            unit="short",
            width=12,
        ),
    )
    latency = (
        *(
            _panel(f"p{round(100 * quantile)} by operation", (_quantile(quantile, DURATION), "{{operation}}"), unit="s")
            for quantile in (0.5, 0.95, 0.99)
        ),
        _panel(
            "Reads, p95: first byte and whole",
            (_quantile(0.95, FIRST_BYTE), "first byte"),
            (
                f"histogram_quantile(0.95, sum by (le) ({_rate(bucket(DURATION), operation='read')}))",
                "whole",
            ),
            unit="s",
            width=12,
        ),
        _heat_map("Durations", DURATION, "s", width=12),
    )
    volume = (
        _panel(
            "Bytes per second",
            (f"sum by (direction) ({_rate(series(TRANSFERRED))})", "{{direction}}"),
            unit="Bps",
        ),
        _heat_map("Sizes", SIZE, "bytes"),
        _panel(
            "Mean size",
            (f"{bytes_by}\n  /\n{sizes_by}", "{{operation}} {{direction}}"),
            unit="bytes",
        ),
    )
    resilience = (
        _panel(
            "Retries per second, by reason",
            (f"sum by (reason) ({_rate(series(RETRIES))})", "{{reason}}"),
            unit="ops",
        ),
        _panel(
            "Retries per operation", (f"sum ({_rate(series(RETRIES))})\n  /\n{operations}", "ratio"), unit="percentunit"
        ),
        _panel(
            "Throttled",
            (f"sum ({_rate(series(ERRORS), code='THROTTLED')})", "given up"),
            (f"sum ({_rate(series(RETRIES), reason='throttled')})", "tried again"),
            unit="ops",
        ),
        _panel(
            "Cache hit ratio",
            (f"sum ({_rate(series(CACHE_REQUESTS), result='hit')})\n  /\n{requests}", "hits"),
            unit="percentunit",
            width=12,
        ),
        _panel(
            "Cancelled per second",
            (
                f"sum by (operation) ({_rate(series(OPERATIONS), outcome='cancelled')})",
                "{{operation}}",
            ),
            unit="ops",
            width=12,
        ),
    )
    return Dashboard(
        title="Stowstore: stores",
        uid="stow-store",
        description="Operations of the object stores a process uses.",
        tags=("stowstore",),
        variables=(
            Variable(label="location", metric=series(OPERATIONS)),
            Variable(label="backend", metric=series(OPERATIONS)),
            Variable(label="operation", metric=series(OPERATIONS)),
        ),
        rows=(
            Row(title="Health", panels=health),
            Row(title="Latency", panels=latency),
            Row(title="Volume of data", panels=volume),
            Row(title="Resilience", panels=resilience),
        ),
    )


# -- alerts ---------------------------------------------------------------------------------------------------------

_BY_STORE: Final = "sum by (backend, location)"
_WHERE: Final = "{{ $labels.backend }} location {{ $labels.location }}"


def store_alerts(
    *,
    error_ratio: float = 0.01,
    read_seconds: float = 5.0,
    retry_ratio: float = 0.1,
    silent_seconds: int = 1800,
) -> RuleGroup:
    """The alerts, with their thresholds; those of the shipped file are the defaults."""
    operations = series(OPERATIONS)
    return RuleGroup(
        name="stow_store",
        rules=(
            AlertRule(
                alert="StowErrors",
                expr=f'{_BY_STORE} (rate({operations}{{outcome="error"}}[5m]))\n'
                f"  / {_BY_STORE} (rate({operations}[5m])) > {error_ratio:g}",
                lasting="10m",
                labels={"severity": "critical"},
                summary=f"{{{{ $value | humanizePercentage }}}} of operations on {_WHERE} fail",
                description="Answers such as NOT_FOUND are not counted. The dashboard shows the codes.",
            ),
            AlertRule(
                alert="StowSlowReads",
                expr="histogram_quantile(0.99, sum by (le, backend, location)\n"
                f'  (rate({bucket(DURATION)}{{operation="read"}}[5m]))) > {read_seconds:g}',
                lasting="10m",
                labels={"severity": "warning"},
                summary=f"One read in a hundred on {_WHERE} takes {{{{ $value | humanizeDuration }}}} or more",
                description="A read lasts until its stream is closed: compare the first byte with the whole.",
            ),
            AlertRule(
                alert="StowRetrying",
                expr=f"{_BY_STORE} (rate({series(RETRIES)}[5m]))\n"
                f"  / {_BY_STORE} (rate({operations}[5m])) > {retry_ratio:g}",
                lasting="15m",
                labels={"severity": "warning"},
                summary=f"{{{{ $value | humanizePercentage }}}} of operations on {_WHERE} are tried again",
                description="The backend throttles or fails; callers only see it as latency so far.",
            ),
            AlertRule(
                alert="StowNotWriting",
                expr=f"time() - max by (backend, location) ({series(LAST_WRITE)}) > {silent_seconds}\n"
                "and on (backend, location) (\n"
                f'  {_BY_STORE} (rate({operations}{{operation="write", outcome="error"}}[10m])) > 0\n'
                f'  or {_BY_STORE} ({series(IN_PROGRESS)}{{operation="write"}}) > 0\n'
                ")",
                lasting="5m",
                labels={"severity": "critical"},
                summary=f"Writes to {_WHERE} fail or hang, none has succeeded lately",
                description="Look at the codes of write errors, and at writes in progress.",
            ),
        ),
    )


if __name__ == "__main__":
    ship(files())
