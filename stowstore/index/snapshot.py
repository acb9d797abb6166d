"""Snapshots: one immutable state of an index, the tree with its delta segments over it.

A commit writes one segment, so it costs what changed; segments are joined as they gather, few are ever listed, and
opening a snapshot fetches them together.  Merging them into the tree is for a quiet moment.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from attrs import evolve, field, frozen

from stowstore.chunks.block import BlockRef
from stowstore.chunks.patience import WouldWait
from stowstore.index.delta import DeltaRef, read_deltas, write_delta
from stowstore.index.node import CorruptNode, NodeCache, NodeWriter
from stowstore.index.tree import EMPTY_TREE, Tree, TreeRef, apply_changes

__all__ = ["MAX_DELTAS", "MERGE_RECORDS", "Snapshot", "SnapshotRef", "commit_changes", "merge_deltas"]

#: How many segments a snapshot lists at most: each is a fetch when it is opened.
MAX_DELTAS: Final = 4

#: How many unmerged records call for a merge into the tree.
MERGE_RECORDS: Final = 65536

_MAX_LISTED = 64
_MAX_DEPTH = 12


def _delta_refs(deltas: Iterable[DeltaRef]) -> tuple[DeltaRef, ...]:
    return tuple(deltas)


@frozen(kw_only=True)
class SnapshotRef:
    """What names a snapshot: its tree, and its delta segments, oldest first."""

    tree: TreeRef = EMPTY_TREE
    deltas: tuple[DeltaRef, ...] = field(default=(), converter=_delta_refs)

    @property
    def unmerged_records(self) -> int:
        """How many records lie in segments."""
        return sum(delta.records for delta in self.deltas)

    @property
    def needs_merge(self) -> bool:
        return self.unmerged_records > MERGE_RECORDS

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON; references in hexadecimal."""
        return {
            "root": None if self.tree.root is None else self.tree.root.pack_bytes().hex(),
            "depth": self.tree.depth,
            "deltas": [
                {"records": delta.records, "blocks": [block.pack_bytes().hex() for block in delta.blocks]}
                for delta in self.deltas
            ],
        }

    @classmethod
    def from_data(cls, data: object) -> SnapshotRef:
        """Reads `to_data`.

        Raises:
            CorruptNode: it is something else.
        """
        try:
            if not isinstance(data, dict):
                raise TypeError("it is no object")
            root, depth, deltas = data["root"], data["depth"], data["deltas"]
            if type(depth) is not int or not 0 <= depth <= _MAX_DEPTH or len(deltas) > _MAX_LISTED:
                raise ValueError("it has too many levels or segments")
            tree = TreeRef(None if root is None else _block(root), depth)
            return cls(
                tree=tree,
                deltas=[DeltaRef(tuple(map(_block, delta["blocks"])), int(delta["records"])) for delta in deltas],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CorruptNode("the description of a snapshot is damaged") from error


class Snapshot:
    """Reads one snapshot; immutable and thread-safe.  Nothing is fetched before it is used."""

    __slots__ = ("_keys", "_lock", "_records", "cache", "ref", "tree")

    def __init__(self, ref: SnapshotRef, cache: NodeCache) -> None:
        self.ref = ref
        self.cache = cache
        self.tree = Tree(ref.tree, cache)
        self._lock = threading.Lock()
        self._records: dict[bytes, bytes | None] | None = None if ref.deltas else {}
        self._keys: list[bytes] | None = None

    @property
    def unmerged(self) -> Mapping[bytes, bytes | None]:
        """The records of the segments, None for deleted ones."""
        records = self._records
        if records is None:
            with self._lock:
                if self._records is None:
                    self._records = read_deltas(self.ref.deltas, self.cache.reader)
                records = self._records
        return records

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        records = self._records
        if records is None:
            records = self.unmerged  # type: ignore[assignment]
        try:
            return records[key]  # type: ignore[index]
        except KeyError:
            return self.tree.get(key)

    def get_near(self, key: bytes) -> bytes | None:
        """The same, out of memory.

        Raises:
            WouldWait: it has to be fetched.
        """
        records = self._records
        if records is None:
            raise WouldWait
        try:
            return records[key]
        except KeyError:
            return self.tree.get(key, near=True)

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The pairs from ``start`` to below ``stop``, ascending, fetched as it goes."""
        records = self.unmerged
        keys = self._sorted_keys()
        first = bisect_left(keys, start)
        last = len(keys) if stop is None else bisect_left(keys, stop)
        pairs = self.tree.scan(start, stop)
        if first == last:
            yield from pairs
            return
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

    def having(
        self, values: AbstractSet[bytes], start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of a range whose value is one of ``values``, in no order; many times as fast as `scan`."""
        records = self.unmerged
        keys = self._sorted_keys()
        last = len(keys) if stop is None else bisect_left(keys, stop)
        for key in keys[bisect_left(keys, start) : last]:
            value = records[key]
            if value is not None and value in values:
                yield key, value
        for found, held in self.tree.leaves(start, stop, ahead=1):
            if not values.isdisjoint(held):
                for key, value in zip(found, held, strict=True):
                    if value in values and key not in records:
                        yield key, value

    def with_changes(self, ref: SnapshotRef, changes: Mapping[bytes, bytes | None]) -> Snapshot:
        """The snapshot that a commit of ``changes`` on this one has made, without fetching back what is known."""
        made = Snapshot(ref, self.cache)
        made._records = {**self.unmerged, **changes}
        return made

    def _sorted_keys(self) -> list[bytes]:
        keys = self._keys
        if keys is None:
            keys = self._keys = sorted(self.unmerged)
        return keys


def commit_changes(snapshot: Snapshot, changes: Mapping[bytes, bytes | None], writer: NodeWriter) -> SnapshotRef:
    """The snapshot with changes, None deleting a key: one segment is written.

    When more than `MAX_DELTAS` would be listed, the newest are joined, as few as leaves each segment larger than all
    behind it; so every record is written again a number of times that grows with the logarithm of the commits only.
    """
    if not changes:
        return snapshot.ref
    kept = list(snapshot.ref.deltas)
    if len(kept) < MAX_DELTAS:
        return evolve(snapshot.ref, deltas=(*kept, write_delta(changes, writer)))
    joined = len(changes)
    first = len(kept)
    while first and (first >= MAX_DELTAS - 1 or kept[first - 1].records <= joined):
        first -= 1
        joined += kept[first].records
    older = read_deltas(kept[first:], snapshot.cache.reader)
    return evolve(snapshot.ref, deltas=(*kept[:first], write_delta({**older, **changes}, writer)))


def merge_deltas(snapshot: Snapshot, writer: NodeWriter) -> SnapshotRef:
    """The same content with every segment merged into the tree."""
    tree = apply_changes(snapshot.tree, sorted(snapshot.unmerged.items()), writer)
    return SnapshotRef(tree=tree)


def _block(text: str) -> BlockRef:
    return BlockRef.unpack(bytes.fromhex(text))
