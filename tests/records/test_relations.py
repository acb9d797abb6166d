"""Closures over relations: each record once, cycles end, what is missing is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowstore.records import RecordDirectory, RecordIndex, Related
from stowstore.records.closures import closure
from stowstore.records.errors import NoSuchRecord, RelatedMissing
from tests.records.places import make, records, tree

USING = "Interface.Interface.using"


@pytest.fixture
def index(tmp_path: Path) -> RecordIndex:
    """An index of the test's own."""
    return RecordIndex(tmp_path / "index.sqlite")


@pytest.fixture
def circle(tmp_path: Path, index: RecordIndex) -> list[RecordDirectory]:
    """Four records, each of which uses the next one, the last the first; each end logs each edge."""
    found = [make(tmp_path / "local" / name, {"a": name.encode()}, config={"n": name}) for name in "abcd"]
    for number, record in enumerate(found):
        record.relate(USING, found[(number + 1) % 4])
    index.ingest_below(tmp_path / "local")
    return found


@given(st.dictionaries(st.integers(0, 8), st.sets(st.integers(0, 8)), max_size=9), st.sampled_from(Related))
def test_closures_visit_each_once(graph: dict[int, set[int]], related: Related) -> None:
    """On any graph: nothing twice, and exactly what can be reached in as many steps."""
    visited: list[str] = []

    def visit(uuid: str) -> list[str]:
        visited.append(uuid)
        return [str(end) for end in sorted(graph.get(int(uuid), ()))]

    found = closure("0", visit, related)
    reached = {0}
    for _ in range({Related.NONE: 0, Related.DIRECT: 1, Related.ALL: 9}[related]):
        reached |= {end for start in reached for end in graph.get(start, ())}

    assert visited == found
    assert len(visited) == len(set(visited))
    assert {str(number) for number in reached} == set(visited)


@pytest.mark.parametrize(
    ("related", "uploaded"),
    [(Related.NONE, "a"), (False, "a"), (True, "abd"), ("direct", "abd"), (2, "abcd"), (Related.ALL, "abcd")],
    ids=str,
)
def test_uploading_a_circle(
    circle: list[RecordDirectory], index: RecordIndex, related: Related | int | str, uploaded: str
) -> None:
    """Relations in both directions go along, as far as was asked for."""
    store = records(index=index)
    receipts = store.upload(circle[0], related)

    assert circle[0].uuid == receipts[0].uuid
    assert sorted(uploaded) == sorted(
        "abcd"[number] for number, record in enumerate(circle) if store.contains(record.uuid)
    )
    assert len(uploaded) == len(receipts)


@pytest.mark.parametrize(("related", "wanted"), [(0, "a"), (1, "abd"), (2, "abcd")])
def test_downloading_a_circle(
    tmp_path: Path, circle: list[RecordDirectory], index: RecordIndex, related: int, wanted: str
) -> None:
    """Both directions, each once, the one that was asked for first; one copy of each."""
    store = records()
    for record in circle:
        store.commit(record)

    found = store.download(circle[0].uuid, tmp_path / "new", related)

    assert circle[0].uuid == found[0].name
    assert sorted(wanted) == sorted((path / "a").read_bytes().decode() for path in found)
    assert len(found) == len(list((tmp_path / "new").iterdir()))


def test_importing_twice_makes_no_duplicates(tmp_path: Path, circle: list[RecordDirectory]) -> None:
    """The index has one row a record however often it is downloaded."""
    store = records(index=RecordIndex(tmp_path / "other.sqlite"))
    for record in circle:
        records(store.store).commit(record)
    for _ in range(2):
        store.download(circle[0].uuid, tmp_path / "new", Related.ALL)

    assert store.index is not None
    entries, total = store.index.find()
    assert (4, 4) == (total, len({entry.uuid for entry in entries}))
    assert tmp_path / "new" / circle[2].uuid == store.index.locate(circle[2].uuid)
    # Each end of an edge calls it by its own name.
    assert 4 == len(store.index.related(circle[0].uuid))


def test_missing_relations_are_told(tmp_path: Path, circle: list[RecordDirectory], index: RecordIndex) -> None:
    """What neither side has is named in the error, and everything else is done; skipping is a choice."""
    store = records(index=index)
    (circle[1].path / ".machinable").unlink()

    with pytest.raises(RelatedMissing, match=circle[1].uuid) as caught:
        store.upload(circle[0], Related.ALL)
    assert (circle[1].uuid,) == caught.value.uuids
    assert all(store.contains(circle[number].uuid) for number in (0, 2, 3))
    assert 3 == len(store.upload(circle[0], Related.ALL, skip_missing=True))
    with pytest.raises(RelatedMissing):
        store.download(circle[0].uuid, tmp_path / "new", 2)
    assert 3 == len(store.download(circle[0].uuid, tmp_path / "new", 2, skip_missing=True))
    with pytest.raises(NoSuchRecord):
        store.download(circle[1].uuid, tmp_path / "new", 2, skip_missing=True)


def test_a_related_record_the_store_has_need_not_be_local(circle: list[RecordDirectory], index: RecordIndex) -> None:
    """A relation that was uploaded before and evicted since is not missing."""
    store = records(index=index)
    store.upload(circle[0], Related.ALL)
    assert store.evict(circle[1].path)

    assert not circle[1].path.exists()
    assert 2 == len(store.upload(circle[0], Related.DIRECT))


def test_runs_go_along_and_are_not_fetched_twice(tmp_path: Path) -> None:
    """A run record lies in its record's directory, and nowhere else."""
    record = make(tmp_path / "a", {"a": b"1"})
    run = make(tmp_path / "a" / "runner" / "now", {"log": b"2"}, kind="Execution", parent=record.uuid)
    tool = make(tmp_path / "tool", {"t": b"3"})
    run.relate(USING, tool)
    store = records()
    for each in (record, tool):
        store.commit(each)

    found = store.download(record.uuid, tmp_path / "new", Related.ALL)

    assert [record.uuid, tool.uuid] == [path.name for path in found]
    assert tree(record.path) == tree(found[0])


def test_what_related_may_be() -> None:
    """Anything else than the six spellings is refused."""
    with pytest.raises(ValueError, match="direct"):
        Related.of(3)
    with pytest.raises(ValueError, match="deep"):
        Related.of("deep")
