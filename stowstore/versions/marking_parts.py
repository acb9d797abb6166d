"""Marking in parts that can run anywhere: subtrees of the index, each with all versions that share it.

The top levels of the trees are read here, as far down as it takes to have enough parts.  A subtree that many versions
share is one part, with the segments that each of them has above it, so that it is walked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from datastore import context
from stowstore.chunks.block import BlockRef, PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.index.delta import DeltaRef
from stowstore.index.node import NodeReader, decode_node
from stowstore.index.snapshot import SnapshotRef
from stowstore.runners import Runner
from stowstore.versions.marking import Marker, Marks

__all__ = ["mark_in_parts"]

#: Parts for each slot of the runner: they differ in size, and a slot that is done early takes another.
_PARTS_A_SLOT: Final = 8

#: How many nodes are fetched together.
_BATCH: Final = 64

#: How many units one part holds at most.
_MOST_UNITS: Final = 64

#: Told what is being done, how much of it is done, and of how much.
_Progress = Callable[[str, int, int], None]


class _Unit(NamedTuple):
    """A subtree, with the segments above it in each version that has it; without a node, all segments of versions."""

    node: BlockRef | None
    level: int
    segments: tuple[tuple[DeltaRef, ...], ...]


def mark_in_parts(
    snapshots: Iterable[SnapshotRef], chunks: ChunkStore, runner: Runner[ChunkStore], on_progress: _Progress
) -> Marks:
    """What snapshots need, marked by a runner.

    Raises:
        CorruptNode, CorruptRecord, CorruptBlock: something of the index cannot be read.
        StoreError: the store, or the runner, failed.
    """
    marks = Marks()
    slots = runner.slots
    units = _divide(list(snapshots), chunks.index_reader, _PARTS_A_SLOT * slots, marks)
    size = max(1, min(_MOST_UNITS, len(units) // (_PARTS_A_SLOT * slots)))
    parts = [units[start : start + size] for start in range(0, len(units), size)]
    on_progress("marking parts of the index", 0, len(parts))
    for done, found in enumerate(runner.map(_mark_part, parts), 1):
        context.check()
        marks.add(found)
        on_progress("marking parts of the index", done, len(parts))
    return marks


def _mark_part(chunks: ChunkStore, units: Sequence[_Unit]) -> Marks:
    """What a worker does: marks what some units need."""
    marker = Marker(chunks.index_reader)
    # Versions with little above the tree first: they show what others hide.
    for unit in units:
        for segments in sorted(unit.segments, key=lambda deltas: sum(delta.records for delta in deltas)):
            if unit.node is None:
                marker.mark_segments(segments)
            else:
                marker.mark_subtree(unit.node, unit.level, segments)
    marker.marks.compact()
    return marker.marks


def _divide(snapshots: Sequence[SnapshotRef], reader: NodeReader, wanted: int, marks: Marks) -> list[_Unit]:
    """The units of some snapshots; nodes that are read here, and the roots of units, are marked here."""
    nodes: dict[tuple[BlockRef, int], dict[tuple[DeltaRef, ...], None]] = {}
    for snapshot in snapshots:
        if snapshot.tree.root is not None:
            marks.mark(PackKind.INDEX, snapshot.tree.root)
            nodes.setdefault((snapshot.tree.root, snapshot.tree.depth), {})[snapshot.deltas] = None
    # What lies over leaves alone is little enough for one unit.
    while len(nodes) < wanted and (level := max((level for _, level in nodes), default=0)) > 1:
        context.check()
        part = list(islice((node for node in nodes if node[1] == level), _BATCH))
        for node, raw in zip(part, reader.read([ref for ref, _ in part]), strict=True):
            above = nodes.pop(node)
            found = decode_node(raw, level)
            for position in range(len(found.keys)):
                child = found.child(position)
                marks.mark(PackKind.INDEX, child)
                nodes.setdefault((child, level - 1), {}).update(above)
    units = [_Unit(ref, level, tuple(above)) for (ref, level), above in nodes.items()]
    segments = dict.fromkeys(snapshot.deltas for snapshot in snapshots if snapshot.deltas)
    return units + [_Unit(None, 0, (deltas,)) for deltas in segments]
