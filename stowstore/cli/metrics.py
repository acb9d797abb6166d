"""``stowstore metrics``: what is measured, and the dashboard and rules that go with it."""

from __future__ import annotations

from importlib.resources import files

import click

from datastore.metric_names import STORE_METRICS
from stowstore.cli.output import echo_json, echo_table, json_option

__all__ = ["metrics"]


@click.group()
def metrics() -> None:
    """Show what is measured, and print the Grafana dashboard and the Prometheus rules."""


@metrics.command("list")
@json_option
def list_names(as_json: bool) -> None:
    """List every metric: name, type, labels, meaning."""
    rows = [
        {"name": f"stow_{spec.name}", "type": spec.kind.value, "labels": list(spec.label_names), "help": spec.help}
        for spec in STORE_METRICS
    ]
    if as_json:
        echo_json(rows)
    else:
        echo_table(
            ("name", "type", "labels", "meaning"),
            [(row["name"], row["type"], ", ".join(row["labels"]), row["help"]) for row in rows],
        )


@metrics.command()
@click.option("--volumes", is_flag=True, help="The one of volumes and their mounts, instead of that of stores.")
def dashboard(volumes: bool) -> None:
    """Print the Grafana dashboard (JSON), to be imported as it is."""
    click.echo(_shipped("stow_volumes.json" if volumes else "stow_store.json"), nl=False)


@metrics.command()
@click.option(
    "--names",
    type=click.Choice(["flyte", "thanos"]),
    help="Print rules that record our series under the names of another system instead, for its dashboards.",
)
@click.option("--volumes", is_flag=True, help="Those of volumes and their mounts, instead of those of stores.")
def rules(names: str | None, volumes: bool) -> None:
    """Print the Prometheus alert rules (YAML)."""
    if names and volumes:
        raise click.UsageError("--names is about stores: leave out --volumes")
    alerts = "stow_volume_alerts.yml" if volumes else "stow_store_alerts.yml"
    click.echo(_shipped(f"{names}_names.yml" if names else alerts), nl=False)


def _shipped(name: str) -> str:
    return (files("metrics.dashboards") / name).read_text(encoding="utf-8")
