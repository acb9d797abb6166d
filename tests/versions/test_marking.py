"""Marking: whatever order versions come in and whatever they share, exactly what they need is live."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from stowstore.chunks.block import BlockRef, Codec, PackKind
from stowstore.index.keys import inode_key
from stowstore.index.node import NodeCache
from stowstore.index.records import Extent, InodeRecord, pack_extents
from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes, merge_deltas
from stowstore.index.tree import build_tree
from stowstore.versions.marking import LiveBlock, Marker, Marks, mark_snapshot
from tests.index.nodes import MemoryNodes


class PackedNodes(MemoryNodes):
    """Nodes in memory that know in which pack they lie: one a commit."""

    def __init__(self) -> None:
        super().__init__()
        self.commit = 0

    def add(self, data: bytes) -> BlockRef:
        offset = self.written
        return super().add(data)._replace(pack=self.commit.to_bytes(16, "big"), offset=offset)


def file(number: int) -> bytes:
    """The record of a file with one block, different for each number."""
    block = BlockRef(b"data" * 4, number, 10, 10, Codec.RAW, number.to_bytes(32, "big"))
    return InodeRecord(0o100644, 0, 0, 1, 10, 0, 0, 0, 0, extents=pack_extents([Extent(0, 10, 0, block)])).encode()


def needed(ref: SnapshotRef, nodes: PackedNodes) -> set[LiveBlock]:
    """What a snapshot needs, told the slow way: all that a reader of everything asks for."""
    snapshot = Snapshot(ref, nodes.cache())
    found = {(PackKind.INDEX, block.pack, block.offset) for delta in ref.deltas for block in delta.blocks}
    waiting = [] if ref.tree.root is None else [(ref.tree.root, ref.tree.depth)]
    while waiting:
        block, level = waiting.pop()
        found.add((PackKind.INDEX, block.pack, block.offset))
        node = NodeCache(nodes).get(block, level)
        if level:
            waiting += [(node.child(position), level - 1) for position in range(len(node.keys))]
    for _, value in snapshot.scan():
        block = BlockRef.unpack(InodeRecord.decode(value).extents[-61:])
        found.add((PackKind.DATA, block.pack, block.offset))
    return found


def blocks(marks: Marks) -> set[LiveBlock]:
    return set(marks.beyond(Marks()))


Step = tuple[int, Sequence[int], bool, bool]


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 30), st.lists(st.integers(0, 900), min_size=1, max_size=6), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_marks_are_exactly_what_versions_need(steps: list[Step], seed: int, data: st.DataObject) -> None:
    """Histories that branch, with segments and trees that share nodes: any choice of versions, in any order."""
    nodes = PackedNodes()
    first = SnapshotRef(tree=build_tree([(inode_key(number), file(number)) for number in range(900)], nodes))
    versions = [first]
    fresh = 1000
    for parent, keys, deletes, merge in steps:
        nodes.commit += 1
        snapshot = Snapshot(versions[parent % len(versions)], nodes.cache())
        changes: dict[bytes, bytes | None] = {}
        for key in keys:
            fresh += 1
            changes[inode_key(key)] = None if deletes else file(fresh)
        ref = commit_changes(snapshot, changes, nodes)
        versions.append(merge_deltas(Snapshot(ref, nodes.cache()), nodes) if merge else ref)
    chosen = data.draw(st.lists(st.sampled_from(versions), min_size=1, max_size=6))
    random.Random(seed).shuffle(chosen)

    marker = Marker(nodes)
    expected: set[LiveBlock] = set()
    joined = Marks()
    for version in chosen:
        alone = mark_snapshot(version, nodes)
        assert needed(version, nodes) == blocks(alone)
        joined.add(alone)
        marker.mark(version)
        expected |= needed(version, nodes)
        assert expected == blocks(marker.marks) == blocks(joined)
