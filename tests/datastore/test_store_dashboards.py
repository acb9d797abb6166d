"""The store's dashboard, alerts and translated names: current, complete, and accepted by Prometheus."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datastore.dashboards import files, store_alerts, store_dashboard
from datastore.legacy_names import LEGACY_FAMILIES
from datastore.metric_names import STORE_METRICS
from datastore.translated_names import FLYTE_UNRECORDED, flyte_rules, thanos_rules
from metrics.dashboards import shipped, shipped_names
from metrics.dashboards.rules import RecordingRule, RuleGroup
from tests.servers.prometheus_server import Promtool

EXPOSED = frozenset(name for metric in STORE_METRICS for name in metric.series_names("stow_"))
VECTORS = Path(__file__).parents[1] / "vectors" / "references.json"


def test_shipped_files_are_current() -> None:
    """The files beside the code are what the code makes: `python -m datastore.dashboards` writes them."""
    assert files().keys() <= set(shipped_names())
    assert {name: shipped(name) for name in files()} == files()


def test_the_dashboard_reads_what_is_exposed() -> None:
    """Every name the dashboard uses is in the table, and every metric of the table is drawn somewhere."""
    used = store_dashboard().metric_names()
    assert used <= EXPOSED
    for metric in STORE_METRICS:
        assert used & set(metric.series_names("stow_")), f"{metric.name} is on no panel"


@pytest.mark.parametrize("group", [store_alerts(), flyte_rules(), thanos_rules()], ids=lambda group: group.name)
def test_rules_read_what_is_exposed(group: RuleGroup) -> None:
    """Every name that alerts and recording rules use is in the table."""
    assert group.metric_names()
    assert group.metric_names() <= EXPOSED


def test_the_dashboard_has_the_rows_and_filters() -> None:
    """The dashboard has its four rows, its three filters, and every panel obeys them."""
    model: dict[str, Any] = json.loads(shipped("stow_store.json"))
    rows = [panel["title"] for panel in model["panels"] if panel["type"] == "row"]
    assert rows == ["Health", "Latency", "Volume of data", "Resilience"]
    assert [variable["name"] for variable in model["templating"]["list"][1:]] == ["location", "backend", "operation"]
    for panel in model["panels"]:
        for target in panel.get("targets", ()):
            assert 'location=~"$location", backend=~"$backend"' in target["expr"]


def test_every_family_of_flyte_is_recorded_or_explained() -> None:
    """The 51 families are recorded under their names, or listed with the reason why not."""
    recorded = {rule.record for rule in flyte_rules().rules if isinstance(rule, RecordingRule)}
    families = json.loads(VECTORS.read_text(encoding="utf-8"))["metrics"]["families"]
    assert len(families) == 51
    for family in families:
        name = f"flyte:storage:{family['name']}"
        if family["name"].replace("_unlabeled", "") in FLYTE_UNRECORDED:
            assert name not in recorded
        elif family["type"] == "histogram":
            assert {f"{name}_bucket", f"{name}_sum", f"{name}_count"} <= recorded
        elif family["type"] == "summary":
            assert {name, f"{name}_sum", f"{name}_count"} <= recorded
        else:
            assert name in recorded


def test_the_table_of_legacy_families_is_the_vectors() -> None:
    """Names, types, labels and twins of the directly exposed families are upstream's."""
    expected = {row["name"]: row for row in json.loads(VECTORS.read_text(encoding="utf-8"))["metrics"]["families"]}
    listed: set[str] = set()
    for family in LEGACY_FAMILIES:
        row = expected[family.name]
        assert (family.kind.value, family.help) == (row["type"], row["help"])
        assert family.context_labels == ("L" in row["labels"])
        assert set(family.label_names) == set(row["labels"]) - {"L"}
        listed |= {family.name, *([family.twin_name] if family.twin else [])}
    assert listed == set(expected)


@pytest.mark.parametrize("name", [name for name in files() if name.endswith(".yml")])
def test_promtool_accepts_the_rules(name: str, tmp_path: Path, promtool: Promtool) -> None:
    """Prometheus can load every shipped rule file and has no complaint about it."""
    (tmp_path / name).write_text(shipped(name))
    done = promtool.run("check", "rules", "--lint-fatal", tmp_path / name)
    assert done.returncode == 0, done.stderr


STORE = 'backend="s3", location="main"'


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    own = "".join(f', {label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{STORE}, instance='i'{own}}}", "values": values}


def run_promtool(promtool: Promtool, folder: Path, rules: str, *tests: dict[str, Any]) -> None:
    """Lets Prometheus evaluate shipped rules over series that are written down."""
    (folder / rules).write_text(shipped(rules))
    unit_tests = folder / "tests.yml"
    unit_tests.write_text(
        yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "1m", "tests": [*tests]}, width=1000)
    )
    done = promtool.run("test", "rules", unit_tests)
    assert done.returncode == 0, done.stdout + done.stderr


def failing(per_minute: int) -> dict[str, str]:
    return series("stow_operations_total", f"0+{per_minute}x60", operation="read", outcome="error")


def retried(per_minute: int) -> dict[str, str]:
    return series("stow_retries_total", f"0+{per_minute}x60", operation="read", reason="server")


OK = series("stow_operations_total", "0+600x60", operation="read", outcome="ok")
ALERTS: list[tuple[str, str, list[dict[str, str]], bool]] = [
    (
        "two percent fail",
        "StowErrors",
        [OK, series("stow_operations_total", "0+12x60", operation="read", outcome="error")],
        True,
    ),
    (
        "half a percent fail",
        "StowErrors",
        [OK, series("stow_operations_total", "0+3x60", operation="read", outcome="error")],
        False,
    ),
    (
        "half are not found",
        "StowErrors",
        [OK, series("stow_operations_total", "0+600x60", operation="read", outcome="expected_error")],
        False,
    ),
    (
        "some reads take half a minute",
        "StowSlowReads",
        [
            series("stow_operation_duration_seconds_bucket", "0+90x60", operation="read", le="0.1"),
            series("stow_operation_duration_seconds_bucket", "0+100x60", operation="read", le="30.0"),
            series("stow_operation_duration_seconds_bucket", "0+100x60", operation="read", le="+Inf"),
        ],
        True,
    ),
    (
        "writes take half a minute",
        "StowSlowReads",
        [
            series("stow_operation_duration_seconds_bucket", "0+90x60", operation="write", le="0.1"),
            series("stow_operation_duration_seconds_bucket", "0+100x60", operation="write", le="30.0"),
            series("stow_operation_duration_seconds_bucket", "0+100x60", operation="write", le="+Inf"),
        ],
        False,
    ),
    (
        "one in five is retried",
        "StowRetrying",
        [OK, series("stow_retries_total", "0+120x60", operation="read", reason="server")],
        True,
    ),
    (
        "one in twenty is retried",
        "StowRetrying",
        [OK, series("stow_retries_total", "0+30x60", operation="read", reason="server")],
        False,
    ),
    (
        "writes fail",
        "StowNotWriting",
        [
            series("stow_last_successful_write_timestamp_seconds", "0x60"),
            series("stow_operations_total", "0+1x60", operation="write", outcome="error"),
        ],
        True,
    ),
    (
        "a write hangs",
        "StowNotWriting",
        [
            series("stow_last_successful_write_timestamp_seconds", "0x60"),
            series("stow_operations_in_progress", "1x60", operation="write"),
        ],
        True,
    ),
    (
        "nobody writes",
        "StowNotWriting",
        [
            series("stow_last_successful_write_timestamp_seconds", "0x60"),
            series("stow_operations_total", "7x60", operation="write", outcome="error"),
            series("stow_operations_in_progress", "0x60", operation="write"),
        ],
        False,
    ),
    (
        "some writes fail, others succeed",
        "StowNotWriting",
        [
            series("stow_last_successful_write_timestamp_seconds", "0+60x60"),
            series("stow_operations_total", "0+1x60", operation="write", outcome="error"),
        ],
        False,
    ),
]


@pytest.mark.parametrize(("alert", "given", "fires"), [row[1:] for row in ALERTS], ids=[row[0] for row in ALERTS])
def test_alerts_fire_when_they_should(
    alert: str, given: list[dict[str, str]], fires: bool, tmp_path: Path, promtool: Promtool
) -> None:
    """Prometheus itself fires, or does not fire, each alert over an hour of written-down series."""
    active = f'count (ALERTS{{alertname="{alert}", alertstate="firing", {STORE}}}) or vector(0)'
    run_promtool(
        promtool,
        tmp_path,
        "stow_store_alerts.yml",
        {
            "interval": "1m",
            "input_series": given,
            "promql_expr_test": [
                {"expr": active, "eval_time": "59m", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
            ],
        },
    )


def test_older_names_have_the_old_meaning(tmp_path: Path, promtool: Promtool) -> None:
    """Recorded series carry the labels and the values that the old dashboards expect."""
    flyte: dict[str, Any] = {
        "interval": "1m",
        "input_series": [
            series("stow_operation_errors_total", "0+2x20", operation="read", code="NOT_FOUND"),
            series("stow_operation_errors_total", "0+3x20", operation="read", code="TRANSIENT"),
            series("stow_operation_errors_total", "0+9x20", operation="read", code="CANCELLED"),
            series("stow_operation_errors_total", "0+5x20", operation="head", code="INVALID_REFERENCE"),
            series("stow_operation_duration_seconds_bucket", "0+10x20", operation="head", le="0.1"),
            series("stow_operation_duration_seconds_bucket", "0+10x20", operation="head", le="+Inf"),
            series("stow_operation_duration_seconds_sum", "0+4x20", operation="head"),
        ],
        "promql_expr_test": [
            {
                "expr": "flyte:storage:read_failure",
                "eval_time": "10m",
                "exp_samples": [
                    {"labels": recorded("flyte:storage:read_failure", failure_type="NOT_FOUND"), "value": 20},
                    {"labels": recorded("flyte:storage:read_failure", failure_type="TRANSIENT"), "value": 30},
                ],
            },
            {
                "expr": "flyte:storage:read_failure_unlabeled",
                "eval_time": "10m",
                "exp_samples": [{"labels": 'flyte:storage:read_failure_unlabeled{instance="i"}', "value": 50}],
            },
            {
                "expr": "flyte:storage:bad_key",
                "eval_time": "10m",
                "exp_samples": [{"labels": recorded("flyte:storage:bad_key"), "value": 50}],
            },
            {
                "expr": 'flyte:storage:head_ms{quantile="0.5"}',
                "eval_time": "10m",
                "exp_samples": [{"labels": recorded("flyte:storage:head_ms", quantile="0.5"), "value": 50}],
            },
            {
                "expr": "flyte:storage:head_unlabeled_ms_sum",
                "eval_time": "10m",
                "exp_samples": [{"labels": 'flyte:storage:head_unlabeled_ms_sum{instance="i"}', "value": 40000}],
            },
        ],
    }
    run_promtool(promtool, tmp_path, "flyte_names.yml", flyte)
    thanos = {
        "interval": "1m",
        "input_series": [
            series("stow_operations_total", "0+2x20", operation="read", outcome="ok"),
            series("stow_operations_total", "0+1x20", operation="read", outcome="error"),
        ],
        "promql_expr_test": [
            {
                "expr": name,
                "eval_time": "10m",
                "exp_samples": [
                    {"labels": f'{name}{{backend="s3", bucket="main", instance="i", operation="get"}}', "value": value}
                ],
            }
            for name, value in (
                ("objstore_bucket_operations_total", 30),
                ("objstore_bucket_operation_failures_total", 10),
            )
        ],
    }
    run_promtool(promtool, tmp_path, "thanos_names.yml", thanos)


def recorded(name: str, **labels: str) -> str:
    own = "".join(f', {label}="{value}"' for label, value in labels.items())
    return f'{name}{{{STORE}, instance="i"{own}}}'
