"""``stowstore volume usage``: what a volume takes, by directory, by version, and in packs."""

from __future__ import annotations

import time
from typing import Any

import click

from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.cli.transfers import status_line
from stowstore.cli.volume_access import Access, VolumePath, printable, volume_command
from stowstore.namespace.largest import largest_directories
from stowstore.transfer.paths import find
from stowstore.versions.manifest import Manifest
from stowstore.versions.marking import Marker, Marks, survey
from stowstore.versions.root import Root

__all__ = ["usage"]


@click.command()
@click.argument("volume")
@click.option("-n", "--largest", type=click.IntRange(min=0), default=10, show_default=True, help="Directories shown.")
@json_option
@volume_command
def usage(access: Access, volume: str, largest: int, as_json: bool) -> None:
    """Show what a VOLUME takes: its largest directories, what each version added, and how much is shared.

    VOLUME:/path looks at the directories below that path. Reads the index of every version in the root, no file.

    \b
    Example:
      stowstore volume usage file:///data/root#training
    """
    place = VolumePath.parse(volume)
    with access.reading(place.address) as session, status_line("adding up") as say:
        top = find(session.files, place.path).ino
        directories: list[dict[str, Any]] = [
            {"path": printable(found.path), "bytes": found.size, "files": found.files}
            for found in largest_directories(session.files, largest, top)
        ]
        say("reading the index of every version")
        root = session.root
        manifests = _versions(root, place.address.volume)
        versions, stored = _stored(root, session.chunks, manifests)
        newest = session.base
        assert newest is not None
    values: dict[str, Any] = {
        "volume": str(place.address),
        "version": newest.id,
        "inodes": newest.statistics.inode_count,
        "used_bytes": newest.statistics.used_bytes,
        "directories": directories,
        "versions": versions,
        "stored": stored,
    }
    if as_json:
        echo_json(values)
        return
    click.echo(f"{newest.id}: {size_text(newest.statistics.used_bytes)} in {newest.statistics.inode_count} inodes\n")
    cells = [(size_text(row["bytes"]), row["files"], row["path"]) for row in directories]
    echo_table(("size", "files", "directory"), cells, right=frozenset({0, 1}))
    click.echo()
    rows = [
        (
            row["version"],
            time_text(row["created"]),
            row["inodes"],
            size_text(row["used_bytes"]),
            size_text(row["added_bytes"]),
            printable(row["message"] or ""),
        )
        for row in versions
    ]
    echo_table(("version", "created", "inodes", "size", "added", "message"), rows, right=frozenset({2, 3, 4}))
    click.echo(
        f"\n{size_text(stored['logical_bytes'])} in all versions are {size_text(stored['volume_bytes'])} in packs "
        f"({stored['saved_ratio']:.1f} to 1), {size_text(stored['shared_bytes'])} of them shared with other volumes\n"
        f"the root holds {stored['packs']} packs, {size_text(stored['pack_bytes'])}, "
        f"of which {size_text(stored['needed_bytes'])} are needed"
    )


def _versions(root: Root, volume: str) -> list[Manifest]:
    """The versions of a volume, oldest first; of a fork that was not written yet the one it stands on."""
    found = {identity: root.manifest(volume, identity) for identity in root.version_ids(volume)}
    head = root.head(volume)
    found.setdefault(head.id, root.load(head))
    return [found[identity] for identity in sorted(found)]


def _stored(root: Root, chunks: ChunkStore, manifests: list[Manifest]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What each version has added to those before, and what the volume shares with others."""
    mine = Marker(chunks.index_reader)
    versions = []
    before = 0
    for manifest in manifests:
        mine.mark(manifest.snapshot)
        total = _live(mine.marks)
        versions.append(
            {
                "version": manifest.id,
                "created": manifest.created,
                "message": manifest.message,
                "inodes": manifest.statistics.inode_count,
                "used_bytes": manifest.statistics.used_bytes,
                "added_bytes": total - before,
            }
        )
        before = total
    known = {manifest.id for manifest in manifests}
    others = Marker(chunks.index_reader)
    for entry in survey(root, time.time()).versions:
        if entry.manifest.id not in known:
            others.mark(entry.manifest.snapshot)
    shared = before - sum(mine.marks.beyond(others.marks).values())
    packs = [pack for kind in PackKind for pack in chunks.list_packs(kind)]
    others.marks.add(mine.marks)
    logical = sum(manifest.statistics.used_bytes for manifest in manifests)
    stored = {
        "logical_bytes": logical,
        "volume_bytes": before,
        "saved_ratio": round(logical / before, 2) if before else 0.0,
        "shared_bytes": shared,
        "packs": len(packs),
        "pack_bytes": sum(pack.size for pack in packs),
        "needed_bytes": _live(others.marks),
    }
    return versions, stored


def _live(marks: Marks) -> int:
    return sum(marks.live_bytes(pack) for pack in marks)
