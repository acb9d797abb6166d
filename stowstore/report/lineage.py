"""The lineage of versions as a layered graph: a lane a volume, a column a generation, time from left to right.

A version stands one column to the right of the newest version it was made from, and of the one before it in its own
lane, so that lines run to the right and never meet two versions in one place.  A volume that was forked and not
committed to yet is a hollow place in a lane of its own.  With more versions than `MAX_SHOWN`, runs of versions that
nothing but their neighbours refers to are drawn as one; where that is still too much, each volume is one place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from attrs import define, field, frozen

from stowstore.report.model import Parent, RootFacts, VersionFacts

__all__ = ["MAX_SHOWN", "Detail", "Edge", "EdgeKind", "Graph", "Lane", "Node", "NodeKind", "lay_out"]

#: With more versions than this the graph is drawn with parts left out.
MAX_SHOWN: Final = 200


class Detail(StrEnum):
    """How much of the versions is drawn."""

    VERSIONS = "versions"
    """Every one."""
    RUNS = "runs"
    """Those that something refers to; others in runs."""
    VOLUMES = "volumes"
    """One place a volume, for all its versions."""


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
    """The whole picture of ``total`` versions; ``hidden`` are volumes that are not drawn, the oldest."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    lanes: tuple[Lane, ...] = ()
    columns: int = 0
    detail: Detail = Detail.VERSIONS
    total: int = 0
    hidden: int = 0


def lay_out(facts: RootFacts, *, most: int = MAX_SHOWN) -> Graph:
    """Places the versions of a root and what became of them."""
    ordered = _in_order(facts.versions)
    detail, groups = Detail.VERSIONS, [_Group([version]) for version in ordered]
    if len(groups) > most:
        detail, groups = Detail.RUNS, _joined(groups)
    if len(groups) > most:
        detail, groups = Detail.VOLUMES, _by_volume(ordered)
    return _Layout(facts, groups[-most:], detail).graph(hidden=len(groups[:-most]))


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


def _by_volume(versions: Iterable[VersionFacts]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for version in versions:
        groups.setdefault(version.volume, _Group([])).versions.append(version)
    return list(groups.values())


@define
class _Layout:
    _facts: RootFacts
    _groups: Sequence[_Group]
    _detail: Detail
    _lanes: dict[str, int] = field(factory=dict)
    _ends: dict[int, int] = field(factory=dict)
    _nodes: dict[str, Node] = field(factory=dict)
    _edges: dict[tuple[str, str], Edge] = field(factory=dict)
    _known: set[str] = field(factory=set)

    def graph(self, *, hidden: int) -> Graph:
        shown = {group.last.volume for group in self._groups}
        self._known = {version.id for group in self._groups for version in group.versions}
        forks = [
            volume
            for volume in self._facts.volumes
            if volume.head is not None and volume.head.volume != volume.name and not volume.versions
        ]
        self._assign_lanes(shown | {volume.name for volume in forks})
        placed = [(group, self._place(group)) for group in self._groups]
        for group, node in placed:
            self._connect(group, node)
        for volume in forks:
            assert volume.head is not None
            start = self._nodes.get(volume.head.id)
            lane = self._lanes[volume.name]
            column = 0 if start is None else start.column + 1
            node = Node(key=f"fork {volume.name}", kind=NodeKind.FORK, lane=lane, column=column, text=volume.name)
            self._add(node)
            if start is not None:
                self._edges[start.key, node.key] = Edge(start, node, EdgeKind.FORK)
        return Graph(
            nodes=tuple({id(node): node for node in self._nodes.values()}.values()),
            edges=tuple(self._edges.values()),
            lanes=self._drawn_lanes(),
            columns=1 + max(self._ends.values(), default=-1),
            detail=self._detail,
            total=len(self._facts.versions),
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

    def _place(self, group: _Group) -> Node:
        first, last = group.versions[0], group.last
        lane = self._lanes[last.volume]
        starts = [start for parent in first.parents if (start := self._nodes.get(parent.id)) is not None]
        column = max([self._ends.get(lane, -1), *(start.column for start in starts)]) + 1
        if self._gone(first):
            # One place stands for every parent that is not drawn, right before its child.
            column = max(column, self._ends.get(lane, -1) + 2)
            text = ", ".join(f"{parent.volume}@{parent.id}" for parent in self._gone(first))
            self._add(Node(key=f"gone {first.id}", kind=NodeKind.GONE, lane=lane, column=column - 1, text=text))
        kind = NodeKind.RUN if len(group.versions) > 1 else NodeKind.MERGE if last.is_merge else NodeKind.VERSION
        labels = tuple(tag.partition("@")[2] if tag.startswith(f"{last.volume}@") else tag for tag in last.tags)
        versions = tuple(group.versions)
        made = Node(key=last.id, kind=kind, lane=lane, column=column, versions=versions, labels=labels)
        self._add(made)
        for version in group.versions:
            self._nodes[version.id] = made
        return made

    def _connect(self, group: _Group, node: Node) -> None:
        first = group.versions[0]
        for version in group.versions:
            for position, parent in enumerate(version.parents):
                start = self._nodes.get(parent.id)
                if start is None and version is first:
                    start = self._nodes.get(f"gone {first.id}")
                if start is not None and start is not node:
                    how = EdgeKind.NEXT if parent.volume == version.volume else EdgeKind.FORK
                    edge = Edge(start, node, EdgeKind.MERGE if position else how)
                    self._edges.setdefault((start.key, node.key), edge)

    def _gone(self, version: VersionFacts) -> list[Parent]:
        return [parent for parent in version.parents if parent.id not in self._known]

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
