"""Moving a volume to another kind of metadata store: its journal's records, and its version's word for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from datastore.errors import ConfigError
from stowstore.chunks.store import ChunkStore
from stowstore.index.keys import SUPERBLOCK
from stowstore.index.node import NodeCache
from stowstore.index.records import Superblock
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.metastore import choose_kind, open_metastore
from stowstore.versions.errors import VolumeError
from stowstore.versions.journals import BASE, PENDING, has_changes, journal_name, open_journal
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.numbering import advanced
from stowstore.versions.root import Root

__all__ = ["migrate_version", "migrate_volume"]


def migrate_volume(
    root: Root,
    chunks: ChunkStore,
    volume: str,
    *,
    kind: str,
    meta_dir: Path | None,
    new_kind: str,
    new_meta_dir: Path | None,
    produced_by: Any = None,
) -> Manifest | None:
    """Moves the journal of a volume that is not open to another store, and publishes a version that says so.

    No data and no index are moved: the version has the snapshot of the newest.  Uncommitted changes move with the
    journal and stay uncommitted; staged data stay where they are.  None where the volume has no version yet.

    Raises:
        ConfigError: the store is of that kind already, or unknown.
        VolumeError: there are uncommitted changes, and the new store keeps nothing.
        LeaseHeld: somebody is writing the volume.
    """
    new_kind = _require_other(kind, new_kind)
    lease = Lease(root.store, root.lease_reference(volume))
    try:
        head = root.head(volume) if root.has_volume(volume) else None
        newest = None if head is None else root.load(head)
        if head is not None:
            lease.rebase(head.id)
        name = journal_name(root, volume, newest)
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(contextlib.closing(open_journal(kind, meta_dir, name)))
            if new_kind == "memory" and has_changes(old):
                raise VolumeError(
                    f"{volume} has uncommitted changes, which a store in memory does not keep", hint="commit first"
                )
            records = dict(old.load())
            first = advanced(_next_ino(root, chunks, newest, records.get(SUPERBLOCK)))
            if records.get(SUPERBLOCK) is not None:
                counters = Superblock.decode(records[SUPERBLOCK] or b"")
                records[SUPERBLOCK] = msgspec.structs.replace(counters, next_ino=first).encode()
            made = None
            if newest is not None and head is not None:
                made = _migrated(newest, volume, head, first, new_kind, produced_by)
            with _fresh(new_kind, new_meta_dir if new_meta_dir is not None else meta_dir) as new:
                if new is not None:
                    pending = {} if made is None else {PENDING: made.id.encode()}
                    new.replace(records, {**name, **pending})
                    new.sync()
                if made is not None:
                    old.set_meta(PENDING, made.id.encode())
                    lease.require()
                    root.write_manifest(made)
                    root.set_head(volume, made.name, head)
                    if new is not None:
                        new.set_meta(BASE, made.id.encode())
            stack.pop_all()
            old.destroy()
        return made
    finally:
        lease.release()


def migrate_version(
    root: Root, chunks: ChunkStore, version: VersionName, *, kind: str, new_kind: str, produced_by: Any = None
) -> Manifest:
    """Publishes a version equal to another one whose writers use another kind of store; it becomes nobody's head.

    Raises:
        ConfigError: the store is of that kind already, or unknown.
        NoSuchVersion: the version is gone.
    """
    new_kind = _require_other(kind, new_kind)
    found = root.load(version)
    first = advanced(_next_ino(root, chunks, found, None))
    made = _migrated(found, version.volume, version, first, new_kind, produced_by)
    root.write_manifest(made)
    return made


def _require_other(kind: str, new_kind: str) -> str:
    chosen = choose_kind(new_kind)
    if chosen == kind:
        raise ConfigError(f"the metadata store is {kind!r} already", hint="name another one, or leave it")
    return chosen


def _migrated(
    manifest: Manifest, volume: str, parent: VersionName, inode_offset: int, kind: str, produced_by: Any
) -> Manifest:
    return Manifest(
        volume=volume,
        snapshot=manifest.snapshot,
        parents=(parent,),
        message=f"Migrate the metadata store to {kind}",
        statistics=manifest.statistics,
        inode_offset=inode_offset,
        metadata_store_type=kind,
        produced_by=produced_by,
        parent_produced_by=manifest.produced_by,
    )


def _next_ino(root: Root, chunks: ChunkStore, manifest: Manifest | None, journalled: bytes | None) -> int:
    """The number the old store would give the next inode."""
    found = 1
    if manifest is not None:
        raw = Snapshot(manifest.snapshot, NodeCache(chunks.index_reader)).get(SUPERBLOCK)
        found = max(
            found, manifest.inode_offset, Superblock().next_ino if raw is None else Superblock.decode(raw).next_ino
        )
    return found if journalled is None else max(found, Superblock.decode(journalled).next_ino)


@contextlib.contextmanager
def _fresh(kind: str, meta_dir: Path | None) -> Iterator[MetaStore | None]:
    """The new store; None where nothing is to be kept."""
    if kind == "memory" or meta_dir is None:
        yield None
        return
    store = open_metastore(kind, meta_dir)
    if has_changes(store):
        store.close()
        raise VolumeError(f"{meta_dir} holds a {kind} journal with changes already", hint="give another new_meta_dir")
    try:
        yield store
    except BaseException:
        store.destroy()
        raise
    store.close()
