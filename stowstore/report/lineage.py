"""The lineage of versions as a layered graph: a lane a volume, a column a generation, time from left to right.

A version stands one column to the right of the newest version it was made from, and of the one before it in its own
lane, so that lines always run to the right and never meet two versions in one place.  A volume that was forked and not
committed to yet is a hollow place in a lane of its own.  With more versions than `MAX_SHOWN`, runs of versions that
nothing but their neighbours refers to are drawn as one; if that is still too much, only the newest are drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from attrs import define, evolve, field, frozen

from stowstore.report.model import RootFacts, VersionFacts

__all__ = ["MAX_SHOWN", "Edge", "EdgeKind", "Graph", "Lane", "Node", "NodeKind", "lay_out"]

#: With more versions than this the graph is drawn with parts left out.
MAX_SHOWN: Final = 200


class NodeKind(StrEnum):
    """What a place of the graph is."""

    VERSION = "version"
    MERGE = "merge"
    RUN = "run"
    """Several versions in a row."""
    FORK = "fork"
    """A volume without a version of its own."""
    GONE = "gone"
    """A parent that was pruned, or is not drawn."""


class EdgeKind(StrEnum):
    """What a line says: the next version of a volume, a fork of it, or what a merge took in."""

    NEXT = "next"
    FORK = "fork"
    MERGE = "merge"


@frozen(kw_only=True)
class Node:
    """A place in the graph; ``versions`` are those it stands for, oldest first, none for a fork or one that is gone."""

    key: str
    kind: NodeKind
    lane: int
    column: int
    versions: tuple[VersionFacts, ...] = ()
    text: str = ""
    labels: tuple[str, ...] = ()


@frozen
class Edge:
    """A line from an older place to a newer one."""

    start: Node
    end: Node
    kind: EdgeKind


@frozen
class Lane:
    """The row of a volume."""

    number: int
    volume: str
    first: int
    last: int
    is_deleted: bool = False


@frozen(kw_only=True)
class Graph:
    """The whole picture; ``total`` versions are meant, ``joined`` of them drawn in runs and ``hidden`` not at all."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    lanes: tuple[Lane, ...] = ()
    columns: int = 0
    total: int = 0
    joined: int = 0
    hidden: int = 0


def lay_out(facts: RootFacts, *, most: int = MAX_SHOWN) -> Graph:
    """Places the versions of a root and what became of them."""
    groups = [_Group([version]) for version in _in_order(facts.versions)]
    if len(groups) > most:
        groups = _joined(groups)
    hidden = sum(len(group.versions) for group in groups[:-most])
    return _Layout(facts, groups[-most:]).graph(hidden)


@define(eq=False)
class _Group:
    """Versions that are drawn as one place."""

    versions: list[VersionFacts]

    @property
    def last(self) -> VersionFacts:
        return self.versions[-1]


def _in_order(versions: Iterable[VersionFacts]) -> list[VersionFacts]:
    """Parents before their children, otherwise the oldest first; a circle, which only damage makes, is cut open."""
    by_id = {version.id: version for version in versions}
    done: dict[str, VersionFacts] = {}
    for identity in sorted(by_id):
        # Ids ascend with time, so this is one step each, unless clocks differed.
        waiting = [identity]
        entered: set[str] = set()
        while waiting:
            current = waiting[-1]
            ahead = [parent.id for parent in by_id[current].parents if parent.id in by_id]
            missing = [parent for parent in ahead if parent not in done and parent not in entered]
            entered.add(current)
            if missing and current not in done:
                waiting += missing
                continue
            waiting.pop()
            done.setdefault(current, by_id[current])
    return list(done.values())


def _joined(groups: Sequence[_Group]) -> list[_Group]:
    """Runs of versions that nothing points at from elsewhere, as one group each."""
    children: defaultdict[str, int] = defaultdict(int)
    for group in groups:
        for parent in group.last.parents:
            children[parent.id] += 1
    made: list[_Group] = []
    ending: dict[str, _Group] = {}
    for group in groups:
        version = group.last
        before = ending.get(version.parents[0].id) if len(version.parents) == 1 else None
        is_plain = children[version.id] <= 1 and not (version.tags or version.head_of)
        if before is not None and is_plain and before.last.volume == version.volume and _is_inner(before, children):
            before.versions.append(version)
            ending[version.id] = before
        else:
            made.append(group)
            ending[version.id] = group
    return made


def _is_inner(group: _Group, children: Mapping[str, int]) -> bool:
    first = group.versions[0]
    is_root = not first.parents or first.parents[0].volume != first.volume
    return not (is_root or len(first.parents) > 1 or first.tags or first.head_of or children[first.id] > 1)


@define
class _Layout:
    _facts: RootFacts
    _groups: Sequence[_Group]
    _lanes: dict[str, int] = field(factory=dict)
    _ends: dict[int, int] = field(factory=dict)
    _nodes: dict[str, Node] = field(factory=dict)
    _edges: list[Edge] = field(factory=list)

    def graph(self, hidden: int) -> Graph:
        shown = {group.last.volume for group in self._groups}
        forks = [
            volume
            for volume in self._facts.volumes
            if volume.head is not None and volume.head.volume != volume.name and not volume.versions
        ]
        self._assign_lanes(shown | {volume.name for volume in forks})
        for group in self._groups:
            self._place(group)
        for volume in forks:
            assert volume.head is not None
            start = self._nodes.get(volume.head.id)
            lane = self._lanes[volume.name]
            column = 0 if start is None else start.column + 1
            node = Node(key=f"fork {volume.name}", kind=NodeKind.FORK, lane=lane, column=column, text=volume.name)
            self._add(node)
            if start is not None:
                self._edges.append(Edge(start, node, EdgeKind.FORK))
        return Graph(
            nodes=tuple({id(node): node for node in self._nodes.values()}.values()),
            edges=tuple(self._edges),
            lanes=self._drawn_lanes(),
            columns=1 + max(self._ends.values(), default=-1),
            total=len(self._facts.versions),
            joined=sum(len(group.versions) for group in self._groups if len(group.versions) > 1),
            hidden=hidden,
        )

    def _assign_lanes(self, shown: set[str]) -> None:
        """A fork lies below the volume it came from, the oldest next to it."""
        below: defaultdict[str | None, list[str]] = defaultdict(list)
        for volume in self._facts.volumes:
            below[volume.origin].append(volume.name)
        began: dict[str, str] = {}
        for version in self._facts.versions:
            began.setdefault(version.volume, version.id)
        known = {volume.name for volume in self._facts.volumes}
        tops = [volume.name for volume in self._facts.volumes if volume.origin not in known]
        # Volumes whose origins are each other, which nothing but damage makes, come last.
        waiting = sorted(known - set(tops), reverse=True) + sorted(tops, key=lambda one: began.get(one, "~"))[::-1]
        order: dict[str, None] = {}
        while waiting:
            name = waiting.pop()
            if name not in order:
                order[name] = None
                waiting += sorted(below[name], key=lambda one: began.get(one, "~"), reverse=True)
        self._lanes = {name: number for number, name in enumerate(name for name in order if name in shown)}

    def _place(self, group: _Group) -> None:
        first, last = group.versions[0], group.last
        lane = self._lanes[last.volume]
        starts = [(parent, self._nodes.get(parent.id)) for parent in first.parents]
        column = max([self._ends.get(lane, -1), *(start.column for _, start in starts if start is not None)]) + 1
        gone = [parent for parent, start in starts if start is None]
        if gone:
            # One place stands for every parent that cannot be drawn, right before its child.
            column = max(column, self._ends.get(lane, -1) + 2)
            node = Node(key=f"gone {first.id}", kind=NodeKind.GONE, lane=lane, column=column - 1)
            node = evolve(node, text=", ".join(f"{parent.volume}@{parent.id}" for parent in gone))
            self._add(node)
            starts = [(parent, start or node) for parent, start in starts]
        kind = NodeKind.RUN if len(group.versions) > 1 else NodeKind.MERGE if last.is_merge else NodeKind.VERSION
        labels = tuple(tag.partition("@")[2] if tag.startswith(f"{last.volume}@") else tag for tag in last.tags)
        made = Node(key=last.id, kind=kind, lane=lane, column=column, versions=tuple(group.versions), labels=labels)
        self._add(made)
        for version in group.versions:
            self._nodes[version.id] = made
        for position, (parent, start) in enumerate(starts):
            if start is not None:
                how = EdgeKind.NEXT if parent.volume == last.volume else EdgeKind.FORK
                self._edges.append(Edge(start, made, EdgeKind.MERGE if position else how))

    def _add(self, node: Node) -> None:
        self._nodes[node.key] = node
        self._ends[node.lane] = max(self._ends.get(node.lane, -1), node.column)

    def _drawn_lanes(self) -> tuple[Lane, ...]:
        firsts: dict[int, int] = {}
        for node in self._nodes.values():
            firsts[node.lane] = min(firsts.get(node.lane, node.column), node.column)
        deleted = {volume.name for volume in self._facts.volumes if volume.is_deleted}
        return tuple(
            Lane(number, name, firsts.get(number, 0), self._ends.get(number, 0), name in deleted)
            for name, number in self._lanes.items()
        )
