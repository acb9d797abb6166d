"""Differences between two snapshots, in time that grows with what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stowstore.chunks.block import BlockRef
from stowstore.index.delta import read_deltas
from stowstore.index.snapshot import Snapshot
from stowstore.index.tree import Tree

__all__ = ["RecordChange", "diff_snapshots"]


class RecordChange(NamedTuple):
    """One key whose value differs; None where a side has none."""

    key: bytes
    old: bytes | None
    new: bytes | None


def diff_snapshots(old: Snapshot, new: Snapshot) -> Iterator[RecordChange]:
    """The keys whose values differ, ascending.

    Nodes and segments that both sides share are not looked into.
    """
    candidates: set[bytes] = set()
    if old.ref.deltas != new.ref.deltas:
        common = _common_prefix(old, new)
        for side in (old, new):
            candidates.update(read_deltas(side.ref.deltas[common:], side.cache.reader))
    if old.ref.tree != new.ref.tree:
        candidates.update(_changed_keys(old.tree, new.tree))
    for key in sorted(candidates):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield RecordChange(key, before, after)


def _common_prefix(old: Snapshot, new: Snapshot) -> int:
    """How many of the oldest segments both list: they say the same to both."""
    count = 0
    for left, right in zip(old.ref.deltas, new.ref.deltas, strict=False):
        if left != right:
            break
        count += 1
    return count


def _changed_keys(old: Tree, new: Tree) -> Iterator[bytes]:
    """The keys whose records differ between two trees; nodes of one name are skipped on both sides."""
    left, right = _Walk(old), _Walk(new)
    while left.waiting or right.waiting:
        if not left.waiting or not right.waiting:
            yield from (left if left.waiting else right).rest()
            return
        a, b = left.waiting[-1], right.waiting[-1]
        if a.ref is not None and b.ref is not None and a.ref.name == b.ref.name:
            left.waiting.pop()
            right.waiting.pop()
        elif a.ref is not None and (b.ref is None or a.level >= b.level):
            left.open()
            if b.ref is not None and b.level == a.level:
                right.open()
        elif b.ref is not None:
            right.open()
        elif a.key == b.key:
            if a.value != b.value:
                yield a.key
            left.waiting.pop()
            right.waiting.pop()
        elif a.key < b.key:
            yield a.key
            left.waiting.pop()
        else:
            yield b.key
            right.waiting.pop()


class _Step(NamedTuple):
    """A node still to be opened, or a record."""

    key: bytes
    level: int
    ref: BlockRef | None
    value: bytes | None


class _Walk:
    """A walk over a tree that can leave out whole nodes; the next step is the last of ``waiting``."""

    def __init__(self, tree: Tree) -> None:
        self._cache = tree.cache
        self.waiting: list[_Step] = []
        if tree.ref.root is not None:
            self.waiting.append(_Step(b"", tree.ref.depth, tree.ref.root, None))

    def open(self) -> None:
        """Replaces the next node by what it holds."""
        step = self.waiting.pop()
        assert step.ref is not None
        node = self._cache.get(step.ref, step.level)
        for position in range(len(node.keys) - 1, -1, -1):
            if step.level:
                self.waiting.append(_Step(node.keys[position], step.level - 1, node.child(position), None))
            else:
                self.waiting.append(_Step(node.keys[position], 0, None, node.values[position]))

    def rest(self) -> Iterator[bytes]:
        """The keys of everything left."""
        while self.waiting:
            if self.waiting[-1].ref is not None:
                self.open()
            else:
                yield self.waiting.pop().key
