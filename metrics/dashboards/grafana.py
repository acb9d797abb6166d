"""Grafana dashboards as values: rows of panels with queries, and the variables they filter by.

A panel says what it shows, not where: rows wrap at Grafana's 24 columns. The output is the JSON model of
Grafana 10 and later, with a data source variable, so that one file fits every installation.
"""

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final

from attrs import field, frozen
from attrs.validators import in_, min_len

from metrics.dashboards.promql import metric_names

__all__ = ["Dashboard", "Panel", "PanelKind", "Query", "Row", "Variable"]

_COLUMNS: Final = 24
_SCHEMA_VERSION: Final = 39
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


class PanelKind(StrEnum):
    """What a panel draws, by Grafana's name of the panel type."""

    TIME_SERIES = "timeseries"
    HEATMAP = "heatmap"
    STAT = "stat"


@frozen(kw_only=True)
class Query:
    """One PromQL expression; `legend` may use `{{label}}`. `exemplars` asks for links to traces."""

    expr: str = field(validator=min_len(1))
    legend: str = ""
    exemplars: bool = False


@frozen(kw_only=True)
class Panel:
    """One chart. `unit` is Grafana's id (`s`, `bytes`, `Bps`, `ops`, `percentunit`, `short`)."""

    title: str = field(validator=min_len(1))
    queries: tuple[Query, ...] = field(validator=min_len(1))
    kind: PanelKind = PanelKind.TIME_SERIES
    unit: str = "short"
    description: str = ""
    width: int = field(default=8, validator=in_(range(1, _COLUMNS + 1)))
    height: int = 8


@frozen(kw_only=True)
class Row:
    """A titled group of panels, from left to right and then down."""

    title: str = field(validator=min_len(1))
    panels: tuple[Panel, ...] = field(validator=min_len(1))


@frozen(kw_only=True)
class Variable:
    """A filter at the top of the dashboard: all values of `label` that `metric` has, several at a time."""

    label: str
    metric: str
    title: str = ""


@frozen(kw_only=True)
class Dashboard:
    """A whole dashboard; `uid` stays the same for ever, because links contain it."""

    title: str
    uid: str = field(validator=min_len(1))
    rows: tuple[Row, ...] = field(validator=min_len(1))
    variables: tuple[Variable, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()
    refresh: str = "30s"

    def metric_names(self) -> frozenset[str]:
        """Returns the names of all series that panels and variables read."""
        queries = (query for row in self.rows for panel in row.panels for query in panel.queries)
        return frozenset().union(
            *(metric_names(query.expr) for query in queries), (variable.metric for variable in self.variables)
        )

    def to_json(self) -> str:
        """Returns the JSON model, to be imported or provisioned."""
        model = {
            "__inputs": [],
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": list(self.tags),
            "schemaVersion": _SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": [_data_source_variable(), *map(_variable, self.variables)]},
            "annotations": {"list": []},
            "panels": list(_placed(self.rows)),
        }
        return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def _placed(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        number, top = number + 1, top + 1
        left = line_height = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, top, line_height = 0, top + line_height, 0
            yield {"id": number, **_panel(panel), "gridPos": _place(panel, left, top)}
            number, left, line_height = number + 1, left + panel.width, max(line_height, panel.height)
        top += line_height


def _place(panel: Panel, left: int, top: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": panel.width, "h": panel.height}


def _panel(panel: Panel) -> dict[str, Any]:
    heatmap = panel.kind is PanelKind.HEATMAP
    options: dict[str, Any] = {}
    if heatmap:
        options = {"calculate": False, "yAxis": {"unit": panel.unit}, "exemplars": {"color": "orange"}}
    elif panel.kind is PanelKind.TIME_SERIES:
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "format": "heatmap" if heatmap else "time_series",
                "exemplar": query.exemplars,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _data_source_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.label,
        "label": variable.title or variable.label.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
