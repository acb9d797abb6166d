"""The builders of dashboards and rules."""

import json
from typing import Any

import pytest
import yaml

from metrics.dashboards import shipped, shipped_names
from metrics.dashboards.grafana import Dashboard, Panel, PanelKind, Query, Row, Variable
from metrics.dashboards.promql import metric_names
from metrics.dashboards.rules import AlertRule, RecordingRule, RuleGroup, rules_yaml


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ("flyte:storage:read_failure", {"flyte:storage:read_failure"}),
        ('rate(a_total{code=~"x|y_total", le="1"}[5m] offset 1h) > 1e9', {"a_total"}),
        ("sum by (code) (rate(a[5m])) / ignoring (code) group_left sum without(b)(c)", {"a", "c"}),
        ("sum(a) by (b) and on(c) d unless e or f", {"a", "d", "e", "f"}),
        ("a / on (x) group_right (y) b", {"a", "b"}),
        ("histogram_quantile(0.99, sum by (le) (rate(x_bucket[$__rate_interval])))", {"x_bucket"}),
        ("time() - x_timestamp_seconds > bool 5", {"x_timestamp_seconds"}),
        ("label_replace(a, 'b', '$1', 'c', '(d)') # comment e", {"a"}),
        ("vector(0) * -Inf + NaN", set()),
    ],
)
def test_names_are_read_out_of_expressions(expression: str, names: set[str]) -> None:
    """Metric names are found, and functions, labels, keywords, texts and durations are not taken for them."""
    assert metric_names(expression) == names


def dashboard() -> Dashboard:
    panel = Panel(title="Rate", queries=(Query(expr="rate(a_total[5m])", legend="{{op}}"),), unit="ops")
    heat = Panel(
        title="Heat",
        queries=(Query(expr="sum by (le) (rate(b_bucket[5m]))", exemplars=True),),
        kind=PanelKind.HEATMAP,
        width=12,
    )
    rows = (
        Row(title="One", panels=(panel, panel, panel, panel, heat)),
        Row(title="Two", panels=(panel,)),
    )
    return Dashboard(title="Test", uid="test", rows=rows, variables=(Variable(label="op", metric="c"),))


def test_panels_are_placed_without_overlap() -> None:
    """Panels fill rows of 24 columns, wrap, never overlap, and have ids of their own."""
    panels: list[dict[str, Any]] = json.loads(dashboard().to_json())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == 8
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_queries_reach_the_panels() -> None:
    """Every panel has its expression, legend, format and the data source variable."""
    model = json.loads(dashboard().to_json())
    rate, heat = model["panels"][1], model["panels"][5]
    assert rate["targets"][0]["expr"] == "rate(a_total[5m])"
    assert rate["targets"][0]["legendFormat"] == "{{op}}"
    assert rate["datasource"]["uid"] == "${datasource}"
    assert (heat["type"], heat["targets"][0]["format"]) == ("heatmap", "heatmap")
    assert heat["targets"][0]["exemplar"]
    assert [variable["name"] for variable in model["templating"]["list"]] == ["datasource", "op"]
    assert dashboard().metric_names() == {"a_total", "b_bucket", "c"}


def test_bad_panels_are_refused() -> None:
    """A panel without a query, or wider than the screen, is an error."""
    with pytest.raises(ValueError, match="queries"):
        Panel(title="x", queries=())
    with pytest.raises(ValueError, match="width"):
        Panel(title="x", queries=(Query(expr="a"),), width=25)


def test_rules_become_a_rule_file() -> None:
    """A rule file has its comment, groups and rules as Prometheus reads them."""
    expr = "rate(a_total[5m])\n  / rate(b_total[5m]) > 0.01"
    group = RuleGroup(
        name="stow",
        interval="1m",
        rules=(
            RecordingRule(record="old:name", expr="sum(a_total)", labels={"x": "y"}),
            AlertRule(
                alert="Errors",
                expr=expr,
                lasting="10m",
                labels={"severity": "page"},
                summary="s: {{ $value }}",
                description="d",
            ),
        ),
    )
    text = rules_yaml([group], comment="made by\nhand")
    assert text.startswith("# made by\n# hand\ngroups:\n")
    assert yaml.safe_load(text) == {
        "groups": [
            {
                "name": "stow",
                "interval": "1m",
                "rules": [
                    {"record": "old:name", "expr": "sum(a_total)", "labels": {"x": "y"}},
                    {
                        "alert": "Errors",
                        "expr": expr,
                        "for": "10m",
                        "labels": {"severity": "page"},
                        "annotations": {"summary": "s: {{ $value }}", "description": "d"},
                    },
                ],
            }
        ]
    }
    assert group.metric_names() == {"a_total", "b_total"}


@pytest.mark.parametrize("change", [{"alert": "no name"}, {"lasting": "10 minutes"}, {"expr": ""}])
def test_bad_alerts_are_refused(change: dict[str, str]) -> None:
    """Alerts need a valid name, duration and expression."""
    fields: dict[str, Any] = {"alert": "A", "expr": "up", "summary": "s", "description": "d", **change}
    with pytest.raises(ValueError, match=next(iter(change))):
        AlertRule(**fields)


def test_unknown_files_are_named_errors() -> None:
    """Asking for a file that is not shipped says which are."""
    with pytest.raises(FileNotFoundError, match=r"no dashboard or rule file 'nope\.json'"):
        shipped("nope.json")
    assert all(shipped(name) for name in shipped_names())
