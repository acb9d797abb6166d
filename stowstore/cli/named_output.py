"""How volumes of this host look on the command line."""

from __future__ import annotations

from typing import Any

import click

from stowstore.cli.output import echo_json
from stowstore.named.info import VolumeInfo
from stowstore.named.record import BackingKind, VolumeType
from stowstore.named.sizes import format_size

__all__ = ["echo_created", "fullness", "percent", "row", "shown"]


def echo_created(made: VolumeInfo, as_json: bool) -> None:
    """Tells of a volume that was made; what it could not be goes to standard error, also beside JSON."""
    assert made.record is not None
    if made.problem is not None:
        click.echo(f"stowstore: warning: {made.name} is a {made.record.backing} volume: {made.problem}", err=True)
    if not made.record.enforced:
        click.echo(f"stowstore: warning: the size of {made.name} is not enforced", err=True)
    if as_json:
        echo_json(made.to_data())
        return
    click.echo("Volume created successfully:")
    click.echo(f"  Name: {made.name}")
    click.echo(f"  Size: {made.record.size}")
    click.echo(f"  Type: {made.record.type}")
    click.echo(f"  Path: {made.path}")
    click.echo(f"  Backing: {made.record.backing}{'' if made.record.enforced else ' (not enforced)'}")
    if made.record.type is VolumeType.MEMORY:
        verb = "snapshot" if made.record.backing is BackingKind.CHUNKED else "backup"
        click.echo(f"  Kept until it is removed or this host reboots; `stowstore volume {verb}` keeps what it holds.")
    click.echo(f"\nUse it: stowstore run --volume={made.name} -- COMMAND   (it is at /volumes/{made.name})")


def row(info: VolumeInfo) -> tuple[str, ...]:
    """A volume as a line of the list."""
    if info.record is None:
        return (info.name, "unknown", "corrupt", "unknown", "unknown", "unknown", "no", str(len(info.jobs)))
    used = "unknown" if info.usage.used_bytes is None else format_size(info.usage.used_bytes)
    return (
        info.name,
        info.record.size,
        info.record.type.value,
        info.created_text(),
        f"{used} (lost)" if info.usage.is_lost else used,
        info.record.backing.value,
        "yes" if info.record.enforced else "no",
        str(len(info.jobs)),
    )


def fullness(info: VolumeInfo) -> tuple[str, ...]:
    """A volume as a line of `df`."""
    if info.record is None or info.usage.used_bytes is None:
        return (info.name, "unknown", "unknown", "unknown", "", "")
    return (
        info.name,
        format_size(info.record.size_bytes),
        format_size(info.usage.used_bytes),
        format_size(info.available_bytes or 0),
        f"{percent(info):.0f}%",
        str(info.usage.inodes if info.usage.inodes is not None else "unknown"),
    )


def percent(info: VolumeInfo) -> float:
    """How full a volume is."""
    if info.record is None or info.usage.used_bytes is None:
        return 0.0
    return 100 * info.usage.used_bytes / info.record.size_bytes


def shown(key: str, value: Any) -> Any:
    """A field of a volume for people."""
    if key == "jobs":
        return ", ".join(job["job"] for job in value) or "none"
    if key == "labels":
        return " ".join(f"{name}={text}" for name, text in value.items()) or "none"
    if isinstance(value, int) and not isinstance(value, bool) and "bytes" in key:
        return f"{value} ({format_size(value)})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else value
