"""Snapshots: commits, merges, differences and three-way merges against dictionaries."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from stowstore.chunks.patience import WouldWait
from stowstore.index.delta import DeltaRef
from stowstore.index.diff import diff_snapshots
from stowstore.index.filter import filter_bytes, make_filter, may_hold
from stowstore.index.merge import KeyConflict, three_way
from stowstore.index.node import CorruptNode
from stowstore.index.snapshot import MAX_DELTAS, Snapshot, SnapshotRef, commit_changes, merge_deltas
from stowstore.index.tree import build_tree
from tests.index.nodes import MemoryNodes

KEYS = st.integers(0, 300).map(lambda number: b"%03d" % number)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=3)), max_size=30)
#: A history: changes to commit, or None to merge the segments into the tree.
HISTORY = st.lists(st.one_of(CHANGES, CHANGES, CHANGES, st.none()), max_size=12)


class Line:
    """A line of versions beside the dictionary each should be."""

    def __init__(
        self, nodes: MemoryNodes, ref: SnapshotRef | None = None, content: dict[bytes, bytes] | None = None
    ) -> None:
        self.nodes = nodes
        self.ref = ref or SnapshotRef()
        self.content = dict(content or {})

    def follow(self, history: list[dict[bytes, bytes | None] | None]) -> Line:
        for changes in history:
            snapshot = self.snapshot()
            if changes is None:
                self.ref = merge_deltas(snapshot, self.nodes)
                continue
            self.ref = commit_changes(snapshot, changes, self.nodes)
            for key, value in changes.items():
                if value is None:
                    self.content.pop(key, None)
                else:
                    self.content[key] = value
        return self

    def fork(self) -> Line:
        return Line(self.nodes, self.ref, self.content)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.ref, self.nodes.cache())


@given(history=HISTORY)
def test_snapshot_is_a_sorted_dictionary(history: list[dict[bytes, bytes | None] | None]) -> None:
    """Through commits and merges a snapshot holds what a dictionary holds, by key, by range, and as saved text."""
    line = Line(MemoryNodes()).follow(history)
    saved = SnapshotRef.from_data(json.loads(json.dumps(line.ref.to_data())))
    snapshot = Snapshot(saved, line.nodes.cache())

    assert line.ref == saved
    # Before anything has fetched all segments: each lookup fetches those it needs.
    for number in range(0, 301, 7):
        assert line.content.get(b"%03d" % number) == snapshot.get(b"%03d" % number)
    assert sorted(line.content.items()) == list(snapshot.scan())
    assert [pair for pair in sorted(line.content.items()) if b"05" <= pair[0] < b"2"] == list(
        snapshot.scan(b"05", b"2")
    )
    for number in range(0, 301, 7):
        assert line.content.get(b"%03d" % number) == snapshot.get(b"%03d" % number)
    assert len(line.ref.deltas) <= MAX_DELTAS


@given(shared=HISTORY, left=HISTORY, right=HISTORY)
@settings(max_examples=150)
def test_difference_of_any_two_versions(
    shared: list[dict[bytes, bytes | None] | None],
    left: list[dict[bytes, bytes | None] | None],
    right: list[dict[bytes, bytes | None] | None],
) -> None:
    """The difference of two versions with any common past is that of their dictionaries, ascending."""
    past = Line(MemoryNodes()).follow(shared)
    ours, theirs = past.fork().follow(left), past.fork().follow(right)

    wanted = [
        (key, ours.content.get(key), theirs.content.get(key))
        for key in sorted({*ours.content, *theirs.content})
        if ours.content.get(key) != theirs.content.get(key)
    ]
    assert wanted == [tuple(change) for change in diff_snapshots(ours.snapshot(), theirs.snapshot())]


@given(shared=HISTORY, left=HISTORY, right=HISTORY)
def test_three_way_merge(
    shared: list[dict[bytes, bytes | None] | None],
    left: list[dict[bytes, bytes | None] | None],
    right: list[dict[bytes, bytes | None] | None],
) -> None:
    """Merging takes what only they changed, keeps what only we changed, and lists what both changed differently."""
    past = Line(MemoryNodes()).follow(shared)
    ours, theirs = past.fork().follow(left), past.fork().follow(right)

    found = three_way(past.snapshot(), ours.snapshot(), theirs.snapshot())

    changes: dict[bytes, bytes | None] = {}
    conflicts = []
    for key in sorted({*past.content, *ours.content, *theirs.content}):
        base, mine, other = past.content.get(key), ours.content.get(key), theirs.content.get(key)
        if other in (base, mine):
            continue
        if mine == base:
            changes[key] = other
        else:
            conflicts.append(KeyConflict(key, base, mine, other))
    assert (changes, conflicts) == (found.changes, found.conflicts)


def test_commit_writes_what_changed() -> None:
    """A thousand changed records in a hundred thousand write a thousand records, and read nothing of the tree."""
    nodes = MemoryNodes()
    tree = build_tree(((b"%06d" % number, b"v" * 60) for number in range(100_000)), nodes)
    nodes.bytes_written = nodes.reads = 0

    commit_changes(
        Snapshot(SnapshotRef(tree=tree), nodes.cache()),
        {b"%06d" % number: b"w" * 60 for number in range(0, 100_000, 100)},
        nodes,
    )

    assert nodes.bytes_written < 1_000 * 75
    assert 0 == nodes.reads


def test_many_small_commits_cost_little_more_than_their_records() -> None:
    """Five hundred commits of ten records list few segments, and write each record a few times only."""
    line = Line(MemoryNodes())
    for number in range(500):
        line.follow([{b"%06d" % (number * 10 + index): b"v" * 50 for index in range(10)}])
        assert len(line.ref.deltas) <= MAX_DELTAS

    assert line.nodes.bytes_written < 20 * 5_000 * 60


def test_scanning_fetches_the_segments_together() -> None:
    """Nothing is fetched before a snapshot is used, and all of its segments in one go when it is listed."""
    line = Line(MemoryNodes()).follow([{b"a": b"1"}, {b"b": b"2"}, {b"c": b"3"}])
    line.nodes.reads = 0
    snapshot = line.snapshot()

    assert 0 == line.nodes.reads
    assert [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")] == list(snapshot.scan())
    assert 1 == line.nodes.reads
    assert b"2" == snapshot.get(b"b")
    assert 1 == line.nodes.reads


def test_looking_up_fetches_segments_that_may_hold_the_key() -> None:
    """Segments whose filters deny a key are not fetched for it; the others are, together and once."""
    line = Line(MemoryNodes()).follow([{b"a": b"1", b"s": b"1"}, {b"b": b"2", b"s": b"2"}, {b"c": b"3", b"a": None}])
    snapshot = line.snapshot()

    def fetched_by(key: bytes, value: bytes | None) -> tuple[int, int]:
        line.nodes.reads = line.nodes.blocks_read = 0
        assert value == snapshot.get(key)
        assert value == snapshot.get_near(key)
        return line.nodes.reads, line.nodes.blocks_read

    assert (0, 0) == fetched_by(b"nobody", None)
    assert (1, 2) == fetched_by(b"s", b"2")
    assert (0, 0) == fetched_by(b"b", b"2")
    with pytest.raises(WouldWait):
        snapshot.get_near(b"c")
    assert (1, 1) == fetched_by(b"a", None)
    assert (0, 0) == fetched_by(b"c", b"3")


@pytest.mark.parametrize("unfiltered", [1, 2])
def test_segments_without_filters_are_always_asked(unfiltered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older release wrote, or is too large for a filter, is fetched by the first lookup."""
    line = Line(MemoryNodes())
    with monkeypatch.context() as patch:
        patch.setattr("stowstore.index.delta.FILTERED_RECORDS", 0)
        line.follow([{b"%d" % number: b"1"} for number in range(unfiltered)])
    line.follow([{b"x": b"2"}])
    assert [False] * unfiltered + [True] == [delta.filter is not None for delta in line.ref.deltas]
    line.nodes.reads = line.nodes.blocks_read = 0

    assert line.snapshot().get(b"nobody") is None
    assert (1, unfiltered) == (line.nodes.reads, line.nodes.blocks_read)


@given(keys=st.sets(st.binary(max_size=8), min_size=1, max_size=200))
def test_filter_has_every_key(keys: set[bytes]) -> None:
    """A filter denies none of its keys, and is as long as the number of them says."""
    name = MemoryNodes().name
    bits = make_filter(keys, len(keys), name)

    assert all(may_hold(bits, name(key)) for key in keys)
    assert filter_bytes(len(keys)) == len(bits)


def test_filter_denies_most_other_keys() -> None:
    """Of keys that a segment does not hold one in a hundred or fewer is asked for in vain."""
    name = MemoryNodes().name
    bits = make_filter((b"in %d" % number for number in range(1000)), 1000, name)

    assert sum(may_hold(bits, name(b"out %d" % number)) for number in range(10_000)) < 100


def test_filter_that_hides_records_is_told() -> None:
    """A filter of the right length that denies a key of its segment is known for that."""
    line = Line(MemoryNodes()).follow([{b"a": b"1", b"b": b"2"}])
    (delta,) = line.ref.deltas

    assert not delta.hides_any([b"a", b"b"], line.nodes)
    assert evolve(delta, filter=bytes(3)).hides_any([b"a", b"b"], line.nodes)
    assert not evolve(delta, filter=None).hides_any([b"a", b"b"], line.nodes)


def test_difference_skips_what_is_shared() -> None:
    """Comparing two versions of 200,000 records that differ in ten fetches the ten paths, not the trees."""
    nodes = MemoryNodes()
    base = SnapshotRef(tree=build_tree(((b"%06d" % number, b"v") for number in range(200_000)), nodes))
    changes = {b"%06d" % number: b"w" for number in range(0, 200_000, 20_000)}
    changed = merge_deltas(
        Snapshot(commit_changes(Snapshot(base, nodes.cache()), changes, nodes), nodes.cache()), nodes
    )
    cache = nodes.cache()

    found = list(diff_snapshots(Snapshot(base, cache), Snapshot(changed, cache)))

    assert sorted(changes) == [change.key for change in found]
    assert cache.fetched < 60


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"root": "00", "depth": 0, "deltas": []},
        {"root": None, "depth": 99, "deltas": []},
        {"root": None, "depth": "0", "deltas": []},
        {"root": None, "depth": 0, "deltas": [{}]},
        {"root": None, "depth": 0, "deltas": [{"records": 1, "blocks": ["zz"]}]},
        {"root": None, "depth": 0, "deltas": [{"records": 0, "blocks": []}] * 65},
        {"root": None, "depth": 0, "deltas": [{"records": 0, "blocks": [], "filter": ""}]},
        {"root": None, "depth": 0, "deltas": [{"records": 2, "blocks": [], "filter": "AAA="}]},
        {"root": None, "depth": 0, "deltas": [{"records": 2, "blocks": [], "filter": "AAAAAA=="}]},
        {"root": None, "depth": 0, "deltas": [{"records": 2, "blocks": [], "filter": "A?AA"}]},
        {"root": None, "depth": 0, "deltas": [{"records": 2, "blocks": [], "filter": 7}]},
        {"root": None, "depth": 0, "deltas": [{"records": 2, "blocks": [], "filter": [0, 0, 0]}]},
        {"root": None, "depth": 0, "deltas": [{"records": -2, "blocks": [], "filter": ""}]},
    ],
)
def test_hostile_description(data: object) -> None:
    """A description of a snapshot that cannot be one is refused."""
    with pytest.raises(Exception, match=r"damaged|block reference"):
        SnapshotRef.from_data(data)


def test_segment_with_other_records_than_named() -> None:
    """A segment that holds more or fewer records than its reference says is refused."""
    line = Line(MemoryNodes()).follow([{b"a": b"1", b"b": b"2"}])
    wrong = SnapshotRef(deltas=[DeltaRef(line.ref.deltas[0].blocks, 3)])

    with pytest.raises(CorruptNode, match="not what its reference says"):
        Snapshot(wrong, line.nodes.cache()).get(b"a")
