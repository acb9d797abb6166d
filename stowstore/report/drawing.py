"""The lineage as a drawing: pixels, curves and words for what `stowstore.report.lineage` has placed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import field, frozen

from stowstore.report.lineage import Edge, Graph, Lane, Node, NodeKind
from stowstore.report.words import count_text, moment_text, shortened, size_text, visible

__all__ = ["Curve", "LaneLine", "LineagePicture", "Place", "lineage_picture"]

#: Pixels of a row with words above and below its places, and of one of many, with words beside them.
_LANE: Final = 50.0
_NARROW: Final = 30.0
_MANY_LANES: Final = 24
_MARGIN: Final = 18.0
_PER_LETTER: Final = 7.3
_LONGEST_NAME: Final = 28


@frozen
class Curve:
    """A line between two places of the lineage."""

    path: str
    css: str


@frozen
class Place:
    """A version, or what stands for one, where it is drawn: words above it, and below or beside it."""

    node: Node
    x: float
    y: float
    above: str
    caption: str
    is_beside: bool
    title: str


@frozen
class LaneLine:
    """A volume's row, and its name as it fits."""

    lane: Lane
    y: float
    text: str


@frozen(kw_only=True)
class LineagePicture:
    """The lineage, to be drawn as it is."""

    width: float
    height: float
    lane_height: float
    name_width: float
    lanes: tuple[LaneLine, ...] = ()
    curves: tuple[Curve, ...] = ()
    places: tuple[Place, ...] = ()
    graph: Graph = field(factory=Graph)


def lineage_picture(graph: Graph) -> LineagePicture:
    """Gives every place of a graph its pixels."""
    longest = max((len(_lane_text(lane)) for lane in graph.lanes), default=0)
    name_width = round(24 + longest * _PER_LETTER)
    height = _LANE if len(graph.lanes) <= _MANY_LANES else _NARROW
    # Few generations have room to say more at each place.
    column = 110.0 if graph.columns <= 12 else 64.0 if graph.columns <= 40 else 34.0
    letters = int(column / 7)

    def x(position: int) -> float:
        return name_width + column * (position + 0.5)

    def y(lane: int) -> float:
        return _MARGIN + height * (lane + 0.5)

    def place(node: Node) -> Place:
        is_narrow = height == _NARROW
        return Place(
            node,
            x(node.column),
            y(node.lane),
            "" if is_narrow else shortened(", ".join(map(visible, node.labels)), max(letters, 5)),
            shortened(_caption(node), letters - 2 * is_narrow) if letters >= 8 else "",
            is_narrow,
            _title(node),
        )

    return LineagePicture(
        # Words beside the last places need room.
        width=round(x(graph.columns) - column / 2 + _MARGIN + (column / 2 if height == _NARROW else 0)),
        height=round(2 * _MARGIN + height * len(graph.lanes)),
        lane_height=height,
        name_width=name_width,
        lanes=tuple(LaneLine(lane, y(lane.number), _lane_text(lane)) for lane in graph.lanes),
        curves=tuple(Curve(_curve(edge, x, y), edge.kind.value) for edge in graph.edges),
        places=tuple(map(place, graph.nodes)),
        graph=graph,
    )


def _lane_text(lane: Lane) -> str:
    return shortened(visible(lane.volume), _LONGEST_NAME)


def _caption(node: Node) -> str:
    match node.kind:
        case NodeKind.RUN:
            return count_text(len(node.versions), "version")
        case NodeKind.FORK:
            return "not written yet"
        case NodeKind.GONE:
            return ""
    return visible(node.versions[-1].message.partition("\n")[0])


def _title(node: Node) -> str:
    """What pointing at a place says."""
    if node.kind is NodeKind.FORK:
        return f"{visible(node.text)}: a fork that was not committed to yet"
    if node.kind is NodeKind.GONE:
        return f"made from {visible(node.text)}, which is pruned or not drawn"
    version = node.versions[-1]
    lines = [
        f"{visible(version.volume)}@{version.id}",
        f"{moment_text(version.created)} UTC, {size_text(version.used_bytes)} in {count_text(version.inodes, 'inode')}",
    ]
    if len(node.versions) > 1:
        lines.insert(0, f"{len(node.versions)} versions, the newest of them:")
    if version.message:
        lines.append(shortened(visible(version.message), 200))
    if version.produced_by:
        lines.append(f"made by {shortened(visible(version.produced_by), 200)}")
    if version.is_merge:
        lines.append("merged from " + ", ".join(f"{visible(one.volume)}@{one.id}" for one in version.parents))
    if version.tags:
        lines.append("tagged " + ", ".join(map(visible, version.tags)))
    if version.head_of:
        lines.append("newest of " + ", ".join(map(visible, version.head_of)))
    return "\n".join(lines)


def _curve(edge: Edge, x: Callable[[int], float], y: Callable[[int], float]) -> str:
    """A line along a lane, or a bow from one to another: never along places it does not belong to."""
    x1, y1, x2, y2 = x(edge.start.column), y(edge.start.lane), x(edge.end.column), y(edge.end.lane)
    if y1 == y2:
        return f"M{x1:.0f},{y1:.0f} H{x2:.0f}"
    middle = (x1 + x2) / 2
    return f"M{x1:.0f},{y1:.0f} C{middle:.0f},{y1:.0f} {middle:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
