"""Commands that keep volumes whole and where they should be: check, repair, recover, migrate."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from stowstore.cli.dask import cluster_at, dask_option
from stowstore.cli.output import echo_json, json_option
from stowstore.cli.transfers import status_line, step_line
from stowstore.cli.volume_access import Access, is_plain, printable, volume_command
from stowstore.named import NamedVolumes
from stowstore.named.errors import BackingUnsupported
from stowstore.namespace.metastore import KINDS, choose_kind
from stowstore.versions.address import VolumeAddress
from stowstore.versions.check import check as check_root
from stowstore.versions.findings import CheckDepth
from stowstore.versions.migrating import migrate_volume
from stowstore.versions.repair import repair as repair_volume
from stowstore.volumes import RWVolume, Volume

__all__ = ["check", "migrate", "recover", "repair"]


_yes = click.option("-y", "--yes", is_flag=True, help="Do it; without, only tell what would happen.")
_depth = click.Choice([depth.name.lower() for depth in CheckDepth])


@click.command()
@click.argument("where", metavar="ROOT|VOLUME")
@click.option("--depth", type=_depth, default="existence", show_default=True, help="How deep to look.")
@dask_option
@json_option
@volume_command
def check(access: Access, where: str, depth: str, dask: str | None, as_json: bool) -> None:
    """Look for damage in a version, in all versions of a volume (VOLUME@VERSION leaves them out), or in a ROOT.

    Every reference, manifest and record is read (structure), also that every pack is there (existence), also every
    byte (data). What is damaged is told with the paths it hurts. Exit status 1 when anything is. With --dask workers
    read the bytes.

    \b
    Examples:
      stowstore volume check file:///data/root
      stowstore volume check file:///data/root#training@v1 --depth data
    """
    address = None if "#" not in where and "://" in where else access.address(where)
    root = access.root(where) if address is None else access.root_of(address)
    with cluster_at(dask) as cluster, access.chunks(root) as chunks, step_line("checking") as tell:
        report = check_root(
            root,
            chunks,
            None if address is None else address.volume,
            None if address is None else address.version,
            depth=CheckDepth[depth.upper()],
            on_progress=tell,
            runner=None if cluster is None else cluster.at(access.place(where if address is None else address.root)),
        )
    if as_json:
        echo_json(
            {
                "depth": depth,
                "whole": report.is_whole,
                "versions": report.versions,
                "inodes": report.inodes,
                "nodes": report.nodes,
                "blocks": report.blocks,
                "findings": [
                    {
                        "kind": finding.kind.value,
                        "message": finding.message,
                        "volume": finding.volume or None,
                        "version": finding.version or None,
                        "paths": [printable(path) for path in finding.paths],
                        "pack": finding.pack.hex() if finding.pack else None,
                        "block": finding.block.hex() if finding.block else None,
                    }
                    for finding in report.findings
                ],
            }
        )
    else:
        for finding in report.findings:
            click.echo(f"{finding.kind.value}: {printable(str(finding))}")
        verdict = "whole" if report.is_whole else f"{len(report.findings)} findings"
        read = f", {report.blocks} blocks" if depth == "data" else "; what files hold was not read, --depth data does"
        click.echo(
            f"{verdict}: looked at {report.versions} versions, {report.inodes} inodes, {report.nodes} nodes{read}",
            err=not report.is_whole,
        )
    if not report.is_whole:
        raise SystemExit(1)


@click.command()
@click.argument("volume")
@click.option("--depth", type=_depth, default="data", show_default=True, help="How deep to look for damage.")
@_yes
@json_option
@volume_command
def repair(access: Access, volume: str, depth: str, yes: bool, as_json: bool) -> None:
    """Make a whole version of what is left of a damaged one. Without --yes it only tells what it would do.

    Nothing is deleted: the damaged version stays. Lost blocks are looked for in other versions of the root; a file of
    which some are lost for good moves to lost+found. Exit status 1 when bytes are lost.

    \b
    Example:
      stowstore volume repair file:///data/root#training --yes
    """
    address = access.address(volume)
    root = access.root_of(address)
    alone = access.changing(volume, "repaired", even_damaged=True) if yes else nullcontext()
    with alone, access.chunks(root) as chunks, status_line("repairing"):
        report = repair_volume(
            root, chunks, address.volume, address.version, depth=CheckDepth[depth.upper()], dry_run=not yes
        )
    lost = [{"path": printable(part.path), "offset": part.offset, "length": part.length} for part in report.lost_ranges]
    if as_json:
        echo_json(
            {
                "dry_run": report.dry_run,
                "was_whole": report.was_whole,
                "actions": [printable(action) for action in report.actions],
                "lost": lost,
                "restored_blocks": report.restored_blocks,
                "restored_records": report.restored_records,
                "version": None if report.version is None else report.version.id,
            }
        )
    else:
        for action in report.actions:
            click.echo(printable(action))
        for part in lost:
            click.echo(f"lost: {part['length']} bytes at {part['offset']} of {part['path']}")
        if report.was_whole:
            click.echo("nothing to repair")
        elif report.version is not None:
            click.echo(f"{address.root}#{address.volume}@{report.version.id}")
        else:
            click.echo("nothing was done; --yes repairs", err=True)
    if lost:
        raise SystemExit(1)


@click.command()
@click.argument("volume")
@click.option("--to", "new_kind", required=True, metavar="KIND", help=f"One of {', '.join(sorted(KINDS))}.")
@click.option("--from", "kind", metavar="KIND", help="What it has now, if its newest version does not say.")
@click.option("--meta-dir", type=click.Path(path_type=Path), help="Where its journal lies on this machine.")
@click.option("--new-meta-dir", type=click.Path(path_type=Path), help="Where to move it; --meta-dir by default.")
@json_option
@volume_command
def migrate(
    access: Access,
    volume: str,
    new_kind: str,
    kind: str | None,
    meta_dir: Path | None,
    new_meta_dir: Path | None,
    as_json: bool,
) -> None:
    """Move a VOLUME to another kind of metadata store. No data move; what is not committed moves with its journal.

    Without --meta-dir there is no journal to move, and a version is made that names the new kind.

    \b
    Example:
      stowstore volume migrate file:///data/root#training --to redis --meta-dir /var/lib/training
    """
    address = access.address(volume)
    if is_plain(volume):
        raise BackingUnsupported(
            f"volume {volume} is one of this host, and these keep what is in no version in one kind of store",
            hint="push it to a root, and migrate it there",
        )
    if address.version is not None:
        raise click.UsageError(f"a volume is migrated, not a version: leave @{address.version} out")
    root = access.root_of(address)
    newest = root.load(root.head(address.volume))
    with access.chunks(root) as chunks:
        made = migrate_volume(
            root,
            chunks,
            address.volume,
            kind=choose_kind(kind or newest.metadata_store_type),
            meta_dir=meta_dir,
            new_kind=new_kind,
            new_meta_dir=new_meta_dir,
        )
    assert made is not None, "it has a version, so it gets another"
    if as_json:
        echo_json({"volume": str(address), "version": made.id, "metadata_store_type": made.metadata_store_type})
    else:
        click.echo(f"{address}@{made.id}")


@click.command()
@click.argument("volume")
@click.argument("name")
@click.option(
    "--meta-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the journal is, if not in its usual place.",
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where its data are, if not in their usual place.",
)
@click.option("-m", "--message", help="What the version says of itself.")
@json_option
@volume_command
def recover(
    access: Access,
    volume: str,
    name: str,
    meta_dir: Path | None,
    cache_dir: Path | None,
    message: str | None,
    as_json: bool,
) -> None:
    """Make what a stranded journal of VOLUME holds another volume NAME, which can then be merged.

    A journal is stranded when somebody else has published since: its changes lie over a version that is no longer the
    newest, and opening the volume with it is refused. Of a volume of this host, NAME lies in its root, ready to be
    merged.

    \b
    Example:
      stowstore volume recover file:///data/root#training rescued
      stowstore volume merge file:///data/root#training rescued
    """
    address = access.address(volume)
    if is_plain(volume) and meta_dir is None and cache_dir is None and address.version is None:
        locator = NamedVolumes().rescue(volume, name, message=message)
        version = VolumeAddress.parse(locator).version_name.id
        _told_recovered(VolumeAddress(address.root, name), version, locator, as_json)
        return
    Volume.configure(address.root, options=access.options, key=access.key)
    # An existing volume says what kind of metadata store its journal is.
    known = access.root_of(address).has_volume(address.volume)
    found = Volume.blocking.at(str(address)) if known else Volume.new(address.volume, address.root)
    if not isinstance(found, RWVolume):
        raise click.UsageError(f"a volume is recovered, not a version: leave @{address.version} out")
    made = found.blocking.recover(name, meta_dir=meta_dir, cache_dir=cache_dir, message=message)
    _told_recovered(VolumeAddress(address.root, name), made.id, made.locator, as_json)


def _told_recovered(made: VolumeAddress, version: str, locator: str | None, as_json: bool) -> None:
    if as_json:
        echo_json({"volume": str(made), "version": version, "locator": locator})
    else:
        click.echo(f"{made}@{version}")
