"""Where versions stand in the lineage: laws that hold for any history, and what is left out of long ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stowstore.report.charts import growth_chart, sparkline
from stowstore.report.drawing import lineage_picture
from stowstore.report.lineage import Detail, EdgeKind, Graph, NodeKind, lay_out
from stowstore.report.model import Parent, RootFacts, VersionFacts, VolumeFacts

START = datetime(2026, 1, 1, tzinfo=UTC)


def version(number: int, volume: str, *parents: VersionFacts, **more: object) -> VersionFacts:
    made = VersionFacts(
        volume=volume,
        id=f"{number:026}",
        created=START + timedelta(hours=number),
        parents=tuple(Parent(parent.volume, parent.id) for parent in parents),
        used_bytes=number,
    )
    return VersionFacts(**{name: getattr(made, name) for name in VersionFacts.__slots__ if name[0] != "_"} | more)


def facts_of(versions: list[VersionFacts], *forks: VolumeFacts) -> RootFacts:
    names = sorted({found.volume for found in versions})
    volumes = []
    for name in names:
        mine = [found for found in versions if found.volume == name]
        origin = next((parent.volume for parent in mine[0].parents if parent.volume != name), None)
        volumes.append(VolumeFacts(name=name, head=Parent(name, mine[-1].id), versions=len(mine), origin=origin))
    return RootFacts(address="mem://x", gathered=START, versions=tuple(versions), volumes=(*volumes, *forks))


@st.composite
def histories(draw: st.DrawFn) -> RootFacts:
    """Roots as they come to be: commits, forks of anything, merges, parents that are gone."""
    versions: list[VersionFacts] = []
    gone = version(999_999, "pruned")
    for number in range(draw(st.integers(0, 40))):
        volume = draw(st.sampled_from("abcde"))
        mine = [found for found in versions if found.volume == volume]
        parents = mine[-1:] or ([draw(st.sampled_from(versions))] if versions and draw(st.booleans()) else [])
        if versions and draw(st.integers(0, 3)) == 0:
            parents = [*parents, draw(st.sampled_from(versions))]
        if draw(st.integers(0, 9)) == 0:
            parents = [gone]
        tags = (f"{volume}@t{number}",) if draw(st.integers(0, 4)) == 0 else ()
        versions.append(version(number, volume, *parents, tags=tags))
    return facts_of(versions)


@given(histories(), st.integers(1, 50))
def test_laws_of_the_layout(facts: RootFacts, most: int) -> None:
    """No two places are one, none is outside, a volume has one row, and lines between versions run forward."""
    graph = lay_out(facts, most=most)
    places = [(node.lane, node.column) for node in graph.nodes]
    assert len(set(places)) == len(places)
    assert all(0 <= column < graph.columns for _, column in places)
    assert sorted({lane for lane, _ in places}) == [lane.number for lane in graph.lanes]
    for node in graph.nodes:
        assert {found.volume for found in node.versions} <= {graph.lanes[node.lane].volume}
    if graph.detail is not Detail.VOLUMES:
        assert all(edge.start.column < edge.end.column for edge in graph.edges)
    drawn = [found.id for node in graph.nodes for found in node.versions]
    assert len(set(drawn)) == len(drawn)
    if not graph.hidden:
        assert sorted(drawn) == [found.id for found in facts.versions]
    assert sum(bool(node.versions) for node in graph.nodes) <= most
    picture = lineage_picture(graph)
    assert all(0 < place.x < picture.width and 0 < place.y < picture.height for place in picture.places)


def test_every_parent_is_a_line() -> None:
    """Nothing is left out of a short history: a line for each parent, of its kind."""
    a = [version(0, "a")]
    a.append(version(1, "a", a[0]))
    b = version(2, "b", a[0])
    merged = version(3, "a", a[1], b)
    graph = lay_out(facts_of([*a, b, merged]))
    lines = {(edge.start.key, edge.end.key): edge.kind for edge in graph.edges}
    assert {
        (a[0].id, a[1].id): EdgeKind.NEXT,
        (a[0].id, b.id): EdgeKind.FORK,
        (a[1].id, merged.id): EdgeKind.NEXT,
        (b.id, merged.id): EdgeKind.MERGE,
    } == lines
    assert ["a", "b"] == [lane.volume for lane in graph.lanes]
    assert Detail.VERSIONS is graph.detail


def test_what_is_not_there_has_a_place() -> None:
    """A parent that was pruned, and a fork without a version, are drawn as what they are."""
    lost = version(0, "a")
    first = version(1, "a", lost)
    fork = VolumeFacts(name="f", head=Parent("a", first.id), origin="a")
    graph = lay_out(facts_of([first], fork))
    kinds = {node.kind: node for node in graph.nodes}
    assert {NodeKind.GONE, NodeKind.VERSION, NodeKind.FORK} == kinds.keys()
    assert f"a@{lost.id}" == kinds[NodeKind.GONE].text
    assert [EdgeKind.NEXT, EdgeKind.FORK] == [edge.kind for edge in graph.edges]


def runs_of(graph: Graph) -> list[int]:
    return [len(node.versions) for node in sorted(graph.nodes, key=lambda one: one.column) if node.versions]


def test_long_histories_are_drawn_in_runs() -> None:
    """Beyond the limit, what nothing refers to is joined; what has a tag, a fork or a merge keeps its place."""
    versions = [version(0, "a")]
    for number in range(1, 30):
        tags = ("a@v",) if number == 10 else ()
        versions.append(version(number, "a", versions[-1], tags=tags))
    versions.append(version(30, "b", versions[20]))
    graph = lay_out(facts_of(versions), most=29)
    assert Detail.RUNS is graph.detail
    own = [node for node in graph.nodes if node.lane == 0]
    assert [1, 9, 1, 9, 1, 9] == [len(node.versions) for node in own]
    assert len(versions) == sum(runs_of(graph))


def test_longer_ones_are_a_place_a_volume() -> None:
    """Where runs are too many, a volume is one place, with the lines between volumes, each once."""
    a, b = [version(0, "a")], []
    b.append(version(1, "b", a[0]))
    for number in range(2, 40, 2):
        a.append(version(number, "a", a[-1], b[-1]))
        b.append(version(number + 1, "b", b[-1], a[-1]))
    graph = lay_out(facts_of(sorted([*a, *b], key=lambda one: one.id)), most=10)
    assert (Detail.VOLUMES, 0) == (graph.detail, graph.hidden)
    assert [20, 20] == runs_of(graph)
    assert [("a", "b", "fork"), ("b", "a", "merge")] == sorted(
        (edge.start.versions[0].volume, edge.end.versions[0].volume, edge.kind.value) for edge in graph.edges
    )


def test_versions_that_name_each_other() -> None:
    """A circle of parents, which only damage makes, is drawn without its last line rather than never."""
    one = version(1, "a")
    other = version(2, "a", one)
    graph = lay_out(facts_of([version(1, "a", other), other]))
    assert 2 == len(graph.nodes)


@given(st.lists(st.integers(0, 1 << 63), max_size=300), st.integers(1, 1 << 63))
def test_charts_stay_inside(sizes: list[int], stored: int) -> None:
    """Whatever the sizes are, curves lie within their axes, and the highest mark is no lower than the highest value."""
    versions = [version(number, "a", used_bytes=size) for number, size in enumerate(sizes)]
    facts = facts_of(versions)
    chart = growth_chart(facts)
    if chart is None:
        assert not sizes
        return
    for series in chart.series:
        assert all(chart.left <= point.x <= chart.right for point in series.points)
        assert all(chart.top - 0.1 <= point.y <= chart.bottom for point in series.points)
    assert 3 <= len(chart.y_ticks) <= 7
    assert all(-1 <= float(part.split(",")[1]) <= 21 for part in sparkline(sizes).lstrip("M").split(" L") if part)
