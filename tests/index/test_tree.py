"""The index tree against a sorted dictionary, its shape, and what it refuses to read."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowstore.index.node import FAN_OUT, LEAF_RECORDS, CorruptNode, encode_node
from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes
from stowstore.index.tree import EMPTY_TREE, Tree, TreeRef, apply_changes, build_tree
from tests.index.nodes import MemoryNodes

KEYS = st.one_of(
    st.integers(0, 5000).map(lambda number: b"%04d" % number),
    st.binary(max_size=6),
    st.sampled_from([b"", b"\x00", b"\xff", b"\xff\xff", b"a\xff", b"a\xff\xff"]),
)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=40)), max_size=400)


@given(first=st.dictionaries(KEYS, st.binary(max_size=40), max_size=900), histories=st.lists(CHANGES, max_size=4))
def test_tree_is_a_sorted_dictionary(first: dict[bytes, bytes], histories: list[dict[bytes, bytes | None]]) -> None:
    """Through any history of changes the tree holds what a dictionary holds, and every earlier tree stays as it was."""
    nodes = MemoryNodes()
    model = dict(first)
    ref = build_tree(sorted(first.items()), nodes)
    versions = [(ref, dict(model))]
    for changes in histories:
        ref = apply_changes(Tree(ref, nodes.cache()), sorted(changes.items()), nodes)
        model.update({key: value for key, value in changes.items() if value is not None})
        for key in [key for key, value in changes.items() if value is None]:
            model.pop(key, None)
        versions.append((ref, dict(model)))

    for version, content in versions:
        tree = Tree(version, nodes.cache())
        assert sorted(content.items()) == list(tree.scan())
        for key in [*content, b"missing", b""]:
            assert content.get(key) == tree.get(key)


@given(
    content=st.dictionaries(KEYS, st.binary(max_size=10), max_size=700),
    start=KEYS,
    stop=st.one_of(st.none(), KEYS),
)
def test_scan_yields_a_range(content: dict[bytes, bytes], start: bytes, stop: bytes | None) -> None:
    """A scan yields the keys from start on that are below stop, ascending."""
    nodes = MemoryNodes()
    tree = Tree(build_tree(sorted(content.items()), nodes), nodes.cache())

    wanted = [(key, value) for key, value in sorted(content.items()) if start <= key and (stop is None or key < stop)]
    assert wanted == list(tree.scan(start, stop))


@given(
    content=st.dictionaries(KEYS, st.binary(max_size=10), max_size=700),
    changes=CHANGES,
    wanted=st.sets(KEYS, max_size=300),
    start=KEYS,
)
def test_many_at_once_are_those_found_one_by_one(
    content: dict[bytes, bytes], changes: dict[bytes, bytes | None], wanted: set[bytes], start: bytes
) -> None:
    """Looking for many keys together finds what is there and nothing else, in a tree and with a segment over it."""
    nodes = MemoryNodes()
    tree = build_tree(sorted(content.items()), nodes)
    keys = sorted({*wanted, *list(content)[::3], *list(changes)[::2]})
    assert {key: content[key] for key in keys if key in content} == Tree(tree, nodes.cache()).find(keys)

    model = {key: value for key, value in {**content, **changes}.items() if value is not None}
    base = Snapshot(SnapshotRef(tree=tree), nodes.cache())
    snapshot = Snapshot(commit_changes(base, changes, nodes), nodes.cache())
    assert {key: model[key] for key in keys if key in model} == snapshot.find(keys)
    batches = list(snapshot.leaves(start))
    assert all(found and len(found) == len(values) for found, values in batches)
    assert sorted((key, value) for key, value in model.items() if key >= start) == [
        pair for found, values in batches for pair in zip(found, values, strict=True)
    ]


def test_many_are_fetched_level_by_level() -> None:
    """A thousand keys all over a tree cost one fetch for each level above the leaves, and one for each 64 of them."""
    nodes = MemoryNodes()
    ref = build_tree(((b"%06d" % number, b"v") for number in range(100_000)), nodes)
    cache = nodes.cache()
    fetches = []
    read = nodes.read
    nodes.read = lambda refs: fetches.append(len(refs)) or read(refs)  # type: ignore[method-assign, func-returns-value]

    assert len(Tree(ref, cache).find([b"%06d" % number for number in range(0, 100_000, 100)])) == 1000
    leaves = -(-100_000 // LEAF_RECORDS)
    assert sum(fetches[ref.depth :]) == leaves
    assert len(fetches) == ref.depth + -(-leaves // 64)


def test_change_costs_a_path() -> None:
    """One changed record of 100,000 rewrites one leaf and the nodes above it, and reads no more."""
    nodes = MemoryNodes()
    ref = build_tree(((b"%06d" % number, b"v") for number in range(100_000)), nodes)
    nodes.written = 0
    cache = nodes.cache()

    changed = apply_changes(Tree(ref, cache), [(b"050000", b"new")], nodes)

    assert changed.depth + 1 == nodes.written
    assert changed.depth + 1 == cache.fetched


def test_lookup_costs_a_path() -> None:
    """A cold look-up fetches one node a level."""
    nodes = MemoryNodes()
    ref = build_tree(((b"%06d" % number, b"v") for number in range(100_000)), nodes)
    cache = nodes.cache()

    assert b"v" == Tree(ref, cache).get(b"031415")
    assert ref.depth + 1 == cache.fetched


def test_leaves_left_small_are_joined() -> None:
    """After most records are deleted the tree has no more leaves than it needs."""
    nodes = MemoryNodes()
    keys = [b"%06d" % number for number in range(20_000)]
    ref = build_tree(((key, b"v") for key in keys), nodes)
    rng = random.Random(1)
    rng.shuffle(keys)
    for start in range(0, 19_000, 1_000):
        changes: list[tuple[bytes, bytes | None]] = [(key, None) for key in sorted(keys[start : start + 1_000])]
        ref = apply_changes(Tree(ref, nodes.cache()), changes, nodes)

    cache = nodes.cache()
    assert sorted(keys[19_000:]) == [key for key, _ in Tree(ref, cache).scan()]
    assert cache.fetched <= 1_000 / (LEAF_RECORDS // 4) + 3


def test_deleting_everything_is_the_empty_tree() -> None:
    """A tree whose last record goes has no root."""
    nodes = MemoryNodes()
    ref = build_tree(((b"%04d" % number, b"v") for number in range(2_000)), nodes)

    gone = apply_changes(Tree(ref, nodes.cache()), [(b"%04d" % number, None) for number in range(2_000)], nodes)

    assert EMPTY_TREE == gone


def test_long_values_cut_leaves_by_bytes() -> None:
    """Values far longer than usual make more leaves, not huge ones."""
    nodes = MemoryNodes()
    content = {b"%04d" % number: bytes(100_000) for number in range(50)}

    tree = Tree(build_tree(sorted(content.items()), nodes), nodes.cache())

    assert sorted(content.items()) == list(tree.scan())
    assert max(map(len, nodes.blocks.values())) < 1 << 20


def test_unsorted_items_are_refused() -> None:
    """Building from keys that do not ascend would make a tree nobody can search."""
    with pytest.raises(ValueError, match="ascend"):
        build_tree([(b"b", b""), (b"a", b"")], MemoryNodes())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\xc1", "cannot be read"),
        (b"", "cannot be read"),
        (msgspec.msgpack.encode([2, 0, [b"a"], [b"v"]]), "format 2"),
        (encode_node(1, [b"a"], [b"v" * 61]), "level 1 stands where level 0"),
        (encode_node(0, [b"b", b"a"], [b"v", b"v"]), "do not ascend"),
        (encode_node(0, [b"a", b"a"], [b"v", b"v"]), "do not ascend"),
        (encode_node(0, [b"a"], []), "1 keys and 0 values"),
        (encode_node(0, [], []), "0 keys"),
    ],
)
def test_hostile_node(raw: bytes, says: str) -> None:
    """A node that is not what its place says is refused, whatever the store returns."""
    nodes = MemoryNodes()

    with pytest.raises(CorruptNode, match=says):
        Tree(TreeRef(nodes.add(raw), 0), nodes.cache()).get(b"a")


def test_tree_that_points_at_itself_ends() -> None:
    """A cycle of nodes cannot be walked: levels fall with every step."""
    nodes = MemoryNodes()
    leaf = nodes.add(encode_node(0, [b"a"], [b"v"]))
    inner = nodes.add(encode_node(1, [b"a"], [leaf.pack_bytes()]))
    nodes.blocks[leaf.name] = nodes.blocks[inner.name]

    with pytest.raises(CorruptNode, match="level 1 stands where level 0"):
        list(Tree(TreeRef(inner, 1), nodes.cache()).scan())


def test_inner_nodes_fan_out() -> None:
    """A million records stand under two inner levels."""
    assert LEAF_RECORDS * FAN_OUT * FAN_OUT > 10_000_000
