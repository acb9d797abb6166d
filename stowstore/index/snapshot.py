"""Snapshots: one immutable state of an index, the tree with its delta segments over it.

A commit writes one segment, so it costs what changed; segments are joined as they gather, and few are ever listed.
A lookup fetches those together whose filters say that they may hold its key, a scan all of them.  Merging them into
the tree is for a quiet moment.
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast

from attrs import evolve, field, frozen

from stowstore.chunks.block import BlockRef
from stowstore.chunks.patience import WouldWait
from stowstore.index.delta import DeltaRef, read_deltas, read_each, write_delta
from stowstore.index.filter import filter_bytes, may_hold
from stowstore.index.node import CorruptNode, NodeCache, NodeWriter
from stowstore.index.tree import EMPTY_TREE, Tree, TreeRef, apply_changes

__all__ = ["MAX_DELTAS", "MERGE_RECORDS", "Snapshot", "SnapshotRef", "commit_changes", "merge_deltas"]

#: How many segments a snapshot lists at most: a scan fetches each, a lookup those that may hold its key.
MAX_DELTAS: Final = 4

#: How many unmerged records call for a merge into the tree.
MERGE_RECORDS: Final = 65536

#: How many pairs `Snapshot.leaves` gives at once where they lie in no leaf.
_BATCH: Final = 512

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
            "deltas": [_delta_data(delta) for delta in self.deltas],
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
                deltas=[_delta(delta) for delta in deltas],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CorruptNode("the description of a snapshot is damaged") from error


class Snapshot:
    """Reads one snapshot; immutable and thread-safe.  Nothing is fetched before it is used."""

    __slots__ = ("_keys", "_lock", "_records", "_segments", "cache", "ref", "tree")

    def __init__(self, ref: SnapshotRef, cache: NodeCache) -> None:
        self.ref = ref
        self.cache = cache
        self.tree = Tree(ref.tree, cache)
        self._lock = threading.Lock()
        #: The records of all segments, once they have all been fetched; until then those of each that has been.
        self._records: dict[bytes, bytes | None] | None = None if ref.deltas else {}
        self._segments: dict[DeltaRef, dict[bytes, bytes | None]] = {}
        self._keys: list[bytes] | None = None

    @property
    def unmerged(self) -> Mapping[bytes, bytes | None]:
        """The records of the segments, None for deleted ones."""
        records = self._records
        if records is None:
            with self._lock:
                self._fetch(self.ref.deltas)
                records = self._records
        assert records is not None
        return records

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        records = self._records
        if records is None:
            asked = self._asked(key)
            with self._lock:
                self._fetch(asked)
                records = self._newest(asked, key)
        try:
            return records[key]
        except KeyError:
            return self.tree.get(key)

    def get_near(self, key: bytes) -> bytes | None:
        """The same, out of memory.

        Raises:
            WouldWait: it has to be fetched.
        """
        records = self._records
        if records is None:
            asked = self._asked(key)
            if not self._lock.acquire(blocking=False):
                raise WouldWait
            try:
                if self._records is None and not self._segments.keys() >= set(asked):
                    raise WouldWait
                records = self._newest(asked, key)
            finally:
                self._lock.release()
        try:
            return records[key]
        except KeyError:
            return self.tree.get(key, near=True)

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The pairs from ``start`` to below ``stop``, ascending, fetched as it goes."""
        for keys, values in self.leaves(start, stop):
            yield from zip(keys, values, strict=True)

    def leaves(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """The same some hundred at a time: keys and their values."""
        records = self.unmerged
        changed = self._sorted_keys()
        first = bisect_left(changed, start)
        last = len(changed) if stop is None else bisect_left(changed, stop)
        for keys, values in self.tree.leaves(start, stop):
            if first == last:
                yield keys, values
                continue
            end = bisect_right(changed, keys[-1], first, last)
            if first == end:
                yield keys, values
                continue
            pairs: dict[bytes, bytes | None] = dict(zip(keys, values, strict=True))
            pairs.update((key, records[key]) for key in changed[first:end])
            yield from _batches(sorted(pairs), pairs)
            first = end
        yield from _batches(changed[first:last], records)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those of the keys, ascending, that there are, fetched together; many times as fast as `get`."""
        records = self.unmerged
        if not records:
            return self.tree.find(keys)
        changed = records.get
        found = {key: value for key in keys if (value := changed(key)) is not None}
        if len(found) < len(keys):
            found.update(self.tree.find([key for key in keys if key not in records]))
        return found

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

    def _asked(self, key: bytes) -> list[DeltaRef]:
        """The segments that may hold a key, oldest first."""
        name = self.cache.reader.name(key)
        return [delta for delta in self.ref.deltas if delta.filter is None or may_hold(delta.filter, name)]

    def _newest(self, asked: Sequence[DeltaRef], key: bytes) -> dict[bytes, bytes | None]:
        """The records of the newest of some fetched segments that holds a key; others where none does."""
        if self._records is not None:
            return self._records
        found = (self._segments[delta] for delta in reversed(asked))
        return next((records for records in found if key in records), {})

    def _fetch(self, wanted: Iterable[DeltaRef]) -> None:
        """Fetches segments together, those that have not been; joins their records once none is left.

        Like `_newest` under the lock.
        """
        if self._records is not None:
            return
        segments = self._segments
        missing = [delta for delta in wanted if delta not in segments]
        segments.update(zip(missing, read_each(missing, self.cache.reader), strict=True))
        if all(delta in segments for delta in self.ref.deltas):
            records: dict[bytes, bytes | None] = {}
            for delta in self.ref.deltas:
                records.update(segments[delta])
            segments.clear()
            self._records = records

    def _sorted_keys(self) -> list[bytes]:
        keys = self._keys
        if keys is None:
            keys = self._keys = sorted(self.unmerged)
        return keys


def _batches(keys: list[bytes], records: Mapping[bytes, bytes | None]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Pairs of ascending keys, without those deleted."""
    for start in range(0, len(keys), _BATCH):
        part = keys[start : start + _BATCH]
        values = list(map(records.__getitem__, part))
        if None in values:
            part = [key for key in part if records[key] is not None]
            values = list(map(records.__getitem__, part))
        if part:
            yield part, cast(list[bytes], values)


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


def _delta_data(delta: DeltaRef) -> dict[str, Any]:
    data: dict[str, Any] = {"records": delta.records, "blocks": [block.pack_bytes().hex() for block in delta.blocks]}
    if delta.filter is not None:
        data["filter"] = b64encode(delta.filter).decode("ascii")
    return data


def _delta(data: Mapping[str, Any]) -> DeltaRef:
    records, text = int(data["records"]), data.get("filter")
    bits = None if text is None else b64decode(text, validate=True)
    # A filter of another length may deny a key that is there.
    if bits is not None and (not bits or len(bits) != filter_bytes(records)):
        raise ValueError("the filter of a segment has another length")
    return DeltaRef(tuple(map(_block, data["blocks"])), records, bits)


def _block(text: str) -> BlockRef:
    return BlockRef.unpack(bytes.fromhex(text))
