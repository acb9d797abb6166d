"""Commands on the volumes of a host, by name: create, list, inspect, df, usage, resize, remove, prune, label, jobs."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import click

from datastore.errors import StoreError, Unsupported
from stowstore.cli.named_access import echo_columns, label_pairs, named_command, parsed_filters
from stowstore.cli.named_output import echo_created, fullness, percent, row, shown
from stowstore.cli.output import echo_json, json_option, time_text
from stowstore.named import NamedVolumes, VolumeInfo
from stowstore.named.record import BackingKind
from stowstore.named.sizes import format_size

__all__ = ["create", "df", "inspect", "jobs", "label", "list_", "metrics", "prune", "remove", "resize", "usage"]

_filter = click.option("--filter", "filters", metavar="KEY=VALUE", multiple=True, help="Only these; see below.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only tell what would be done.")

#: How much a volume is to lose, where others would look for an option.
_LESS = re.compile(r"-[\d.].*")


class _Resize(click.Command):
    """Takes ``-512MB`` for what it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        less = [
            number
            for number, (before, text) in enumerate(pairwise(["", *args]))
            if _LESS.fullmatch(text) and before not in ("--size", "--inodes")
        ]
        if less and "--" not in args:
            others = [text for number, text in enumerate(args) if number not in less]
            args = [*others, "--", *(args[number] for number in less)]
        return super().parse_args(ctx, args)


@click.command()
@click.argument("name")
@click.option("--size", metavar="SIZE", help="Such as 512MB, 1.5GB or 2TiB; 1GB where nothing is said.")
@click.option("--type", "volume_type", default="filesystem", show_default=True, metavar="filesystem|memory")
@click.option("--inodes", type=click.IntRange(min=1), metavar="N", help="Files and directories it may hold.")
@click.option("--backing", metavar="|".join(BackingKind), help="Instead of the best this host can provide.")
@click.option("--require-enforced", is_flag=True, help="Fail where the size would not be enforced.")
@click.option("--preallocate", is_flag=True, help="Take the room on the host's disk at once.")
@click.option("--store", metavar="ROOT", help="Keep the versions below this root, such as s3://bucket/prefix.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label (may be repeated).")
@click.option("--from", "source", metavar="NAME[@VERSION]", help="Begin with what another volume holds.")
@json_option
@named_command
def create(
    volumes: NamedVolumes,
    name: str,
    size: str | None,
    volume_type: str,
    inodes: int | None,
    backing: str | None,
    require_enforced: bool,
    preallocate: bool,
    store: str | None,
    labels: tuple[str, ...],
    source: str | None,
    as_json: bool,
) -> None:
    """Create the volume NAME on this host, of a size that is enforced. With ROOT#NAME: a volume in a store.

    \b
    Examples:
      stowstore volume create training --size=50GB
      stowstore volume create scratch --size=2GB --type=memory
      stowstore volume create file:///data/root#training --limit-bytes 20GiB
    """
    ctx = click.get_current_context()
    if source is not None:
        for other in ("inodes", "backing", "require_enforced", "preallocate", "store"):
            if ctx.get_parameter_source(other) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(
                    f"--{other.replace('_', '-')} does not go with --from: a clone is as its source is"
                )
        typed = ctx.get_parameter_source("volume_type") is not click.core.ParameterSource.DEFAULT
        origin, _, version = source.partition("@")
        made = volumes.clone(
            origin,
            name,
            version=version or None,
            size=size,
            volume_type=volume_type if typed else None,
        )
        if labels:
            made = volumes.label(name, {**label_pairs(labels)})
    else:
        made = volumes.create(
            name,
            size=size,
            volume_type=volume_type,
            inodes=inodes,
            backing=backing,
            require_enforced=require_enforced,
            preallocate=preallocate,
            store=store,
            labels=label_pairs(labels),
        )
    echo_created(made, as_json)


@click.command("list")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@click.option("--format", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@_filter
@json_option
@named_command
def list_(volumes: NamedVolumes, quiet: bool, form: str, filters: tuple[str, ...], as_json: bool) -> None:
    """List the volumes of this host. With a ROOT: those of a store.

    \b
    Filters: name=TEXT, type=filesystem|memory, label=KEY[=VALUE], in-use=true|false, dangling=true|false
    Examples:
      stowstore volume list
      stowstore volume list --json | jq '.[] | select(.size_used > .size_total*0.8) | .name'
    """
    found = volumes.list(**parsed_filters(filters))
    if quiet:
        for info in found:
            click.echo(info.name)
    elif as_json or form == "json":
        echo_json([info.to_data() for info in found])
    elif form == "yaml":
        import yaml

        click.echo(yaml.safe_dump([info.to_data() for info in found], sort_keys=False, allow_unicode=True), nl=False)
    elif not found:
        click.echo("No volumes found")
    else:
        echo_columns(
            ("NAME", "SIZE", "TYPE", "CREATED", "USED", "BACKING", "ENFORCED", "JOBS"), [row(info) for info in found]
        )


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@named_command
def inspect(volumes: NamedVolumes, names: tuple[str, ...], as_json: bool) -> None:
    """Show everything about volumes: limits, use, backing, versions, and which jobs have them. JSON is an array.

    \b
    Example:
      stowstore volume inspect training --json
    """
    found = [volumes.inspect(name).to_data() for name in names]
    if as_json:
        echo_json(found)
        return
    for index, data in enumerate(found):
        if index:
            click.echo()
        for key, value in data.items():
            click.echo(f"{key}: {shown(key, value)}")


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-w",
    "--watch",
    is_flag=False,
    flag_value=2.0,
    type=click.FloatRange(min=0.1),
    metavar="[SECONDS]",
    help="Show it again and again, every two seconds.",
)
@click.option("--alert", type=click.FloatRange(0, 100), metavar="PERCENT", help="Status 5 if one is fuller than this.")
@json_option
@named_command
def df(volumes: NamedVolumes, names: tuple[str, ...], watch: float | None, alert: float | None, as_json: bool) -> None:
    """Show how full volumes are, from counters: nothing is walked, however large they are.

    \b
    Examples:
      stowstore volume df --watch 2
      stowstore volume df training --alert 80 || notify "training is nearly full"
    """
    while True:
        found = [volumes.inspect(name) for name in names] if names else volumes.list()
        _echo_fullness(found, as_json)
        if watch is None:
            break
        sys.stdout.flush()
        time.sleep(watch)
    if alert is not None:
        full = [info.name for info in found if percent(info) > alert]
        for name in full:
            click.echo(f"stowstore: {name} is fuller than {alert:g} %", err=True)
        if full:
            raise SystemExit(5)


@click.command()
@click.argument("name", required=False)
@click.option("-n", "--largest", type=click.IntRange(min=0), default=10, show_default=True, help="Directories shown.")
@json_option
@named_command
def usage(volumes: NamedVolumes, name: str | None, largest: int, as_json: bool) -> None:
    """Show what the volume NAME holds at this moment, and its largest directories. With ROOT#NAME: what versions take.

    The numbers are the volume's own counters, and the directories come from its index: no file is looked at. Without
    a NAME: every volume, as df shows them.

    \b
    Example:
      stowstore volume usage training
    """
    if name is None:
        _echo_fullness(volumes.list(), as_json)
        return
    exact = volumes.usage(name)
    info = volumes.inspect(name)
    assert info.record is not None
    paths: list[dict[str, Any]] = []
    why: str | None = None
    if largest:
        try:
            paths = volumes.largest(name, largest)
        except Unsupported as error:
            # What it holds is known all the same.
            why = str(error)
    if as_json:
        echo_json({**info.to_data(), "used_bytes": exact.used_bytes, "inodes_used": exact.inodes, "directories": paths})
        return
    used = "unknown" if exact.used_bytes is None else format_size(exact.used_bytes)
    click.echo(f"{name}: {used} of {format_size(info.record.size_bytes)} in {exact.inodes or 'unknown'} inodes\n")
    if why is not None:
        click.echo(f"stowstore: {why}", err=True)
        return
    echo_columns(("SIZE", "FILES", "DIRECTORY"), [(format_size(p["bytes"]), p["files"], p["path"]) for p in paths])


@click.command(cls=_Resize)
@click.argument("name")
@click.argument("size", metavar="SIZE|+SIZE|-SIZE", required=False)
@click.option("--size", "said", metavar="SIZE", help="The same as SIZE.")
@click.option("--inodes", type=click.IntRange(min=1), metavar="N", help="Also change how many inodes there may be.")
@json_option
@named_command
def resize(
    volumes: NamedVolumes, name: str, size: str | None, said: str | None, inodes: int | None, as_json: bool
) -> None:
    """Change the size of a volume at once, while jobs use it; never below what it holds.

    \b
    Examples:
      stowstore volume resize training 100GB
      stowstore volume resize training +10GB
      stowstore volume resize training -512MB
    """
    if size is not None and said is not None:
        raise click.UsageError(f"one size: {size} or --size {said}")
    wanted = size if said is None else said
    if wanted is None and inodes is None:
        raise click.UsageError(f"which size is {name} to have? Such as 2GB, +1GB or -512MB")
    made = volumes.resize(name, wanted, inodes=inodes)
    assert made.record is not None
    if as_json:
        echo_json(made.to_data())
    else:
        click.echo(f"Volume '{name}' resized to {format_size(made.record.size_bytes)}")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also while jobs use it: they go on, and it is deleted after them.")
@click.option("--stop-jobs", is_flag=True, help="End the jobs that use it first.")
@_dry_run
@json_option
@named_command
def remove(
    volumes: NamedVolumes, names: tuple[str, ...], force: bool, stop_jobs: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove volumes and everything they hold. One that jobs use is refused, naming them.

    \b
    Examples:
      stowstore volume remove scratch
      stowstore volume rm --stop-jobs old-1 old-2
    """
    failed: StoreError | None = None
    found: list[dict[str, object]] = []
    for name in names:
        try:
            if dry_run:
                users = [job.job for job in volumes.inspect(name).jobs]
                said = f"Volume '{name}' would be removed" + (f"; it is used by {', '.join(users)}" if users else "")
                found.append({"name": name, "removed": False, "jobs": users})
            else:
                if stop_jobs:
                    volumes.stop_jobs(name)
                volumes.remove(name, force=force)
                said = f"Volume '{name}' removed successfully"
                found.append({"name": name, "removed": True})
            if not as_json:
                click.echo(said)
        except StoreError as error:
            # The others are removed all the same, as people expect of rm.
            if failed is not None:
                click.echo(f"stowstore: {failed}", err=True)
            failed = error
    if as_json:
        echo_json(found)
    if failed is not None:
        raise failed


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every volume that no job uses, whatever it holds.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@_filter
@_dry_run
@json_option
@named_command
def prune(
    volumes: NamedVolumes, everything: bool, force: bool, filters: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Remove the volumes that hold nothing and that no job uses: lists them, then asks. Also cleans up after crashes.

    With -a or a label as filter also volumes that hold something. With a NAME or ROOT#NAME and --keep-last and its
    kin: forget old versions of a volume.

    \b
    Examples:
      stowstore volume prune --filter label=scratch
      stowstore volume prune training --keep-last 10 --yes
    """
    chosen = parsed_filters(filters)
    if set(chosen) - {"labels"}:
        raise click.UsageError("prune takes label=KEY[=VALUE] as filter only")
    found = volumes.prunable(labels=chosen.get("labels"), everything=everything)
    if not as_json:
        for info in found:
            assert info.record is not None
            click.echo(f"{info.name}: {format_size(info.usage.used_bytes or 0)} in {info.record.snapshots} versions")
        if not found:
            click.echo("No volumes to remove")
    if found and not dry_run and not force and not click.confirm("Remove them?", default=False, err=True):
        raise SystemExit(1)
    only_empty = not everything and not chosen
    removed = [] if dry_run else volumes.prune([info.name for info in found], only_empty=only_empty)
    if as_json:
        echo_json({"found": [info.name for info in found], "removed": removed})
    else:
        for name in removed:
            click.echo(f"Volume '{name}' removed successfully")
        for info in found:
            if not dry_run and info.name not in removed:
                click.echo(f"Volume '{info.name}' stays: it is used, or holds something by now", err=True)


@click.command()
@click.argument("name")
@click.argument("labels", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@named_command
def label(volumes: NamedVolumes, name: str, labels: tuple[str, ...]) -> None:
    """Set labels of a volume, KEY=VALUE, or take them away, KEY-.

    \b
    Example:
      stowstore volume label training team=ml tier-
    """
    changes: dict[str, str | None] = {}
    for text in labels:
        if "=" in text:
            changes.update(label_pairs([text]))
        elif text.endswith("-"):
            changes[text[:-1]] = None
        else:
            raise click.UsageError(f"{text!r} is neither KEY=VALUE nor KEY-")
    made = volumes.label(name, changes)
    assert made.record is not None
    click.echo(" ".join(f"{key}={value}" for key, value in made.record.labels.items()))


@click.command()
@click.argument("name", required=False)
@json_option
@named_command
def jobs(volumes: NamedVolumes, name: str | None, as_json: bool) -> None:
    """Show which jobs use the volume NAME, or every volume that is used.

    \b
    Example:
      stowstore volume jobs training
    """
    found = volumes.jobs(name)
    rows: list[dict[str, Any]] = [
        {
            "volume": volume,
            "job": holder.job,
            "pid": holder.pid,
            "access": holder.access.value,
            "started": datetime.fromtimestamp(holder.started, UTC),
            "command": holder.command,
        }
        for volume, holders in sorted(found.items())
        for holder in holders
    ]
    if as_json:
        echo_json(rows)
    else:
        cells = [(r["volume"], r["job"], r["pid"], r["access"], time_text(r["started"]), r["command"]) for r in rows]
        echo_columns(("VOLUME", "JOB", "PID", "ACCESS", "STARTED", "COMMAND"), cells)


@click.command()
@named_command
def metrics(volumes: NamedVolumes) -> None:
    """Print what volumes hold and may hold, in Prometheus' text format.

    \b
    Example:
      stowstore volume metrics > /var/lib/node_exporter/volumes.prom
    """
    from stowstore.named.metrics import exposition

    click.echo(exposition(volumes), nl=False)


def _echo_fullness(found: list[VolumeInfo], as_json: bool) -> None:
    if as_json:
        echo_json([info.to_data() for info in found])
    else:
        echo_columns(("NAME", "SIZE", "USED", "AVAILABLE", "USE%", "INODES"), [fullness(info) for info in found])
