"""The dashboard and the rules of volumes: current, complete, and evaluated by Prometheus itself."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from datastore import dashboards as of_stores
from datastore.metric_names import PREFIX
from metrics.dashboards import shipped, shipped_names
from stowstore.daemon.metric_names import MOUNT_METRICS
from stowstore.dashboards import files, volume_alerts, volume_dashboard
from stowstore.named.metrics import NAMES
from tests.servers import Server
from tests.servers.prometheus_server import Promtool, loaded_rules, rules

EXPOSED = {name for metric in MOUNT_METRICS for name in metric.series_names(PREFIX)} | NAMES.keys()
RULE_FILES = [name for name in shipped_names() if name.endswith(".yml")]
_PATIENCE = 60.0


def test_shipped_files_are_current() -> None:
    """The files beside the code are what the code makes, by `python -m stowstore.dashboards`; none is left over."""
    assert {name: shipped(name) for name in shipped_names()} == of_stores.files() | files()


def test_the_dashboard_shows_all_that_is_exposed() -> None:
    """Every name the dashboard and the alerts use is in a table, and every metric of a table is drawn somewhere."""
    assert EXPOSED == volume_dashboard().metric_names()
    assert volume_alerts().metric_names() <= EXPOSED


@pytest.mark.parametrize("name", [name for name in files() if name.endswith(".yml")])
def test_promtool_accepts_the_rules(name: str, tmp_path: Path, promtool: Promtool) -> None:
    """Prometheus has no complaint about a rule file."""
    (tmp_path / name).write_text(shipped(name))
    done = promtool.run("check", "rules", "--lint-fatal", tmp_path / name)
    assert 0 == done.returncode, done.stderr


def test_prometheus_evaluates_every_rule(prometheus_server: Server) -> None:
    """A running Prometheus loads every rule file that is shipped, and each of their rules evaluates without error."""
    mine = uuid.uuid4().hex[:8]
    texts = {f"{mine}-{name}": shipped(name) for name in RULE_FILES}
    deadline = time.monotonic() + _PATIENCE
    with loaded_rules(prometheus_server.address, texts):
        while True:
            groups = [group for group in rules(prometheus_server.address) if Path(group["file"]).name in texts]
            health = {
                rule["name"]: (rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]
            }
            if len(groups) == len(texts) and "unknown" not in {state for state, _ in health.values()}:
                break
            assert time.monotonic() < deadline, f"not evaluated: {health}"
            time.sleep(0.1)
    assert {("ok", None)} == set(health.values())
    assert {"StowErrors", "StowNotWriting", "StowVolumeNearlyFull", "StowMountStuck"} <= health.keys()


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    own = "".join(f', {label}="{value}"' for label, value in labels.items())
    return {"series": f'{name}{{instance="i", job="j"{own}}}', "values": values}


ALERTS: list[tuple[str, str, list[dict[str, str]], bool]] = [
    (
        "a volume fills up",
        "StowVolumeNearlyFull",
        [series("stow_volume_used_bytes", "95x60", volume="v"), series("stow_volume_size_bytes", "100x60", volume="v")],
        True,
    ),
    (
        "a volume has room",
        "StowVolumeNearlyFull",
        [series("stow_volume_used_bytes", "80x60", volume="v"), series("stow_volume_size_bytes", "100x60", volume="v")],
        False,
    ),
    (
        "requests wait and nothing comes",
        "StowMountStuck",
        [series("stow_mount_waiting", "2x60"), series("stow_mount_fetches_total", "7x60")],
        True,
    ),
    (
        "requests wait for much",
        "StowMountStuck",
        [series("stow_mount_waiting", "2x60"), series("stow_mount_fetches_total", "0+5x60")],
        False,
    ),
    (
        "requests wait now and then",
        "StowMountStuck",
        [series("stow_mount_waiting", "0 1x3 0 1x3 0 1x3 0 1x50"), series("stow_mount_fetches_total", "0+1x60")],
        False,
    ),
    ("what is written stays here", "StowMountNotUploading", [series("stow_mount_staged_bytes", "9000000000x60")], True),
    ("a burst of writes", "StowMountNotUploading", [series("stow_mount_staged_bytes", "0x50 9000000000x9")], False),
]


@pytest.mark.parametrize(("alert", "given", "fires"), [row[1:] for row in ALERTS], ids=[row[0] for row in ALERTS])
def test_alerts_fire_when_they_should(
    alert: str, given: list[dict[str, str]], fires: bool, tmp_path: Path, promtool: Promtool
) -> None:
    """Prometheus itself fires, or does not fire, each alert over an hour of written-down series."""
    (tmp_path / "rules.yml").write_text(shipped("stow_volume_alerts.yml"))
    expected: dict[str, Any] = {"labels": "{}", "value": int(fires)}
    test = {
        "interval": "1m",
        "input_series": given,
        "promql_expr_test": [
            {
                "expr": f'count (ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                "eval_time": "59m",
                "exp_samples": [expected],
            }
        ],
    }
    text = yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}, width=1000)
    (tmp_path / "tests.yml").write_text(text)
    done = promtool.run("test", "rules", tmp_path / "tests.yml")
    assert 0 == done.returncode, done.stdout + done.stderr
