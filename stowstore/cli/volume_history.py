"""Commands about versions and what became of them: log, show, diff, fork, merge, tag, restore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import click

from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.cli.volume_access import Access, printable, volume_command
from stowstore.index.keys import SUPERBLOCK
from stowstore.index.node import NodeCache
from stowstore.index.records import Superblock
from stowstore.index.snapshot import Snapshot
from stowstore.versions.address import VolumeAddress
from stowstore.versions.changes import Change, ChangeKind, path_changes
from stowstore.versions.errors import NoSuchVersion
from stowstore.versions.history import walk_history
from stowstore.versions.manifest import Manifest
from stowstore.versions.merging import Conflicts
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.versions.successors import merge_version, restore_version

__all__ = ["diff", "fork", "log", "merge", "restore", "show", "tag"]

_LETTERS: Mapping[ChangeKind, str] = {
    ChangeKind.ADDED: "A",
    ChangeKind.REMOVED: "D",
    ChangeKind.CONTENT: "M",
    ChangeKind.ATTRIBUTES: "m",
    ChangeKind.REPLACED: "T",
}


@click.command()
@click.argument("volume")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Show so many.")
@json_option
@volume_command
def log(access: Access, volume: str, limit: int, as_json: bool) -> None:
    """Show the versions a VOLUME came from, newest first, those of the volumes it was forked from included.

    \b
    Example:
      stowstore volume log -n 5 file:///data/root#training
    """
    address = access.address(volume)
    root = access.root_of(address)
    found = walk_history(root, access.version(address), limit=limit)
    tags = _tags(root, address.volume)
    if as_json:
        echo_json([_described(manifest, tags) for manifest in found])
        return
    cells = (
        (
            manifest.id,
            manifest.volume,
            time_text(manifest.created),
            manifest.statistics.inode_count,
            size_text(manifest.statistics.used_bytes),
            "merge" if len(manifest.parents) > 1 else "",
            ", ".join(tags.get(manifest.id, ())),
            printable((manifest.message or "").partition("\n")[0]),
        )
        for manifest in found
    )
    head = ("version", "volume", "created", "inodes", "size", "", "tags", "message")
    echo_table(head, cells, right=frozenset({3, 4}))


@click.command()
@click.argument("volume")
@json_option
@volume_command
def show(access: Access, volume: str, as_json: bool) -> None:
    """Show all that is known of a version: manifest, statistics, parents, tags, limits, locator.

    \b
    Example:
      stowstore volume show file:///data/root#training@v1
    """
    address = access.address(volume)
    root = access.root_of(address)
    with access.reading(address) as session:
        manifest = session.base
        assert manifest is not None
        superblock = _superblock(session)
    ref = manifest.snapshot
    values: dict[str, Any] = {
        **_described(manifest, _tags(root, address.volume)),
        "locator": str(VolumeAddress.locator(address.root, manifest.volume, manifest.name)),
        "limit_bytes": superblock.limit_bytes or None,
        "limit_inodes": superblock.limit_inodes or None,
        "index_depth": ref.tree.depth,
        "index_segments": len(ref.deltas),
        "unmerged_records": ref.unmerged_records,
        "metadata_store_type": manifest.metadata_store_type,
        "produced_by": manifest.produced_by,
        "parent_produced_by": manifest.parent_produced_by,
        "encrypted": root.format.encryption is not None,
        "format": root.format.version,
    }
    if as_json:
        echo_json(values)
        return
    values["created"] = time_text(manifest.created)
    values["message"] = printable(manifest.message or "")
    values["tags"] = ", ".join(values["tags"])
    values["parents"] = ", ".join(values["parents"])
    for name in ("used_bytes", "index_bytes", "limit_bytes"):
        if values[name]:
            values[name] = f"{values[name]} ({size_text(values[name])})"
    echo_table(("property", "value"), [(name, value) for name, value in values.items() if value not in (None, "")])


@click.command()
@click.argument("old", metavar="VOLUME")
@click.argument("new", metavar="OTHER")
@click.option("--stat", "only_counts", is_flag=True, help="Count the changes instead of listing them.")
@json_option
@volume_command
def diff(access: Access, old: str, new: str, only_counts: bool, as_json: bool) -> None:
    """List the paths in which two versions differ: A added, D removed, M content, m attributes, T another kind.

    OTHER may be short: @VERSION of the same volume, or NAME[@VERSION] in the same root. Two volumes of this host are
    compared by their newest versions. Costs what differs, not what the volumes hold.

    \b
    Examples:
      stowstore volume diff file:///data/root#training@v1 @v2
      stowstore volume diff --stat file:///data/root#training experiment
    """
    address = access.address(old)
    other = access.other(new, old, address)
    with ExitStack() as opened:
        sides = []
        for side in (address, other):
            root = access.root_of(side)
            nodes = NodeCache(opened.enter_context(access.chunks(root)).index_reader)
            sides.append(Snapshot(root.load(access.version(side)).snapshot, nodes))
        changes = path_changes(*sides)
        if only_counts:
            _count(changes, as_json=as_json)
        elif as_json:
            echo_json(
                [
                    {"path": printable(change.path), "change": change.kind.value, "directory": change.is_directory}
                    for change in changes
                ]
            )
        else:
            for change in changes:
                click.echo(f"{_LETTERS[change.kind]} {printable(change.path)}{'/' if change.is_directory else ''}")


@click.command()
@click.argument("volume")
@click.argument("name")
@json_option
@volume_command
def fork(access: Access, volume: str, name: str, as_json: bool) -> None:
    """Make another volume NAME of a version, in the same root: one small write, whatever it holds.

    \b
    Example:
      stowstore volume fork file:///data/root#training@v1 experiment
    """
    if "#" in name or "@" in name:
        raise click.UsageError(f"a fork lies in the same root: give its name alone, not {name!r}")
    address = access.address(volume)
    with access.reading(address) as session:
        made = session.branch(name)
    _told(VolumeAddress(address.root, name), made.id, as_json=as_json)


@click.command()
@click.argument("volume")
@click.argument("other")
@click.option(
    "--conflicts",
    type=click.Choice([policy.value for policy in Conflicts]),
    default=Conflicts.FAIL.value,
    show_default=True,
    help="Whose side wins where both changed the same path.",
)
@click.option("-m", "--message", help="What the new version says of itself.")
@json_option
@volume_command
def merge(access: Access, volume: str, other: str, conflicts: str, message: str | None, as_json: bool) -> None:
    """Take into VOLUME what OTHER has changed since both were one.

    Conflicts are told by path; with --conflicts fail, status 4, and nothing has happened. Of two volumes of this host,
    one a clone of the other, the present states are merged; jobs may go on in OTHER only.

    \b
    Examples:
      stowstore volume merge file:///data/root#training experiment --conflicts theirs
      stowstore volume merge training experiment
    """
    address = access.address(volume)
    if address.version is not None:
        raise click.UsageError(f"a merge goes into a volume, not into a version: leave @{address.version} out")
    theirs = access.other(other, volume, address)
    before = access.version(address)
    if theirs.root != address.root:
        from stowstore.named import NamedVolumes

        name, _, version = other.partition("@")
        merged = NamedVolumes().merge(
            volume, name, version=version or None, conflicts=Conflicts(conflicts), message=message
        )
    else:
        root = access.root_of(address)
        with access.changing(volume, "merged into"), access.chunks(root) as chunks:
            merged = merge_version(
                root,
                chunks,
                address.volume,
                access.version(theirs),
                conflicts=Conflicts(conflicts),
                message=message,
            )
    paths = [printable(path) for path in merged.conflicts]
    if as_json:
        changed = merged.version != before
        echo_json({"volume": str(address), "version": merged.version.id, "merged": changed, "conflicts": paths})
        return
    for path in paths:
        click.echo(f"conflict, kept {conflicts}: {path}", err=True)
    if merged.version == before:
        click.echo("nothing to merge", err=True)
    click.echo(f"{address}@{merged.version.id}")


@click.command()
@click.argument("volume")
@click.argument("name", metavar="[TAG]", required=False)
@click.option("-d", "--delete", is_flag=True, help="Take the tag away.")
@click.option("-l", "--list", "is_list", is_flag=True, help="List the volume's tags; so does leaving TAG out.")
@json_option
@volume_command
def tag(access: Access, volume: str, name: str | None, delete: bool, is_list: bool, as_json: bool) -> None:
    """Name a version: VOLUME@VERSION, or the newest. A tag that exists moves. Tagged versions are not pruned.

    \b
    Examples:
      stowstore volume tag file:///data/root#training v1
      stowstore volume tag file:///data/root#training v1 --delete
      stowstore volume tag file:///data/root#training --list
    """
    address = access.address(volume)
    root = access.root_of(address)
    if is_list or name is None:
        if delete or (is_list and name is not None):
            raise click.UsageError("--list takes no TAG, and --delete needs one")
        root.head(address.volume)
        tags = root.tags(address.volume)
        if as_json:
            echo_json({found: version.to_data() for found, version in sorted(tags.items())})
        else:
            echo_table(("tag", "version", "volume"), [(t, v.id, v.volume) for t, v in sorted(tags.items())])
        return
    if delete:
        root.delete_tag(address.volume, name)
        return
    version = access.version(address)
    root.set_tag(address.volume, name, version)
    _told(VolumeAddress(address.root, address.volume, name), version.id, as_json=as_json)


@click.command()
@click.argument("volume")
@click.argument("version", metavar="[VERSION]", required=False)
@click.option("-m", "--message", help="What the new version says of itself.")
@json_option
@volume_command
def restore(access: Access, volume: str, version: str | None, message: str | None, as_json: bool) -> None:
    """Make a new version of VOLUME that equals an older one; what came in between stays in its history.

    The older version is VOLUME@VERSION, or given aside: VERSION, or NAME@VERSION of another volume.

    \b
    Examples:
      stowstore volume restore file:///data/root#training@v1
      stowstore volume restore file:///data/root#experiment training@v1
    """
    address = access.address(volume)
    if version is not None:
        if address.version is not None:
            raise click.UsageError("the version is given twice")
        # A word is a tag or an id of the volume itself, and the newest version of another one where it is none.
        own = "#" not in version and "@" not in version and _has(access, address, version)
        wanted = access.beside(f"@{version}" if own else version, address)
    elif address.version is None:
        raise click.UsageError(f"which version? Write {address}@VERSION; the log shows them")
    else:
        wanted = address
    root = access.root_of(address)
    with access.chunks(root) as chunks:
        made = restore_version(root, chunks, address.volume, access.version(wanted), message=message)
    _told(VolumeAddress(address.root, address.volume), made.id, as_json=as_json)


def _has(access: Access, address: VolumeAddress, version: str) -> bool:
    """Whether a volume has a version or tag of a name."""
    try:
        access.root_of(address).resolve(address.volume, version)
    except NoSuchVersion:
        return False
    return True


def _told(address: VolumeAddress, version: str, *, as_json: bool) -> None:
    if as_json:
        echo_json({"volume": str(address), "version": version})
    else:
        click.echo(f"{address.root}#{address.volume}@{version}")


def _described(manifest: Manifest, tags: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        "volume": manifest.volume,
        "version": manifest.id,
        "created": manifest.created,
        "message": manifest.message,
        "parents": [f"{parent.volume}@{parent.id}" for parent in manifest.parents],
        "tags": tags.get(manifest.id, []),
        "inodes": manifest.statistics.inode_count,
        "used_bytes": manifest.statistics.used_bytes,
        "index_bytes": manifest.statistics.index_bytes,
    }


def _tags(root: Root, volume: str) -> dict[str, list[str]]:
    """The tags of a volume, by the version they name."""
    found: dict[str, list[str]] = {}
    for name, version in sorted(root.tags(volume).items()):
        found.setdefault(version.id, []).append(name)
    return found


def _superblock(session: Session) -> Superblock:
    raw = session.files.snapshot.get(SUPERBLOCK)
    return Superblock() if raw is None else Superblock.decode(raw)


def _count(changes: Iterator[Change], *, as_json: bool) -> None:
    counts = Counter(change.kind for change in changes)
    if as_json:
        echo_json({kind.value: counts[kind] for kind in ChangeKind})
    else:
        shown = [f"{counts[kind]} {kind.value}" for kind in ChangeKind if counts[kind]]
        click.echo(", ".join(shown) or "no difference")
