"""Commands that forget what is not needed and give its space back: prune, gc."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import click

from datastore.errors import ConfigError
from stowstore.cli.dask import cluster_at, dask_option
from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.cli.transfers import status_line, step_line
from stowstore.cli.volume_access import Access, printable, volume_command
from stowstore.durations import parse_duration
from stowstore.versions.collect import DAY, CollectionReport, collect
from stowstore.versions.prune import PruneReport, RetentionPolicy, prune_versions
from stowstore.versions.prune import prune as prune_volume
from stowstore.versions.rewriting import Rewriting, rewrite_sparse

__all__ = ["gc", "prune"]

_DAYS = re.compile(r"(\d+)([dw])")

_yes = click.option("-y", "--yes", is_flag=True, help="Do it; without, only tell what would happen.")


class _Age(click.ParamType[float]):
    """Seconds, from 12h, 30d or 2w."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DAYS.fullmatch(str(value))
        if found:
            return int(found[1]) * DAY * (7 if found[2] == "w" else 1)
        try:
            seconds = parse_duration(str(value)) / 1e9
        except ConfigError:
            seconds = -1.0
        if seconds < 0:
            self.fail(f"{value!r} is no duration; write 12h, 30d or 2w", param, ctx)
        return seconds


@click.command()
@click.argument("volume")
@click.option("--keep-last", type=click.IntRange(min=0), metavar="N", help="Keep the newest N versions.")
@click.option("--keep-within", type=_Age(), metavar="AGE", help="Keep all that are younger, such as 30d.")
@click.option("--keep-daily", type=click.IntRange(min=0), metavar="N", help="Keep the newest of each of N days.")
@click.option("--keep-weekly", type=click.IntRange(min=0), metavar="N", help="Keep the newest of each of N weeks.")
@click.option("--keep-monthly", type=click.IntRange(min=0), metavar="N", help="Keep the newest of each of N months.")
@click.option("--forget-tagged", is_flag=True, help="Treat versions that have a tag like the others.")
@click.option("--version", "versions", metavar="ID", multiple=True, help="Prune this version (may be repeated).")
@_yes
@json_option
@volume_command
def prune(
    access: Access,
    volume: str,
    keep_last: int | None,
    keep_within: float | None,
    keep_daily: int | None,
    keep_weekly: int | None,
    keep_monthly: int | None,
    forget_tagged: bool,
    versions: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Forget old versions of a VOLUME. Without --yes it only tells which, and what would become garbage.

    A version stays if any rule keeps it; the newest one always does, and tagged ones, and those that forks stand on or
    somebody writes on. Space comes back with gc.

    \b
    Examples:
      stowstore volume prune file:///data/root#training --keep-last 10 --keep-within 30d
      stowstore volume prune file:///data/root#training --keep-daily 7 --keep-monthly 12 --yes
    """
    address = access.address(volume)
    if address.version is not None:
        raise click.UsageError(f"name the version aside: {address.root}#{address.volume} --version {address.version}")
    rules = {
        "keep_last": keep_last,
        "keep_within": keep_within,
        "keep_daily": keep_daily,
        "keep_weekly": keep_weekly,
        "keep_monthly": keep_monthly,
    }
    given = {name: value for name, value in rules.items() if value is not None}
    if bool(given) == bool(versions):
        raise click.UsageError("give rules, such as --keep-last 10, or --version ID; without either all would go")
    root = access.root_of(address)
    with access.chunks(root) as chunks, status_line("reading the index of every version"):
        measure = None if yes else chunks
        if versions:
            report = prune_versions(root, address.volume, versions, dry_run=not yes, measure=measure)
        else:
            policy = RetentionPolicy(keep_tagged=not forget_tagged, **given)  # type: ignore[arg-type]
            report = prune_volume(root, address.volume, policy, dry_run=not yes, measure=measure)
    _show_pruned(report, as_json=as_json)


@click.command()
@click.argument("root")
@click.option("--grace", type=_Age(), default="24h", show_default=True, help="Leave what is younger.")
@click.option("--settle", type=_Age(), help="Wait so long between the two looks; longer than any lease by default.")
@click.option("--force", is_flag=True, help="Delete even if more than a fifth of the root would go.")
@click.option("--rewrite", is_flag=True, help="First copy what the newest versions need out of sparse packs.")
@click.option(
    "--below",
    type=click.IntRange(1, 100),
    default=50,
    show_default=True,
    metavar="PERCENT",
    help="A pack is sparse when less of it is needed.",
)
@_yes
@dask_option
@json_option
@volume_command
def gc(
    access: Access,
    root: str,
    grace: float,
    settle: float | None,
    force: bool,
    rewrite: bool,
    below: int,
    yes: bool,
    dask: str | None,
    as_json: bool,
) -> None:
    """Delete the packs of a ROOT that no version needs. Without --yes it only tells what would go.

    Safe beside writers: packs are judged twice, some minutes apart. The list of what may go is left in the root.

    A pack stays while a single block of it is needed. --rewrite makes a new version of each volume that needs blocks of
    sparse packs, equal to the newest but with these blocks elsewhere. The old packs go by a later gc, once the
    versions before are pruned; until then both are stored. Volumes somebody writes are left as they are, status 4.

    \b
    Examples:
      stowstore volume gc file:///data/root
      stowstore volume gc file:///data/root --grace 48h --yes
      stowstore volume gc file:///data/root --rewrite --below 30 --yes
    """
    if "#" in root:
        raise click.UsageError(f"{root} is a volume: give the root, {root.partition('#')[0]}")
    opened = access.root(root)
    rewritten = Rewriting()
    with cluster_at(dask) as cluster, access.chunks(opened) as chunks, step_line("looking") as tell:
        if rewrite:
            alone = access.changing(root, "rewritten") if yes else nullcontext()
            with alone:
                rewritten = rewrite_sparse(opened, chunks, below=below / 100, dry_run=not yes, on_progress=tell)
        report = collect(
            opened,
            chunks,
            grace=grace,
            dry_run=not yes,
            force=force,
            settle=settle,
            rewrite_below=below / 100,
            on_progress=tell,
            runner=None if cluster is None else cluster.at(access.place(root)),
        )
    listed = f"{opened.address}/garbage/{report.candidates.key.rpartition('/')[2]}"
    if as_json:
        echo_json(_collected(report, rewritten, listed))
    else:
        _show_collected(report, rewritten, below, listed)
    if report.failed:
        raise SystemExit(1)
    if rewritten.busy:
        raise SystemExit(4)


def _collected(report: CollectionReport, rewritten: Rewriting, listed: str) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "versions": report.versions,
        "packs": report.packs,
        "pack_bytes": report.pack_bytes,
        "live_bytes": report.live_bytes,
        "garbage": [f"{use.kind.name.lower()}/{use.pack.hex()}" for use in report.garbage],
        "garbage_bytes": report.garbage_bytes,
        "young": len(report.young),
        "young_bytes": sum(use.size for use in report.young),
        "kept_for": [str(lease) for lease in report.keepers],
        "sparse": len(report.sparse),
        "rewrite": {
            "packs": [
                {"pack": f"{use.kind.name.lower()}/{use.pack.hex()}", "bytes": use.size, "needed": use.live}
                for use in rewritten.packs
            ],
            "volumes": list(rewritten.volumes),
            "versions": {name.volume: name.id for name in rewritten.versions},
            "busy": list(rewritten.busy),
        },
        "abandoned": list(report.abandoned),
        "deleted": report.deleted,
        "deleted_bytes": report.deleted_bytes,
        "failed": dict(report.failed),
        "candidates": listed,
    }


def _show_collected(report: CollectionReport, rewritten: Rewriting, below: int, listed: str) -> None:
    young = sum(use.size for use in report.young)
    click.echo(
        f"{report.packs} packs, {size_text(report.pack_bytes)}, of which {report.versions} versions need "
        f"{size_text(report.live_bytes)}"
    )
    if report.young:
        click.echo(f"{len(report.young)} packs, {size_text(young)}, are not needed and too young to go")
        for lease in report.keepers:
            click.echo(f"  what is younger than that is kept for {lease}")
    if report.sparse:
        click.echo(f"{len(report.sparse)} packs are needed for less than {below} %")
    _show_rewriting(rewritten, dry_run=report.dry_run)
    if report.dry_run:
        click.echo(f"{len(report.garbage)} packs, {size_text(report.garbage_bytes)}, may go; --yes deletes them")
        click.echo(f"the list: {listed}")
    else:
        click.echo(f"deleted {report.deleted} packs, {size_text(report.deleted_bytes)}")
    for reference, error in report.failed.items():
        click.echo(f"stowstore: {reference}: {error}", err=True)


def _show_rewriting(rewritten: Rewriting, *, dry_run: bool) -> None:
    if rewritten.packs and dry_run:
        cells = [
            (f"{use.kind.name.lower()}/{use.pack.hex()}", size_text(use.size), size_text(use.live), f"{use.share:.0%}")
            for use in rewritten.packs
        ]
        echo_table(("sparse pack", "size", "needed", ""), cells, right=frozenset({1, 2, 3}))
        click.echo(f"--yes rewrites what {', '.join(rewritten.volumes) or 'no newest version'} needs of them")
    for name in rewritten.versions:
        click.echo(f"rewrote {name.volume}@{name.id}")
    for volume in rewritten.busy:
        click.echo(f"stowstore: {volume} is being written: not rewritten", err=True)


def _show_pruned(report: PruneReport, *, as_json: bool) -> None:
    if as_json:
        pruned: list[dict[str, Any]] = [
            {
                "version": version.id,
                "created": version.created,
                "message": version.message,
                "exclusive_bytes": version.exclusive_bytes,
            }
            for version in report.pruned
        ]
        echo_json(
            {
                "dry_run": report.dry_run,
                "pruned": pruned,
                "kept": {version: reason.value for version, reason in report.kept},
                "freed_bytes": report.freed_bytes,
            }
        )
        return
    rows = [
        (
            version.id,
            time_text(version.created),
            "would go" if report.dry_run else "gone",
            "" if version.exclusive_bytes is None else size_text(version.exclusive_bytes),
            printable(version.message or ""),
        )
        for version in report.pruned
    ]
    rows += [(version, "", f"stays: {reason.value}", "", "") for version, reason in report.kept]
    echo_table(("version", "created", "what", "alone", "message"), sorted(rows), right=frozenset({3}))
    freed = "" if report.freed_bytes is None else f", {size_text(report.freed_bytes)} become garbage"
    click.echo(f"{len(report.pruned)} versions {'would go' if report.dry_run else 'are gone'}{freed}", err=True)
    if report.dry_run and report.pruned:
        click.echo("nothing was done; --yes prunes", err=True)
