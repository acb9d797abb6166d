"""Commands that let go of records and look after them: rm, restore, gc, evict, verify, reindex."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from stowstore.cli.output import echo_json, json_option, size_text
from stowstore.cli.records_access import (
    Records,
    Uuid,
    dry_run_option,
    record_command,
    skip_missing_option,
    tell,
    uuids,
)
from stowstore.durations import parse_duration
from stowstore.records import Deletion, RecordDirectory
from stowstore.records.collecting import collect
from stowstore.records.errors import NoSuchRecord

__all__ = ["evict", "gc", "reindex", "restore", "rm", "verify"]


@click.command()
@click.argument("root")
@uuids
@click.option("--trash/--now", default=True, show_default=True, help="To the trash, or for good at once.")
@skip_missing_option
@dry_run_option
@record_command
def rm(records: Records, root: str, uuids: tuple[str, ...], trash: bool, skip_missing: bool, dry_run: bool) -> None:
    """Remove the records UUID...: to the trash, which 'record gc' empties and 'record restore' takes them from.

    Runs are records of their own, and are removed by their own uuids.
    """
    with records.open(root) as store:
        for uuid in uuids:
            there = store.contains(uuid)
            if not there and not skip_missing:
                raise NoSuchRecord(f"there is no record {uuid} in {root}")
            if there and not dry_run:
                store.delete(uuid, Deletion.TRASH if trash else Deletion.NOW)
            if there:
                click.echo(uuid)


@click.command()
@click.argument("root")
@uuids
@record_command
def restore(records: Records, root: str, uuids: tuple[str, ...]) -> None:
    """Take the records UUID... out of the trash."""
    with records.open(root) as store:
        for uuid in uuids:
            if not store.restore(uuid):
                raise NoSuchRecord(f"the record {uuid} is not in the trash of {root}")
            click.echo(uuid)


@click.command()
@click.argument("root")
@click.option(
    "--grace", metavar="DURATION", default="24h", show_default=True, help="What was needed so lately is kept."
)
@dry_run_option
@json_option
@record_command
def gc(records: Records, root: str, grace: str, dry_run: bool, as_json: bool) -> None:
    """Remove what no record in ROOT needs: what is in the trash, older states, what interrupted pushes left.

    It lists what is no longer needed, and removes what an earlier run has listed at least half a grace period before;
    so run it regularly. The grace period is longer than any push and pull takes.
    """
    period = timedelta(microseconds=parse_duration(grace) / 1e3)
    with records.open(root, grace=period, indexed=False) as store:
        done = collect(store, dry_run=dry_run)
    if as_json:
        echo_json(
            {
                "removed": done.removed,
                "bytes": done.removed_bytes,
                "listed": done.condemned,
                "records": list(done.records),
                "damaged": list(done.damaged),
            }
        )
        return
    would = "would be " if dry_run else ""
    click.echo(
        f"{done.removed} objects {would}removed, {size_text(done.removed_bytes)}; {done.condemned} {would}listed"
    )
    for uuid in done.damaged:
        tell(f"stowstore: the record {uuid} is damaged: everything that may be its own is kept")


@click.command()
@click.argument("root")
@click.argument(
    "directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
@click.option("--shallow", is_flag=True, help="Compare sizes in the store, without reading what it has.")
@dry_run_option
@record_command
def evict(records: Records, root: str, directories: tuple[Path, ...], shallow: bool, dry_run: bool) -> None:
    """Remove local copies of which ROOT has every byte; the others stay, and make the status 1."""
    kept: list[Path] = []
    with records.open(root) as store:
        for directory in directories:
            RecordDirectory.open(directory)
            done = (
                store.is_evictable(directory, deep=not shallow) if dry_run else store.evict(directory, deep=not shallow)
            )
            if done:
                click.echo(directory)
            else:
                kept.append(directory)
    for directory in kept:
        tell(f"stowstore: {directory}: {root} has not all of it: push it first")
    if kept:
        raise SystemExit(1)


@click.command()
@click.argument("root")
@click.argument("uuids", metavar="[UUID]...", nargs=-1, type=Uuid())
@click.option("--deep", is_flag=True, help="Read every byte.")
@json_option
@record_command
def verify(records: Records, root: str, uuids: tuple[str, ...], deep: bool, as_json: bool) -> None:
    """Compare what ROOT has of the records UUID..., or of all, with their manifests; a problem makes the status 1."""
    with records.open(root, indexed=False) as store:
        names = uuids or tuple(store.search())
        results = [store.verify(uuid, deep=deep) for uuid in names]
    bad = [result for result in results if not result]
    if as_json:
        echo_json(
            [{"uuid": result.uuid, "files": result.files, "problems": list(result.problems)} for result in results]
        )
    else:
        for result in bad:
            for problem in result.problems:
                click.echo(f"{result.uuid}: {problem}")
        tell(f"{len(results)} records looked at, {len(bad)} damaged")
    if bad:
        raise SystemExit(1)


@click.command()
@click.argument("root")
@click.argument("directories", metavar="[DIRECTORY]...", nargs=-1, type=click.Path(path_type=Path, exists=True))
@record_command
def reindex(records: Records, root: str, directories: tuple[Path, ...]) -> None:
    """Bring the local index up to date: with the records in ROOT, and those at or below DIRECTORY..."""
    with records.open(root) as store:
        assert store.index is not None
        count = store.index.rebuild(store)
        local = [uuid for directory in directories for uuid in store.index.ingest_below(directory)]
        store.index.check_local()
    click.echo(f"{count} records in the store, {len(local)} in directories")
