"""Versions made of other versions: merging a fork in, and going back to an earlier state.

Neither needs the volume's files, only its index; both take the volume's lease while they publish.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from attrs import evolve, frozen

from stowstore.chunks.store import ChunkStore
from stowstore.index.keys import SUPERBLOCK
from stowstore.index.node import NodeCache
from stowstore.index.records import Superblock
from stowstore.index.snapshot import Snapshot, commit_changes
from stowstore.versions.history import common_ancestor
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import Manifest, Statistics, VersionName
from stowstore.versions.merging import Conflicts, merge_snapshots
from stowstore.versions.numbering import advanced
from stowstore.versions.rewriting import publish
from stowstore.versions.root import Root
from stowstore.versions.ulid import new_ulid

__all__ = ["Merged", "merge_version", "restore_version"]


@frozen
class Merged:
    """The version a merge has made, or the head where there was nothing to take, and the paths in conflict."""

    version: VersionName
    conflicts: tuple[str, ...] = ()


def merge_version(
    root: Root,
    chunks: ChunkStore,
    volume: str,
    theirs: VersionName,
    *,
    conflicts: Conflicts = Conflicts.FAIL,
    message: str | None = None,
    produced_by: Any = None,
) -> Merged:
    """Publishes a version of ``volume`` that has what another version changed since both were one.

    Costs what the two sides changed.  Data are not moved: both sides lie in the same root.

    Raises:
        MergeConflict: with ``Conflicts.FAIL``, naming the paths both sides changed; nothing was published.
        Unrelated: the two have no common ancestor.
        LeaseHeld: somebody is writing the volume.
    """
    with _lease(root, volume) as lease:
        head = root.head(volume)
        ancestor = common_ancestor(root, head, theirs)
        if ancestor.id == theirs.id:
            return Merged(head)
        nodes = NodeCache(chunks.index_reader)
        ours = root.load(head)
        base, mine, other = (Snapshot(root.load(name).snapshot, nodes) for name in (ancestor, head, theirs))
        result = merge_snapshots(base, mine, other, conflicts)
        if not result.changes:
            return Merged(head, result.conflicts)
        index = chunks.index_writer()
        try:
            ref = commit_changes(mine, result.changes, index)
            index.flush()
        finally:
            index.close()
        superblock = _superblock(mine.with_changes(ref, result.changes))
        made = Manifest(
            volume=volume,
            snapshot=ref,
            parents=(head, theirs),
            message=message if message is not None else f"Merge {theirs.volume}@{theirs.id}",
            statistics=Statistics(
                used_bytes=superblock.used_bytes,
                inode_count=superblock.inode_count,
                index_bytes=ours.statistics.index_bytes + index.stored_bytes,
            ),
            # The other side goes on from its own last number, which is the highest here now.
            inode_offset=advanced(superblock.next_ino),
            metadata_store_type=ours.metadata_store_type,
            produced_by=produced_by,
            parent_produced_by=ours.produced_by,
        )
        return Merged(publish(root, made, head, lease), result.conflicts)


def restore_version(
    root: Root,
    chunks: ChunkStore,
    volume: str,
    version: VersionName,
    *,
    message: str | None = None,
    produced_by: Any = None,
) -> VersionName:
    """Publishes a version of ``volume`` equal to another one; what came in between stays in its history.

    One small write, whatever the size.

    Raises:
        LeaseHeld: somebody is writing the volume.
        NoSuchVersion: the version is gone.
    """
    with _lease(root, volume) as lease:
        head = root.head(volume)
        newest, wanted = root.load(head), root.load(version)
        nodes = NodeCache(chunks.index_reader)
        made = evolve(
            wanted,
            volume=volume,
            id=new_ulid(),
            parents=(head,),
            created=datetime.now(UTC),
            message=message if message is not None else f"Restore {version.volume}@{version.id}",
            # Numbers of inodes that the versions in between have given out are not given out again.
            inode_offset=advanced(
                max(
                    wanted.inode_offset,
                    newest.inode_offset,
                    *(_superblock(Snapshot(version.snapshot, nodes)).next_ino for version in (wanted, newest)),
                )
            ),
            produced_by=produced_by,
            parent_produced_by=newest.produced_by,
        )
        return publish(root, made, head, lease)


@contextmanager
def _lease(root: Root, volume: str) -> Iterator[Lease]:
    lease = Lease(root.store, root.lease_reference(volume), base=root.head(volume).id)
    try:
        yield lease
    finally:
        lease.release()


def _superblock(snapshot: Snapshot) -> Superblock:
    raw = snapshot.get(SUPERBLOCK)
    return Superblock() if raw is None else Superblock.decode(raw)
