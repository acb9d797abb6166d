"""Reading a damaged index: every record that can be read, and what cannot."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from stowstore.chunks.block import BlockRef, CorruptBlock
from stowstore.index.delta import DeltaRef, read_deltas
from stowstore.index.keys import ENTRY, EXTENTS, INODE, ROOT_INODE, after_prefix, entry_prefix, inode_key, name_of
from stowstore.index.keys import inode_of as parent_of
from stowstore.index.node import CorruptNode, Node, NodeCache, NodeReader
from stowstore.index.records import CorruptRecord, EntryRecord, Extent, InodeRecord, unpack_extents
from stowstore.index.snapshot import SnapshotRef

__all__ = ["DAMAGE", "LostRecords", "PathNames", "SalvageView", "extents_in", "path_text"]

#: What says that stored bytes are bad, rather than that they could not be looked at.
DAMAGE: Final = (CorruptBlock, CorruptNode, CorruptRecord)

_AHEAD = 16


class LostRecords(NamedTuple):
    """Records that cannot be read: those of the tree from ``start`` to below ``stop`` (None: the end).

    Of a lost segment ``delta`` is set: it changed ``records`` records, nobody can say which.
    """

    start: bytes
    stop: bytes | None
    block: BlockRef
    why: str
    delta: DeltaRef | None = None

    def covers(self, key: bytes) -> bool:
        return self.delta is None and self.start <= key and (self.stop is None or key < self.stop)


class SalvageView:
    """The records of a snapshot as far as they can be read, under changes of the caller's; not thread-safe.

    ``lost`` grows as reading goes on; only damage counts, a store that cannot be read raises.  ``packs`` are the index
    packs that were needed, and how far.
    """

    def __init__(self, ref: SnapshotRef, reader: NodeReader) -> None:
        self.ref = ref
        self.packs: dict[bytes, int] = {}
        self.nodes = 0
        #: Segments whose filters deny keys that they hold: lookups and scans would contradict each other.
        self.misfiltered: list[DeltaRef] = []
        self._lost: dict[bytes, LostRecords] = {}
        self._cache = NodeCache(reader, 32 << 20)
        self._records: dict[bytes, bytes | None] = {}
        self._keys: list[bytes] | None = None
        self._seen: set[bytes] = set()
        for delta in ref.deltas:
            try:
                records = read_deltas([delta], reader)
            except DAMAGE as error:
                self._lost[delta.blocks[0].name] = LostRecords(b"", None, delta.blocks[0], str(error), delta)
            else:
                self._records.update(records)
                if delta.hides_any(records, reader):
                    self.misfiltered.append(delta)
                for block in delta.blocks:
                    self._note(block)

    @property
    def lost(self) -> tuple[LostRecords, ...]:
        return tuple(self._lost.values())

    def lay_over(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Shows the view with changes from now on."""
        if self._keys is not None:
            for key in changes:
                if key not in self._records:
                    insort(self._keys, key)
        self._records.update(changes)

    def decides(self, key: bytes) -> bool:
        """Whether a segment or a change says what a key is, so that the tree is not asked."""
        return key in self._records

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None also where it is lost."""
        return next((value for found, value in self.scan(key, key + b"\0")), None)

    def inode(self, ino: int) -> InodeRecord | None:
        """The record of an inode, None where there is none that can be read."""
        raw = self.get(inode_key(ino))
        try:
            return None if raw is None else InodeRecord.decode(raw)
        except CorruptRecord:
            return None

    def entries(self, parent: int) -> Iterator[tuple[bytes, EntryRecord]]:
        """The names in a directory that can be read."""
        prefix = entry_prefix(parent)
        for key, value in self.scan(prefix, after_prefix(prefix)):
            try:
                yield name_of(key), EntryRecord.decode(value)
            except CorruptRecord:
                continue

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The pairs from ``start`` to below ``stop``, ascending, without those that are lost."""
        records = self._records
        keys = self._keys
        if keys is None:
            keys = self._keys = sorted(records)
        first = bisect_left(keys, start)
        last = len(keys) if stop is None else bisect_left(keys, stop)
        root = self.ref.tree.root
        pairs = iter(()) if root is None else self._scan(root, self.ref.tree.depth, b"", None, start, stop)
        waiting = next(pairs, None)
        for key in keys[first:last]:
            while waiting is not None and waiting[0] < key:
                yield waiting
                waiting = next(pairs, None)
            if waiting is not None and waiting[0] == key:
                waiting = next(pairs, None)
            value = records[key]
            if value is not None:
                yield key, value
        if waiting is not None:
            yield waiting
            yield from pairs

    def _scan(
        self, ref: BlockRef, level: int, low: bytes, high: bytes | None, start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The records of a node that should hold keys from ``low`` to below ``high`` only."""
        try:
            node = self._cache.get(ref, level)
            if node.keys[0] < low or (high is not None and node.keys[-1] >= high):
                raise CorruptNode("an index node holds keys that belong elsewhere")
            children = [node.child(position) for position in range(len(node.keys))] if level else []
        except DAMAGE as error:
            self._lost.setdefault(ref.name, LostRecords(low, high, ref, str(error)))
            return
        self._note(ref)
        if level == 0:
            first = bisect_left(node.keys, start)
            last = len(node.keys) if stop is None else bisect_left(node.keys, stop)
            yield from zip(node.keys[first:last], node.values[first:last], strict=True)
            return
        for position, child in self._wanted(node, children, start, stop):
            above = node.keys[position + 1] if position + 1 < len(node.keys) else high
            yield from self._scan(child, level - 1, node.keys[position], above, start, stop)

    def _wanted(
        self, node: Node, children: list[BlockRef], start: bytes, stop: bytes | None
    ) -> Iterator[tuple[int, BlockRef]]:
        """The children that may hold keys of a range, fetched some ahead."""
        first = max(bisect_left(node.keys, start + b"\0") - 1, 0)
        last = len(node.keys) if stop is None else bisect_left(node.keys, stop)
        for position in range(first, last):
            if node.level == 1 and (position - first) % _AHEAD == 0 and last - position > 1:
                try:
                    self._cache.get_all(children[position : min(position + _AHEAD, last)], 0)
                except DAMAGE:
                    # One of them; which one shows when they are taken one by one.
                    pass
            yield position, children[position]

    def _note(self, ref: BlockRef) -> None:
        if ref.name not in self._seen:
            self._seen.add(ref.name)
            self.nodes += 1
        self.packs[ref.pack] = max(self.packs.get(ref.pack, 0), ref.offset + ref.stored)


class PathNames:
    """The paths of inodes in a view; remembers directories."""

    def __init__(self, view: SalvageView) -> None:
        self._view = view
        self._directories: dict[int, bytes] = {ROOT_INODE: b""}

    def of(self, inos: Iterable[int]) -> dict[int, list[str]]:
        """The paths of inodes, several where a file has several names, in one walk over all entries."""
        wanted = set(inos)
        found: dict[int, list[str]] = {ino: [] for ino in wanted}
        if ROOT_INODE in wanted:
            found[ROOT_INODE].append("/")
        if wanted - {ROOT_INODE}:
            for key, value in self._view.scan(ENTRY, after_prefix(ENTRY)):
                try:
                    ino = EntryRecord.decode(value).ino
                except CorruptRecord:
                    continue
                if ino in wanted and len(key) > 9:
                    found[ino].append(self.child(parent_of(key), name_of(key)))
        return found

    def child(self, parent: int, name: bytes) -> str:
        """The path of a name in a directory."""
        above = self._directory(parent)
        return path_text(above + b"/" + name if above else name)

    def _directory(self, ino: int) -> bytes:
        chain: list[tuple[int, bytes]] = []
        current, seen = ino, set()
        while current not in self._directories:
            seen.add(current)
            record = self._view.inode(current)
            parent = 0 if record is None else record.parent
            name = next((name for name, entry in self._view.entries(parent) if entry.ino == current), None)
            if name is None or parent in seen:
                # Nobody can say where it lies.
                self._directories[current] = b"<inode %d>" % current
                break
            chain.append((current, name))
            current = parent
        path = self._directories[current]
        for child, name in reversed(chain):
            path = path + b"/" + name if path else name
            self._directories[child] = path
        return path


def extents_in(view: SalvageView) -> Iterator[tuple[int, bytes, Extent]]:
    """Every extent of every file that can be read, with its inode and the key of its record."""
    for prefix in (EXTENTS, INODE):
        for key, value in view.scan(prefix, after_prefix(prefix)):
            if len(key) < 9:
                continue
            try:
                raw = InodeRecord.decode(value).extents if prefix == INODE else value
                found = unpack_extents(raw) if raw else []
            except DAMAGE:
                continue
            for extent in found:
                yield parent_of(key), key, extent


def path_text(path: bytes) -> str:
    """A path for people; bytes that are no UTF-8 as surrogates."""
    return path.decode("utf-8", "surrogateescape")
