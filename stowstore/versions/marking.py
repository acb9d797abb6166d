"""Marking: which packs the versions of a root need, and how many bytes of each.

What is live is the union of what each version needs, so marking falls into independent units: segments of a snapshot,
and subtrees with the segments above them, need nothing but a reader of index blocks, and `Marks.add` joins what units
have found, in any order (`stowstore.versions.marking_parts`).  In one process all share one `Marker`, which does not
walk again what it has walked, so that a thousand versions of one volume cost what differs between them.

A record that a later segment replaces is not needed by that version, though its leaf is; records hidden so are
remembered by node, and looked at again when a version comes that shares the node and does show them.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from datastore.reference import DataReference
from stowstore.chunks.block import BlockRef, PackKind
from stowstore.chunks.packs import table_bytes
from stowstore.index.delta import DeltaRef, read_deltas
from stowstore.index.keys import EXTENTS, INODE
from stowstore.index.node import Node, NodeReader, decode_node
from stowstore.index.records import InodeRecord, unpack_extents
from stowstore.index.snapshot import SnapshotRef
from stowstore.versions.errors import CorruptManifest, NoSuchVersion
from stowstore.versions.lease import LeaseRecord, read_lease
from stowstore.versions.manifest import Manifest
from stowstore.versions.root import Root
from stowstore.versions.ulid import is_ulid, ulid_seconds

__all__ = [
    "LEASE_MARGIN",
    "HeldLease",
    "LiveBlock",
    "Marker",
    "Marks",
    "PackKey",
    "Survey",
    "VersionEntry",
    "blocks_of",
    "mark_snapshot",
    "survey",
]

#: A pack of a root: its kind and its id.
PackKey = tuple[PackKind, bytes]

#: A block of a root: kind and id of its pack, and where it lies in that.
LiveBlock = tuple[PackKind, bytes, int]

#: What clocks of two machines may differ by, seconds: a lease counts for so much longer than it says.
LEASE_MARGIN = 30.0

#: How many nodes are fetched together.
_BATCH = 64

#: How many keys of segments are kept for the versions to come.
_MAX_KEYS = 1 << 20

_NOTHING: frozenset[bytes] = frozenset()


class Marks:
    """The live blocks of packs, 8 bytes each; not thread-safe."""

    def __init__(self) -> None:
        self._blocks: dict[PackKey, array[int]] = {}
        self._compact: dict[PackKey, int] = {}

    def __contains__(self, pack: object) -> bool:
        return pack in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[PackKey]:
        return iter(self._blocks)

    def mark(self, kind: PackKind, ref: BlockRef) -> None:
        """Counts a block as live; doing it again changes nothing."""
        key = (kind, ref.pack)
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = array("Q")
        found.append(ref.offset << 32 | ref.stored)
        if len(found) > self._compact.get(key, 64):
            self._tidy(key)

    def add(self, other: Marks) -> None:
        """Takes over what another unit has marked."""
        for key, blocks in other._blocks.items():
            self._blocks.setdefault(key, array("Q")).extend(blocks)
            self._tidy(key)

    def compact(self) -> None:
        """Forgets what was marked twice, before the marks are kept or sent."""
        for key in self._blocks:
            self._tidy(key)

    def live_bytes(self, pack: PackKey) -> int:
        """Stored bytes of a pack that are needed."""
        if pack not in self._blocks:
            return 0
        return sum(block & 0xFFFFFFFF for block in self._tidy(pack))

    def pack_bytes(self, pack: PackKey) -> int:
        """How large a pack of what is needed alone would be: with a table, but without its checksums."""
        if pack not in self._blocks:
            return 0
        blocks = self._tidy(pack)
        return sum(block & 0xFFFFFFFF for block in blocks) + table_bytes(len(blocks))

    def beyond(self, other: Marks) -> dict[LiveBlock, int]:
        """The blocks that are live here and not in the other marks, and their stored bytes."""
        found: dict[LiveBlock, int] = {}
        for key in self._blocks:
            there = set(other._tidy(key)) if key in other else set()
            for block in self._tidy(key):
                if block not in there:
                    found[(*key, block >> 32)] = block & 0xFFFFFFFF
        return found

    def _tidy(self, key: PackKey) -> array[int]:
        blocks = array("Q", sorted(set(self._blocks[key])))
        self._blocks[key] = blocks
        self._compact[key] = max(64, 2 * len(blocks))
        return blocks


class Marker:
    """Marks snapshots, sharing what they share; not thread-safe.

    ``nodes`` counts the index blocks that were read.
    """

    def __init__(self, reader: NodeReader) -> None:
        self.marks = Marks()
        self.nodes = 0
        self._reader = reader
        # Nodes and segments that were walked, and the keys below them that no version has shown so far.
        self._walked: dict[bytes, frozenset[bytes]] = {}
        self._keys: OrderedDict[DeltaRef, frozenset[bytes]] = OrderedDict()
        self._kept = 0

    def mark(self, snapshot: SnapshotRef) -> None:
        """Marks what one snapshot needs.

        Raises:
            CorruptNode, CorruptRecord, CorruptBlock: something of its index cannot be read.
        """
        self.mark_segments(snapshot.deltas)
        root = snapshot.tree.root
        if root is not None:
            self.marks.mark(PackKind.INDEX, root)
            self.mark_subtree(root, snapshot.tree.depth, snapshot.deltas)

    def mark_segments(self, deltas: Sequence[DeltaRef]) -> None:
        """Marks the segments of a snapshot, oldest first, and what they show."""
        for position, delta in enumerate(deltas):
            self._mark_delta(delta, _Mask(self, deltas[position + 1 :]))

    def mark_subtree(self, node: BlockRef, level: int, above: Sequence[DeltaRef]) -> None:
        """Marks what lies below a node of a tree, which is marked already, under the segments above it."""
        mask = _Mask(self, above)
        if self._has_to_walk(node.name, mask):
            self._walk(node, self._read([node], level)[0], mask)

    def keys_of(self, delta: DeltaRef) -> frozenset[bytes]:
        """The keys that a segment sets or deletes."""
        found = self._keys.get(delta)
        if found is None:
            found = self._remember(delta, read_deltas([delta], self._reader))
        return found

    def _mark_delta(self, delta: DeltaRef, mask: _Mask) -> None:
        for block in delta.blocks:
            self.marks.mark(PackKind.INDEX, block)
        # Blocks are named by content, so the names say what the segment holds.
        name = b"".join(block.name for block in delta.blocks)
        if self._has_to_walk(name, mask):
            self.nodes += len(delta.blocks)
            records = read_deltas([delta], self._reader)
            self._remember(delta, records)
            shown = ((key, value) for key, value in records.items() if value is not None)
            self._settle(name, self._mark_records(shown, mask))

    def _remember(self, delta: DeltaRef, records: Mapping[bytes, bytes | None]) -> frozenset[bytes]:
        keys = frozenset(records)
        if delta not in self._keys:
            self._keys[delta] = keys
            self._kept += len(keys)
            while self._kept > _MAX_KEYS and len(self._keys) > 1:
                self._kept -= len(self._keys.popitem(last=False)[1])
        return keys

    def _has_to_walk(self, name: bytes, mask: _Mask) -> bool:
        hidden = self._walked.get(name)
        return hidden is None or any(key not in mask for key in hidden)

    def _walk(self, ref: BlockRef, node: Node, mask: _Mask) -> None:
        if node.level == 0:
            hidden = self._mark_records(zip(node.keys, node.values, strict=True), mask)
        else:
            hidden = _NOTHING
            children = [node.child(position) for position in range(len(node.keys))]
            for child in children:
                self.marks.mark(PackKind.INDEX, child)
            ahead = [child for child in children if self._has_to_walk(child.name, mask)]
            # One batch of inner nodes is a lot of work already, and their leaves have to fit beside them.
            size = _BATCH if node.level == 1 else 1
            for start in range(0, len(ahead), size):
                part = ahead[start : start + size]
                for child, content in zip(part, self._read(part, node.level - 1), strict=True):
                    self._walk(child, content, mask)
            for child in children:
                hidden |= self._walked[child.name]
        self._settle(ref.name, hidden)

    def _settle(self, name: bytes, hidden: frozenset[bytes]) -> None:
        """Remembers what is hidden still, by this version and by all before."""
        before = self._walked.get(name)
        self._walked[name] = hidden if before is None else hidden & before

    def _read(self, refs: Sequence[BlockRef], level: int) -> list[Node]:
        self.nodes += len(refs)
        return [decode_node(raw, level) for raw in self._reader.read(refs)]

    def _mark_records(self, records: Iterable[tuple[bytes, bytes]], mask: _Mask) -> frozenset[bytes]:
        """Marks the blocks that records name; returns the keys the mask hides."""
        mark, data = self.marks.mark, PackKind.DATA
        hidden: list[bytes] = []
        for key, value in records:
            blocks = blocks_of(key, value)
            if not blocks:
                continue
            if key in mask:
                hidden.append(key)
            else:
                for block in blocks:
                    mark(data, block)
        return frozenset(hidden) if hidden else _NOTHING


class _Mask:
    """The keys that the segments above a layer replace; read only when somebody asks."""

    __slots__ = ("_above", "_keys", "_marker")

    def __init__(self, marker: Marker, above: Sequence[DeltaRef]) -> None:
        self._marker = marker
        self._above = above
        self._keys: list[frozenset[bytes]] | None = None

    def __contains__(self, key: bytes) -> bool:
        if not self._above:
            return False
        keys = self._keys
        if keys is None:
            keys = self._keys = [self._marker.keys_of(delta) for delta in self._above]
        return any(key in part for part in keys)


def mark_snapshot(snapshot: SnapshotRef, reader: NodeReader) -> Marks:
    """What one snapshot needs: the unit of work that can run anywhere.

    Raises:
        CorruptNode, CorruptRecord, CorruptBlock: something of its index cannot be read.
    """
    marker = Marker(reader)
    marker.mark(snapshot)
    return marker.marks


def blocks_of(key: bytes, value: bytes) -> list[BlockRef]:
    """The blocks of file data that a record names.

    Raises:
        CorruptRecord, CorruptBlock: the record cannot be read.
    """
    if key[:1] == INODE:
        value = InodeRecord.decode(value).extents
    elif key[:1] != EXTENTS:
        return []
    return [extent.block for extent in unpack_extents(value)] if value else []


@frozen
class VersionEntry:
    """A version that was found in a root, with its manifest and when that was written, in seconds since 1970."""

    manifest: Manifest
    reference: DataReference
    size: int
    written: float


@frozen
class HeldLease:
    """A lease that was found in a root."""

    volume: str
    reference: DataReference
    record: LeaseRecord

    @property
    def is_of_writer(self) -> bool:
        """Whether somebody may publish under it; what an interrupted import leaves only keeps what it has put."""
        return not self.volume.startswith("_")

    def __str__(self) -> str:
        kind, _, name = self.volume.partition("-")
        if kind == "_journal":
            return f"uncommitted work of {self.record}"
        return (
            f"an import into {name} by {self.record}"
            if kind == "_import"
            else f"the writer of {self.volume}, {self.record}"
        )


@frozen(kw_only=True)
class Survey:
    """Everything of a root that keeps blocks alive, as it was found.

    ``abandoned`` are versions of volumes that have neither reference nor live lease: deleted volumes, or first commits
    that never ended.  ``over`` are leases that count no more.
    """

    versions: tuple[VersionEntry, ...]
    leases: tuple[HeldLease, ...]
    over: tuple[HeldLease, ...]
    abandoned: tuple[VersionEntry, ...]

    @property
    def oldest_lease(self) -> float | None:
        """When the oldest live lease began, in seconds since 1970."""
        return min((lease.record.started for lease in self.leases), default=None)


def survey(root: Root, now: float) -> Survey:
    """Reads every lease, reference and manifest of a root.

    Leases come first: a writer that is not seen has then published before the manifests are read, or has begun after.

    Raises:
        CorruptManifest: a lease, reference or manifest is damaged, or names a version that is not there.
        StoreError: something cannot be read.
    """
    leases: list[HeldLease] = []
    over: list[HeldLease] = []
    for entry in root.store.walk(root.base.join("leases"), directory=True):
        record = read_lease(root.store, entry.reference)
        if record is not None:
            held = HeldLease(entry.reference.name, entry.reference, record)
            (over if now > record.expires + LEASE_MARGIN else leases).append(held)
    versions = list(_versions(root))
    known = {entry.manifest.id: entry for entry in versions}
    kept = {lease.volume for lease in leases} | set(root.volumes())
    needed = _pinned(root, known) | {_require_base(lease, known) for lease in leases}
    abandoned = [entry for entry in versions if entry.manifest.volume not in kept and entry.manifest.id not in needed]
    return Survey(versions=tuple(versions), leases=tuple(leases), over=tuple(over), abandoned=tuple(abandoned))


def _versions(root: Root) -> Iterator[VersionEntry]:
    prefix = root.base.join("versions")
    for entry in root.store.walk(prefix, directory=True):
        volume, _, version = entry.reference.key[len(prefix.key) + 1 :].partition("/")
        if not is_ulid(version):
            raise CorruptManifest(
                "this is no version of a volume",
                reference=str(entry.reference),
                hint="nothing but manifests belongs there: move it away",
            )
        try:
            manifest = root.manifest(volume, version)
        except NoSuchVersion:
            # Pruned since it was listed.
            continue
        modified = 0.0 if entry.last_modified is None else entry.last_modified.timestamp()
        yield VersionEntry(manifest, entry.reference, entry.size, max(ulid_seconds(version), modified))


def _pinned(root: Root, known: Mapping[str, VersionEntry]) -> set[str]:
    """The versions that heads and tags name, all of which are there as they are named."""
    pinned = root.pinned()
    for name, labels in pinned.items():
        entry = known.get(name.id)
        if entry is None:
            # Published after the manifests were listed, or lost.
            root.load(name)
        elif entry.manifest.name != name:
            raise CorruptManifest(f"{', '.join(labels)} does not name version {name.id} as it is")
    return {name.id for name in pinned}


def _require_base(lease: HeldLease, known: Mapping[str, VersionEntry]) -> str | None:
    """The version a writer stands on, which must be there."""
    if lease.record.base is None:
        return None
    base = lease.record.base.rpartition("@")[2]
    if base not in known:
        raise CorruptManifest(
            f"the writer of {lease.volume} ({lease.record}) stands on version {base}, which is not there",
            hint="wait until that writer has ended",
        )
    return base
