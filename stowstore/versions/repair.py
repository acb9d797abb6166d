"""Repair: a new version that is whole, made of what is left of a damaged one.

Nothing is deleted: the damaged version stays, and what has lost its place goes to ``lost+found``.  Blocks that are
damaged are looked for in a local cache and, under the same name, in every other version of the root; records of the
index in older versions of the volume.  A file of which a block is lost for good keeps a hole there, and moves to
``lost+found``, so that nobody takes it for whole.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from attrs import evolve, frozen

from datastore import context
from stowstore.chunks.block import BlockRef, CorruptBlock, PackKind
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.writer import PendingBlock
from stowstore.index.keys import INODE
from stowstore.index.node import NodeCache
from stowstore.index.records import Extent, InodeRecord, pack_extents, unpack_extents
from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes
from stowstore.index.tree import build_tree
from stowstore.versions.check_packs import check_pack
from stowstore.versions.errors import CorruptManifest, NoSuchVersion, NoSuchVolume
from stowstore.versions.findings import CheckDepth
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import Manifest, Statistics, VersionName
from stowstore.versions.mending import Mender
from stowstore.versions.root import HEAD, Root
from stowstore.versions.salvage import LostRecords, PathNames, SalvageView, extents_in
from stowstore.versions.ulid import new_ulid

__all__ = ["LostRange", "RepairReport", "repair"]


@frozen
class LostRange:
    """Bytes of a file that nobody has any more; they read as zeros in the repaired version."""

    path: str
    offset: int
    length: int


@frozen(kw_only=True)
class RepairReport:
    """What was repaired, or would be.

    ``actions`` says it in words, one thing each.  ``version`` is the version made, None for a dry run or where nothing
    was wrong.  ``lost_ranges`` are named by the paths files had before they were moved.
    """

    dry_run: bool
    actions: tuple[str, ...] = ()
    lost_ranges: tuple[LostRange, ...] = ()
    restored_blocks: int = 0
    restored_records: int = 0
    version: VersionName | None = None

    @property
    def was_whole(self) -> bool:
        return not self.actions


def repair(
    root: Root,
    chunks: ChunkStore,
    volume: str,
    version: str | None = None,
    *,
    depth: CheckDepth = CheckDepth.DATA,
    cache: DiskCache | None = None,
    lease: Lease | None = None,
    dry_run: bool = True,
) -> RepairReport:
    """Repairs a version of a volume (None: the head) and, unless ``dry_run``, publishes the result as its new head.

    Below `CheckDepth.DATA` blocks are not read, so damaged ones stay.  ``cache`` is a disk cache that may hold what the
    store has lost.  Without a ``lease`` of the caller's the volume is leased meanwhile.

    Raises:
        NoSuchVolume, NoSuchVersion: there is no such version.
        CorruptManifest: the manifest itself is damaged: nothing can be made of it, name an older version.
        LeaseHeld: somebody writes the volume.
    """
    if dry_run:
        return _repair(root, chunks, volume, version, depth, cache, None)
    held = lease or Lease(root.store, root.lease_reference(volume))
    try:
        return _repair(root, chunks, volume, version, depth, cache, held)
    finally:
        if lease is None:
            held.release()


def _repair(
    root: Root,
    chunks: ChunkStore,
    volume: str,
    version: str | None,
    depth: CheckDepth,
    cache: DiskCache | None,
    lease: Lease | None,
) -> RepairReport:
    head, head_is_damaged = _head(root, volume)
    if version is None and head is None:
        raise CorruptManifest(f"the head of {volume} is damaged", hint="name the version to go on from")
    name = head if version is None or version == HEAD else root.resolve(volume, version)
    assert name is not None
    base = root.load(name)
    if lease is not None:
        lease.rebase(base.id)
    with ChunkStore(root.store, root.base, chunks.codec, memory=MemoryCache(32 << 20), disk=cache) as fresh:
        work = _Repair(root, fresh, base, dry_run=lease is None)
        work.restore_records(_others(root, volume, base))
        if depth >= CheckDepth.EXISTENCE:
            work.restore_blocks(depth)
        work.mender.mend()
        lost = work.lost_ranges()
        work.mender.move_torn()
        actions = [*work.actions, *work.mender.done]
        if head_is_damaged:
            actions.append("replaced the damaged head")
        elif head is not None and head != name:
            actions.append(f"went back to version {name.id}")
        report = RepairReport(
            dry_run=lease is None,
            actions=tuple(actions),
            lost_ranges=tuple(lost),
            restored_blocks=work.restored_blocks,
            restored_records=work.restored_records,
        )
        if lease is None or report.was_whole:
            return report
        parents = (name,) if head is None or head == name else (head, name)
        manifest = work.manifest(volume, parents, actions)
    lease.require()
    made = root.write_manifest(manifest)
    if head_is_damaged:
        # It names nothing, and nobody could replace it conditionally.
        root.store.delete(root.base.join("refs", volume, HEAD))
    root.set_head(volume, made, head)
    lease.rebase(made.id)
    return evolve(report, version=made)


class _Repair:
    """The repair of one version."""

    def __init__(self, root: Root, chunks: ChunkStore, base: Manifest, *, dry_run: bool) -> None:
        self.actions: list[str] = []
        self.restored_blocks = 0
        self.restored_records = 0
        self._root = root
        self._chunks = chunks
        self._base = base
        self._dry_run = dry_run
        self._view = SalvageView(base.snapshot, chunks.index_reader)
        self.mender = Mender(self._view, base.inode_offset)

    def restore_records(self, others: Iterator[Manifest]) -> None:
        """Takes records of the index that are lost from the newest other version that has them."""
        for _ in self._view.scan():
            context.check()
        lost = list(self._view.lost)
        for found in lost:
            if found.delta is not None:
                self.actions.append(f"{found.delta.records} changed records are lost; they are as they were before")
        if self._view.misfiltered:
            self.actions.append("wrote the index anew, whose filters denied records that it holds")
        waiting = [found for found in lost if found.delta is None]
        for other in others if waiting else ():
            view = SalvageView(other.snapshot, self._chunks.index_reader)
            left: list[LostRecords] = []
            for found in waiting:
                before = len(view.lost)
                records = {
                    key: value for key, value in view.scan(found.start, found.stop) if not self._view.decides(key)
                }
                if len(view.lost) > before or any(found.covers(gone.start) for gone in view.lost):
                    left.append(found)
                    continue
                self.mender.apply(dict(records))
                self.restored_records += len(records)
                self.actions.append(f"took {len(records)} lost records as they were in version {other.id}")
            waiting = left
        if waiting:
            self.actions.append(f"{len(waiting)} parts of the index are lost, and no other version has them")

    def restore_blocks(self, depth: CheckDepth) -> None:
        """Uploads damaged blocks again from wherever they are left; files lose those that are nowhere."""
        bad = self._bad_blocks(depth)
        if not bad:
            return
        again: dict[BlockRef, PendingBlock] = {}
        lost: set[BlockRef] = set()
        elsewhere = self._elsewhere(bad)
        writer = self._chunks.writer()
        try:
            for block in sorted(bad):
                content = self._content(block, elsewhere[block.name])
                if content is None:
                    lost.add(block)
                else:
                    self.restored_blocks += 1
                    if not self._dry_run:
                        again[block] = writer.add(content)
            writer.flush()
        finally:
            writer.close()
        torn: set[int] = set()
        changes: dict[bytes, bytes | None] = {}
        for ino, key, extent in extents_in(self._view):
            if extent.block in lost:
                torn.add(ino)
            elif extent.block in again:
                changes[key] = None
        self.mender.apply({key: self._relocated(key, again) for key in changes})
        for ino in sorted(torn):
            self.mender.rebuild_extents(ino, without=frozenset(lost))
        if self.restored_blocks:
            self.actions.append(f"uploaded {self.restored_blocks} damaged blocks again")
        if lost:
            self.actions.append(f"{len(lost)} damaged blocks are lost, and with them parts of {len(torn)} files")

    def lost_ranges(self) -> list[LostRange]:
        """What files have lost, by the paths they have now."""
        paths = PathNames(self._view).of(hole.ino for hole in self.mender.holes)
        return [
            LostRange(path, hole.offset, hole.length) for hole in self.mender.holes for path in sorted(paths[hole.ino])
        ]

    def manifest(self, volume: str, parents: tuple[VersionName, ...], actions: list[str]) -> Manifest:
        """Writes the index and describes the version; nothing names it yet."""
        writer = self._chunks.index_writer()
        try:
            if self._view.lost or self._view.misfiltered:
                # What cannot be read, or found, cannot be shared either.
                snapshot = SnapshotRef(tree=build_tree(self._view.scan(), writer))
            else:
                old = Snapshot(self._base.snapshot, NodeCache(self._chunks.index_reader))
                snapshot = commit_changes(old, self.mender.changes, writer)
            writer.flush()
        finally:
            writer.close()
        counters = self.mender.counters
        kept = 0 if self._view.lost or self._view.misfiltered else self._base.statistics.index_bytes
        listed = "; ".join(actions[:20]) + ("; ..." if len(actions) > 20 else "")
        return evolve(
            self._base,
            volume=volume,
            id=new_ulid(),
            parents=parents,
            created=datetime.fromtimestamp(time.time(), UTC),
            message=f"Repair of version {self._base.id}: {listed}",
            snapshot=snapshot,
            statistics=Statistics(
                used_bytes=counters.used_bytes,
                inode_count=counters.inode_count,
                index_bytes=kept + writer.stored_bytes,
            ),
            produced_by=None,
            parent_produced_by=self._base.produced_by,
        )

    def _bad_blocks(self, depth: CheckDepth) -> set[BlockRef]:
        needed: defaultdict[bytes, set[BlockRef]] = defaultdict(set)
        for _, _, extent in extents_in(self._view):
            needed[extent.block.pack].add(extent.block)
        there = {entry.pack: entry.size for entry in self._chunks.list_packs(PackKind.DATA)}
        bad: set[BlockRef] = set()
        # Damage of the store is what counts: the cache may hide it.
        with ChunkStore(self._root.store, self._root.base, self._chunks.codec, memory=MemoryCache(8 << 20)) as plain:
            for pack, blocks in needed.items():
                context.check()
                size = there.get(pack, 0)
                bad |= {block for block in blocks if block.offset + block.stored > size}
                if depth >= CheckDepth.DATA and size:
                    found = check_pack(plain, PackKind.DATA, pack, blocks - bad)
                    for damage in found:
                        # Blocks beside a damaged table may be whole; they belong into another pack all the same.
                        bad |= blocks if damage.block is None else {damage.block}
        return bad

    def _elsewhere(self, bad: set[BlockRef]) -> dict[bytes, set[BlockRef]]:
        """Where else blocks of the same content lie, by what any version of the root says."""
        found: dict[bytes, set[BlockRef]] = {block.name: set() for block in bad}
        seen: set[SnapshotRef] = set()
        for volume in self._root.volumes():
            for other in _others(self._root, volume, None):
                if other.snapshot in seen:
                    continue
                seen.add(other.snapshot)
                for _, _, extent in extents_in(SalvageView(other.snapshot, self._chunks.index_reader)):
                    if extent.block.name in found and extent.block not in bad:
                        found[extent.block.name].add(extent.block)
        return found

    def _content(self, block: BlockRef, others: set[BlockRef]) -> bytes | None:
        for candidate in (block, *sorted(others)):
            try:
                return self._chunks.reader.read(candidate)
            except CorruptBlock:
                continue
        return None

    def _relocated(self, key: bytes, again: dict[BlockRef, PendingBlock]) -> bytes | None:
        value = self._view.get(key)
        assert value is not None
        record = InodeRecord.decode(value) if key[:1] == INODE else None
        packed = pack_extents([_moved(extent, again) for extent in unpack_extents(record.extents if record else value)])
        return msgspec.structs.replace(record, extents=packed).encode() if record else packed


def _moved(extent: Extent, again: dict[BlockRef, PendingBlock]) -> Extent:
    found = again.get(extent.block)
    return extent if found is None else extent._replace(block=found.ref)


def _head(root: Root, volume: str) -> tuple[VersionName | None, bool]:
    """What the head names, and whether it is damaged."""
    try:
        return root.head(volume), False
    except CorruptManifest:
        return None, True
    except NoSuchVolume:
        if not any(root.version_ids(volume)):
            raise
        return None, False


def _others(root: Root, volume: str, base: Manifest | None) -> Iterator[Manifest]:
    """The readable versions of a volume but one, newest first."""
    for version in sorted(root.version_ids(volume), reverse=True):
        try:
            found = root.manifest(volume, version)
        except (CorruptManifest, NoSuchVersion):
            continue
        if base is None or found.id != base.id:
            yield found
