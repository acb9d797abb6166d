"""The dashboard and the alerts of volumes, mounted and of a host, from the tables of their metrics.

``python -m stowstore.dashboards`` writes the files that come with `metrics.dashboards`; a test holds them current.
"""

from __future__ import annotations

from typing import Final

from datastore.metric_names import PREFIX
from metrics.dashboards import ship
from metrics.dashboards.grafana import Dashboard, Panel, Query, Row, Variable
from metrics.dashboards.rules import AlertRule, RuleGroup, rules_yaml
from metrics.spec import MetricSpec
from stowstore.daemon import metric_names as mount

__all__ = ["files", "volume_alerts", "volume_dashboard"]

_MOUNT: Final = 'instance=~"$instance"'
_VOLUME: Final = 'volume=~"$volume"'


def files() -> dict[str, str]:
    """The shipped files, by name."""
    made = "Made by `python -m stowstore.dashboards`: change the table there, not this file."
    return {
        "stow_volumes.json": volume_dashboard().to_json(),
        "stow_volume_alerts.yml": rules_yaml([volume_alerts()], comment=made),
    }


def volume_dashboard() -> Dashboard:
    """What mounts do, and what the volumes of a host hold."""
    requests = (
        _panel("Requests per second", (f"sum by (operation) ({_rate(mount.REQUESTS)})", "{{operation}}"), unit="ops"),
        _panel(
            "Answered with an error, per second",
            (_by_volume(_rate(mount.FAILURES)), "{{volume}}"),
            unit="ops",
            description="Questions for names that do not exist are among them.",
        ),
        _panel(
            "Waiting for the store or the disk",
            (_by_volume(_of_mount(mount.WAITING)), "{{volume}} now"),
            (_by_volume(_rate(mount.HANDED_OVER)), "{{volume}} per second"),
        ),
        _panel(
            "Bytes per second",
            (f"sum ({_rate(mount.READ_BYTES)})", "read"),
            (f"sum ({_rate(mount.WRITTEN_BYTES)})", "written"),
            unit="Bps",
            width=12,
        ),
        _panel(
            "Fetched from stores",
            (_by_volume(_rate(mount.FETCHED_BYTES)), "{{volume}}"),
            unit="Bps",
            width=6,
        ),
        _panel(
            "Bytes a fetch",
            (f"sum ({_rate(mount.FETCHED_BYTES)})\n  / (sum ({_rate(mount.FETCHES)}) > 0)", "mean"),
            unit="bytes",
            width=6,
        ),
    )
    mounted = (
        _panel("Held by mounted volumes", (_by_volume(_of_mount(mount.USED_BYTES)), "{{volume}}"), unit="bytes"),
        _panel("Inodes of mounted volumes", (_by_volume(_of_mount(mount.INODES)), "{{volume}}")),
        _panel(
            "Not yet uploaded",
            (_by_volume(_of_mount(mount.STAGED_BYTES)), "{{volume}}"),
            unit="bytes",
            description="Lost with this machine's disk until it is uploaded.",
        ),
    )
    host = (
        _panel(
            "Fullness",
            (f"{_of_volume('used_bytes')}\n  / ({_of_volume('size_bytes')} > 0)", "{{volume}}"),
            unit="percentunit",
        ),
        _panel("Held", (_of_volume("used_bytes"), "{{volume}}"), unit="bytes"),
        _panel(
            "Inodes",
            (_of_volume("inodes"), "{{volume}}"),
            (_of_volume("inodes_limit"), "{{volume}} limit"),
        ),
        _panel("Jobs that have the volume", (_of_volume("attached_jobs"), "{{volume}}")),
        _panel("Snapshots", (_of_volume("snapshots"), "{{volume}}")),
        _panel(
            "Volumes",
            (f"sum ({_of_volume('mounted')})", "mounted"),
            (f"count ({_of_volume('enforced')} == 0) or vector(0)", "without an enforced size"),
        ),
    )
    return Dashboard(
        title="Stowstore: volumes",
        uid="stow-volumes",
        description="What mounts do, and what the volumes of hosts hold.",
        tags=("stowstore",),
        variables=(
            Variable(label="instance", metric=_series(mount.INFO), title="Mount"),
            Variable(label="volume", metric=f"{PREFIX}volume_used_bytes"),
        ),
        rows=(
            Row(title="Mounts: requests", panels=requests),
            Row(title="Mounts: content", panels=mounted),
            Row(title="Volumes of hosts", panels=host),
        ),
    )


def volume_alerts(*, full: float = 0.9, staged_bytes: int = 8 << 30) -> RuleGroup:
    """The alerts, with their thresholds; those of the shipped file are the defaults."""
    return RuleGroup(
        name="stow_volumes",
        rules=(
            AlertRule(
                alert="StowVolumeNearlyFull",
                expr=f"{PREFIX}volume_used_bytes\n  / ({PREFIX}volume_size_bytes > 0) > {full:g}",
                lasting="10m",
                labels={"severity": "warning"},
                summary="Volume {{ $labels.volume }} is {{ $value | humanizePercentage }} full",
                description="Writers get ENOSPC at its size: resize it, or make room.",
            ),
            AlertRule(
                alert="StowMountStuck",
                expr=f"min_over_time({_series(mount.WAITING)}[10m]) > 0\n"
                f"unless on (instance, job) rate({_series(mount.FETCHES)}[10m]) > 0",
                lasting="5m",
                labels={"severity": "critical"},
                summary="Requests of the mount at {{ $labels.instance }} wait, and nothing comes from its store",
                description="Look at the store's errors and at the log of the mount's daemon.",
            ),
            AlertRule(
                alert="StowMountNotUploading",
                expr=f"min_over_time({_series(mount.STAGED_BYTES)}[30m]) > {staged_bytes}",
                lasting="5m",
                labels={"severity": "warning"},
                summary="The mount at {{ $labels.instance }} keeps {{ $value | humanize1024 }}B that are not uploaded",
                description="They are on this machine's disk only: commit, or look why uploads do not keep up.",
            ),
        ),
    )


def _panel(title: str, *queries: tuple[str, str], unit: str = "short", description: str = "", width: int = 8) -> Panel:
    return Panel(
        title=title,
        queries=tuple(Query(expr=expr, legend=legend) for expr, legend in queries),
        unit=unit,
        description=description,
        width=width,
    )


def _series(metric: MetricSpec) -> str:
    (name,) = metric.series_names(PREFIX)
    return name


def _of_mount(metric: MetricSpec) -> str:
    return f"{_series(metric)}{{{_MOUNT}}}"


def _rate(metric: MetricSpec) -> str:
    return f"rate({_of_mount(metric)}[$__rate_interval])"


def _by_volume(expression: str) -> str:
    return f"sum by (volume) ({expression}\n  * on (instance, job) group_left (volume) {_series(mount.INFO)})"


def _of_volume(name: str) -> str:
    return f"{PREFIX}volume_{name}{{{_VOLUME}}}"


if __name__ == "__main__":
    ship(files())
