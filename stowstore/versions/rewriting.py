"""Rewriting: copying what is live out of packs that are mostly garbage.

Versions never change, so rewriting is a new version of the head, equal to it but for where its blocks lie.  Older
versions keep the old packs until they are pruned; then collection takes those whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from itertools import chain

import msgspec
from attrs import evolve, frozen

from datastore import context
from stowstore.chunks.block import BlockRef, PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.writer import IndexWriter, PendingBlock
from stowstore.index.keys import EXTENTS, INODE, after_prefix
from stowstore.index.node import NodeCache, decode_node, encode_node
from stowstore.index.records import InodeRecord, pack_extents, unpack_extents
from stowstore.index.snapshot import Snapshot, SnapshotRef
from stowstore.index.tree import TreeRef, apply_changes
from stowstore.versions.collect import PackUse
from stowstore.versions.errors import LeaseHeld
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.marking import Marker, PackKey, blocks_of, survey
from stowstore.versions.numbering import advanced, next_ino
from stowstore.versions.root import Root
from stowstore.versions.ulid import new_ulid

__all__ = ["Rewriting", "publish", "rewrite_packs", "rewrite_sparse", "sparse_packs"]


@frozen(kw_only=True)
class Rewriting:
    """What rewriting a root came to.

    ``packs`` are the sparse ones, ``volumes`` those whose newest version needs some of them, ``versions`` what was
    published instead, and ``busy`` the volumes that were left because somebody writes them.
    """

    packs: tuple[PackUse, ...] = ()
    volumes: tuple[str, ...] = ()
    versions: tuple[VersionName, ...] = ()
    busy: tuple[str, ...] = ()


def rewrite_sparse(
    root: Root,
    chunks: ChunkStore,
    *,
    below: float = 0.5,
    dry_run: bool = True,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Rewriting:
    """Rewrites the newest version of every volume of a root that needs blocks of sparse packs.

    Older versions go on needing the packs: space comes back when they are pruned.

    Raises:
        StoreError: something cannot be listed or read; volumes before it have been rewritten.
    """
    packs = sparse_packs(root, chunks, below=below)
    leaving = frozenset((use.kind, use.pack) for use in packs)
    volumes = _needing(root, chunks, leaving) if leaving else ()
    versions: list[VersionName] = []
    busy: list[str] = []
    for done, volume in enumerate(() if dry_run else volumes):
        context.check()
        if on_progress is not None:
            on_progress("rewriting volumes", done, len(volumes))
        try:
            lease = Lease(root.store, root.lease_reference(volume), base=root.head(volume).id)
        except LeaseHeld:
            busy.append(volume)
            continue
        try:
            versions.append(rewrite_packs(root, chunks, volume, lease, packs=leaving))
        finally:
            lease.release()
    return Rewriting(packs=packs, volumes=volumes, versions=tuple(versions), busy=tuple(busy))


def sparse_packs(root: Root, chunks: ChunkStore, *, below: float = 0.5) -> tuple[PackUse, ...]:
    """The packs of a root of which less than the given part is needed, and something is.

    Raises:
        StoreError: something cannot be listed or read.
    """
    marker = Marker(chunks.index_reader)
    snapshots = {entry.manifest.snapshot for entry in survey(root, time.time()).versions}
    for snapshot in sorted(snapshots, key=lambda found: found.unmerged_records):
        marker.mark(snapshot)
    found = (
        PackUse.of(marker.marks, kind, entry.pack, entry.size) for kind in PackKind for entry in chunks.list_packs(kind)
    )
    return tuple(use for use in found if use.live and use.share < below)


def rewrite_packs(
    root: Root,
    chunks: ChunkStore,
    volume: str,
    lease: Lease,
    *,
    packs: Collection[PackKey] | None = None,
    below: float = 0.5,
) -> VersionName:
    """Publishes a version equal to the head that has no block in the given packs (None: in `sparse_packs`).

    The caller holds the volume's lease, taken on the head.  Returns the head itself when nothing of it lies there.

    Raises:
        LeaseLost: the lease ended meanwhile; nothing was published.
        CorruptBlock, CorruptNode, CorruptRecord: something of the head cannot be read; nothing was published.
    """
    head = root.head(volume)
    base = root.load(head)
    if packs is None:
        packs = [(use.kind, use.pack) for use in sparse_packs(root, chunks, below=below)]
    leaving = frozenset(packs)
    move = _Move(chunks, leaving)
    snapshot = move.snapshot(base.snapshot)
    if snapshot == base.snapshot:
        return head
    made = evolve(
        base,
        volume=volume,
        # The head of a fork nobody has written yet is a version of another volume, which goes on counting, too.
        inode_offset=base.inode_offset
        if base.volume == volume
        else advanced(max(base.inode_offset, next_ino(Snapshot(base.snapshot, NodeCache(chunks.index_reader))))),
        id=new_ulid(),
        parents=(head,),
        created=datetime.now(UTC),
        message=f"Rewrite {move.blocks} blocks and {move.nodes} index nodes out of sparse packs",
        snapshot=snapshot,
        statistics=evolve(base.statistics, index_bytes=move.index_bytes),
        produced_by=None,
        parent_produced_by=base.produced_by,
    )
    return publish(root, made, head, lease)


def publish(root: Root, made: Manifest, head: VersionName, lease: Lease) -> VersionName:
    """Makes a version the head of its volume, if the lease still stands."""
    lease.require()
    name = root.write_manifest(made)
    root.set_head(made.volume, name, head)
    lease.rebase(name.id)
    return name


def _needing(root: Root, chunks: ChunkStore, packs: Collection[PackKey]) -> tuple[str, ...]:
    """The volumes whose newest version has a block in some of the packs."""
    found = []
    for volume in root.volumes():
        marker = Marker(chunks.index_reader)
        marker.mark(root.load(root.head(volume)).snapshot)
        if any(key in marker.marks for key in packs):
            found.append(volume)
    return tuple(found)


class _Move:
    """Copies a snapshot, leaving every block in place but those in packs to be left."""

    def __init__(self, chunks: ChunkStore, leaving: Collection[PackKey]) -> None:
        self._chunks = chunks
        self._leaving = leaving
        #: Data blocks and index blocks copied, and the stored bytes of the whole index.
        self.blocks = 0
        self.nodes = 0
        self.index_bytes = 0

    def snapshot(self, ref: SnapshotRef) -> SnapshotRef:
        """The snapshot moved, its segments merged; the same one when nothing of it lies in the packs."""
        snapshot = Snapshot(ref, NodeCache(self._chunks.index_reader))
        changes = self._copy_data(snapshot)
        if not changes and not any(self._leaves(block) for delta in ref.deltas for block in delta.blocks):
            tree = self._copy_nodes(ref.tree)
            return ref if tree == ref.tree else evolve(ref, tree=tree)
        writer = self._chunks.index_writer()
        try:
            tree = apply_changes(snapshot.tree, sorted({**snapshot.unmerged, **changes}.items()), writer)
            writer.flush()
        finally:
            writer.close()
        return SnapshotRef(tree=self._copy_nodes(tree))

    def _copy_data(self, snapshot: Snapshot) -> dict[bytes, bytes]:
        """Copies data blocks in the order of their records; returns the records that change."""
        found: dict[bytes, bytes] = {}
        moved: dict[BlockRef, PendingBlock] = {}
        writer = self._chunks.writer()
        try:
            for key, value in chain(
                snapshot.scan(EXTENTS, after_prefix(EXTENTS)), snapshot.scan(INODE, after_prefix(INODE))
            ):
                context.check()
                leaving = [block for block in blocks_of(key, value) if (PackKind.DATA, block.pack) in self._leaving]
                for block in leaving:
                    if block not in moved:
                        moved[block] = writer.add(self._chunks.reader.read(block))
                if leaving:
                    found[key] = value
            writer.flush()
        finally:
            writer.close()
        self.blocks = len(moved)
        return {key: _relocated(key, value, moved) for key, value in found.items()}

    def _copy_nodes(self, tree: TreeRef) -> TreeRef:
        """Copies nodes out of the packs, and what stands above them."""
        if tree.root is None:
            return tree
        writer = self._chunks.index_writer()
        try:
            moved = TreeRef(self._copy_node(tree.root, tree.depth, writer), tree.depth)
            writer.flush()
        finally:
            writer.close()
        return moved

    def _copy_node(self, ref: BlockRef, level: int, writer: IndexWriter) -> BlockRef:
        context.check()
        self.index_bytes += ref.stored
        if level == 0 and not self._leaves(ref):
            return ref
        node = decode_node(self._chunks.index_reader.read([ref])[0], level)
        values = node.values
        if level:
            children = [node.child(position) for position in range(len(node.keys))]
            values = [self._copy_node(child, level - 1, writer).pack_bytes() for child in children]
        if values == node.values and not self._leaves(ref):
            return ref
        self.nodes += 1
        return writer.add(encode_node(level, node.keys, values))

    def _leaves(self, ref: BlockRef) -> bool:
        return (PackKind.INDEX, ref.pack) in self._leaving


def _relocated(key: bytes, value: bytes, moved: Mapping[BlockRef, PendingBlock]) -> bytes:
    """A record that names blocks where they have been moved."""
    record = InodeRecord.decode(value) if key[:1] == INODE else None
    extents = [
        extent._replace(block=moved[extent.block].ref) if extent.block in moved else extent
        for extent in unpack_extents(value if record is None else record.extents)
    ]
    packed = pack_extents(extents)
    return packed if record is None else msgspec.structs.replace(record, extents=packed).encode()
