"""Finding records: by listings of the store, and in an index that can always be made anew."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import evolve

from datastore import MemoryStore
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore
from stowstore.records import Comparison, Filter, Manifest, Match, RecordDirectory, RecordIndex, RunState, run_state
from stowstore.records.errors import InvalidRecord, RecordCollision
from tests.records.places import BASE, make, records


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RecordIndex]:
    """An index of the test's own."""
    found = RecordIndex(tmp_path / "index.sqlite")
    yield found
    found.close()


def day(number: int) -> datetime:
    """A day of January."""
    return datetime(2026, 1, number, tzinfo=UTC)


def made_on(record: RecordDirectory, moment: datetime) -> RecordDirectory:
    """The record, as if it had been made then."""
    path = record.path / "model.json"
    model = json.loads(path.read_bytes())
    path.write_text(json.dumps({**model, "created_at_ns": int(moment.timestamp() * 1e9)}))
    return record


def test_records_like_one(tmp_path: Path) -> None:
    """The same code and configuration, of any or of the same predicate; no other one."""
    store = records()
    one = make(tmp_path / "1", config={"lr": 1}, predicate={"seed": 1})
    two = make(tmp_path / "2", config={"lr": 1}, predicate={"seed": 2})
    other = make(tmp_path / "3", config={"lr": 2}, predicate={"seed": 1})
    for record in (one, two, other):
        store.commit(record)

    assert {one.uuid, two.uuid} == set(store.search_for(one))
    assert [one.uuid] == store.search_for(one, Match.PREDICATE)
    assert [] == store.search(identity_key="0" * 24)
    with pytest.raises(ValueError, match="give both"):
        store.search(predicate_key="x")


def test_a_search_is_one_listing(tmp_path: Path) -> None:
    """However many records there are, a search asks for one listing and for what it found."""
    inner = MemoryStore()
    record = make(tmp_path / "a")
    records(inner).commit(record)
    for number in range(3000):
        inner.write_bytes(f"{BASE}/by-identity/{number:024}/{'0' * 32}/other{number}", b"")
    counting = FaultyStore(inner)

    assert [record.uuid] == records(counting).search_for(record)
    assert {Operation.LIST: 1, Operation.HEAD: 1} == dict(counting.calls)


def test_a_pointer_is_not_a_record(tmp_path: Path) -> None:
    """What a commit that never ended has pointed at is not found."""
    store = records()
    record = make(tmp_path / "a")
    header = record.header
    store.store.write_bytes(f"{BASE}/by-identity/{header.identity_key}/{header.predicate_key}/{header.uuid}", b"")

    assert [] == store.search_for(record)


def test_records_by_time(tmp_path: Path) -> None:
    """The newest first, from a time on, before another; the end is not included."""
    store = records()
    made = [made_on(make(tmp_path / str(number), config={"n": number}), day(number)) for number in range(1, 6)]
    for record in made:
        store.commit(record)
    uuids = [record.uuid for record in made]

    assert uuids[::-1] == store.search()
    assert uuids[:1:-1] == store.search(since=day(3))
    assert uuids[1::-1] == store.search(until=day(3))
    assert [uuids[2], uuids[1]] == store.search(since=day(2), until=day(4))
    assert uuids[:-3:-1] == store.search(limit=2)


@pytest.mark.parametrize("label", ["best", "two words", "ü/ö", "..", ".", "a" * 300, "100%", "#?&", "CON"])
def test_records_by_label(tmp_path: Path, label: str) -> None:
    """Any text can be a label, and it is found under the one it has now."""
    store = records()
    record = make(tmp_path / "a", label=label)
    near = make(tmp_path / "b", label=label + "x")
    store.commit(record)
    store.commit(near)

    assert [record.uuid] == store.search(label=label)
    assert store.set_label(record.uuid, "other")
    assert not store.set_label(record.uuid, "other")
    assert [] == store.search(label=label)
    assert [record.uuid] == store.search(label="other")
    assert store.retrieve(record.uuid, tmp_path / "c")
    assert "other" == RecordDirectory.open(tmp_path / "c").model()["label"]
    assert store.set_label(record.uuid, None)
    assert [] == store.search(label="other")


def test_walking_needs_only_manifests(tmp_path: Path) -> None:
    """All records, without reading a file of any; damaged ones do not stop it."""
    inner = MemoryStore()
    made = [make(tmp_path / str(number), {"a": b"1"}, config={"n": number}) for number in range(3)]
    for record in made:
        records(inner).commit(record)
    records(inner).store.write_bytes(f"{BASE}/records/{made[0].uuid}/manifest.json", b"{")
    inner.write_bytes(f"{BASE}/records/unfinished/f/a", b"")
    counting = FaultyStore(inner)

    found = {manifest.uuid for manifest in records(counting).walk()}

    assert {made[1].uuid, made[2].uuid} == found
    assert 4 == counting.calls[Operation.READ]


def test_an_index_is_rebuilt_from_the_store_alone(tmp_path: Path, index: RecordIndex) -> None:
    """Rows and relations come back without a file being read; what the store lost is marked."""
    inner = MemoryStore()
    store = records(inner)
    one = make(tmp_path / "1", {"a": b"1"}, config={"lr": 0.5}, predicate={"seed": 1}, label="best")
    two = make(tmp_path / "2", {"a": b"2"}, config={"lr": 0.1})
    run = make(tmp_path / "1" / "runner" / "now", kind="Execution", parent=one.uuid)
    one.relate("Interface.Interface.using", two)
    for record in (one, two):
        store.commit(record)

    assert 3 == index.rebuild(store)
    entry = index.get(one.uuid)
    assert entry is not None
    assert ("study", "best", {"lr": 0.5}, {"seed": 1}) == (entry.module, entry.label, entry.config, entry.predicate)
    assert (store.home_uri(one.uuid), None, False) == (entry.home_uri, entry.directory, entry.bytes_missing)
    assert {one.uuid, two.uuid} == {end for edge in index.related(two.uuid) for end in edge[1:3]}
    assert [run.uuid] == [found.uuid for found in index.find(parent=one.uuid)[0]]
    store.delete(two.uuid)
    assert 2 == index.rebuild(store)
    assert index.get(two.uuid).bytes_missing  # type: ignore[union-attr]
    assert {one.uuid, run.uuid} == {found.uuid for found in index.all()}
    assert 3 == index.find(include_missing=True)[1]


def test_directories_in_any_order(tmp_path: Path, index: RecordIndex) -> None:
    """An edge may name a record that comes later, and a directory may move."""
    one = make(tmp_path / "1")
    two = make(tmp_path / "2", config={"n": 2})
    one.relate("Interface.Interface.using", two)
    index.ingest(one.path)
    index.ingest(two.path)
    index.ingest(one.path)

    assert 2 == index.find()[1]
    assert 2 == len(index.related(two.uuid))
    os.rename(one.path, tmp_path / "moved")
    assert (2, [one.uuid]) == index.check_local()
    assert index.locate(one.uuid) is None
    index.ingest_below(tmp_path)
    assert tmp_path / "moved" == index.locate(one.uuid)


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"module": "study"}, "abcd"),
        ({"label": "best"}, "a"),
        ({"predicate": {"seed": 1}}, "ab"),
        ({"predicate": {"seed": 1, "machine.name": "x"}}, "a"),
        ({"predicate": {"missing": None}}, "abcd"),
        ({"config": [Filter("lr", Comparison.GTE, 0.2)]}, "bcd"),
        ({"config": [Filter("lr", Comparison.GT, 0.2), Filter("lr", Comparison.LT, 0.4)]}, "c"),
        ({"config": [Filter("opt.name", Comparison.EQ, "adam")]}, "c"),
        ({"config": [Filter("lr", Comparison.NE, 0.2)]}, "acd"),
        ({"config": [Filter("steps[1]", Comparison.EQ, 7)]}, "d"),
        ({"since": day(2), "until": day(4)}, "bc"),
        ({"kind": "Execution"}, ""),
    ],
)
def test_questions_to_the_index(tmp_path: Path, index: RecordIndex, conditions: dict[str, object], found: str) -> None:
    """Everything that is given has to hold; the newest come first."""
    configs = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3, "opt": {"name": "adam"}}, {"lr": 0.4, "steps": [1, 7]}]
    predicates = [{"seed": 1, "machine": {"name": "x"}}, {"seed": 1}, {"seed": 2}, {}]
    for number, (config, predicate) in enumerate(zip(configs, predicates, strict=True)):
        record = make(tmp_path / "abcd"[number], config=config, predicate=predicate, label=None if number else "best")
        index.ingest(made_on(record, day(number + 1)).path)

    entries, total = index.find(**conditions)  # type: ignore[arg-type]

    assert list(found)[::-1] == [entry.directory.name for entry in entries if entry.directory]
    assert len(found) == total


@pytest.mark.parametrize("path", ["", "a.", "a b", "a'; DROP TABLE records; --", 'a"b', "$"])
def test_hostile_paths_are_refused(index: RecordIndex, path: str) -> None:
    """What is no path of a value is refused before it reaches the database."""
    with pytest.raises(ValueError, match="is no path of a value"):
        index.find(predicate={path: 1})
    with pytest.raises(ValueError, match="is no path of a value"):
        index.find(config=[Filter(path, Comparison.EQ, 1)])


def test_pages_of_a_large_index(tmp_path: Path, index: RecordIndex) -> None:
    """More rows than one answer may have are walked through to the end."""
    template = _manifest(make(tmp_path / "a"))
    with index._changing() as database:
        for number in range(2500):
            header = evolve(template.header, uuid=f"record{number:06}")
            index._add(database, evolve(template, header=header), None, tmp_path / str(number))

    assert 2500 == len({entry.uuid for entry in index.all()})
    assert (100, 2500) == (len(index.find()[0]), index.find()[1])
    assert "record001234" == index.get("001234").uuid  # type: ignore[union-attr]
    assert 2500 == len(index.check_local()[1])
    with pytest.raises(ValueError, match="between 1 and 1000"):
        index.find(limit=10_000)


def test_two_identities_of_one_uuid(tmp_path: Path, index: RecordIndex) -> None:
    """A second record of the same uuid is refused, and the first one stays."""
    first = make(tmp_path / "a", config={"n": 1}, uuid="sameuuid1234")
    second = make(tmp_path / "b", config={"n": 2}, uuid="sameuuid1234")
    index.ingest(first.path)

    with pytest.raises(RecordCollision, match="sameuuid1234"):
        index.ingest(second.path)
    assert first.path == index.locate("sameuuid1234")


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    """It is a cache: what cannot be read is emptied and filled again."""
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE records (other)")
        database.execute("PRAGMA user_version = 99")
    database.close()
    index = RecordIndex(path)
    index.ingest(make(tmp_path / "a").path)

    assert 1 == index.find()[1]
    index.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({".machinable": None}, "no .machinable"),
        ({"id.json": None}, "none of format 1"),
        ({"id.json": "{"}, "cannot be read"),
        ({"id.json": '{"format": 1, "uuid": "../x"}'}, "no uuid"),
        ({".machinable": "another"}, "is corrupt"),
        ({"model.json": '{"uuid": "another"}'}, "is corrupt"),
        ({"id.json": '{"format": 1, "uuid": "u", "identity_key": "..", "predicate_key": "p"}'}, "no identity key"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_record(tmp_path: Path, damage: dict[str, str | None], message: str) -> None:
    """A directory that is none, an older format, and a corrupt one are told apart and named."""
    record = make(tmp_path / "a")
    for name, content in damage.items():
        if content is None:
            (record.path / name).unlink()
        else:
            (record.path / name).write_text(content)

    with pytest.raises(InvalidRecord, match=message) as caught:
        RecordDirectory.open(record.path)
    assert str(record.path) in str(caught.value)


def test_a_directory_is_created_once(tmp_path: Path) -> None:
    """A second record never takes the directory of the first."""
    make(tmp_path / "a")

    with pytest.raises(InvalidRecord, match="a record already"):
        make(tmp_path / "a")


def test_paths_in_a_record(tmp_path: Path) -> None:
    """A file of a record is in the record."""
    record = make(tmp_path / "a")

    assert record.path / "out" / "x" == record.file("out/x")
    for path in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(InvalidRecord, match="lead out"):
            record.file(path)


@pytest.mark.parametrize(
    ("markers", "state"),
    [
        ({}, RunState.NONE),
        ({"dispatched_at": "2026-01-01T00:00:00+00:00"}, RunState.PENDING),
        ({"started_at": "2026-01-01T00:00:00+00:00"}, RunState.LIVE),
        ({"started_at": "2026-01-01 00:00:00"}, RunState.LIVE),
        ({"started_at": "2025-12-31T00:00:00+00:00"}, RunState.DIED),
        ({"started_at": "2025-12-31T00:00:00+00:00", "heartbeat_at": "2026-01-01T00:00:10+00:00"}, RunState.LIVE),
        ({"started_at": "2025-12-31T00:00:00+00:00", "resumed_at": "x\n2026-01-01T00:00:10+00:00\n"}, RunState.LIVE),
        ({"started_at": "garbage"}, RunState.DIED),
        ({"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "later"}, RunState.FINISHED),
    ],
    ids=itertools.count(),
)
def test_the_state_of_a_run(markers: dict[str, str], state: RunState) -> None:
    """Markers say it; a run without a heartbeat for ninety seconds has died."""
    assert state is run_state(markers, datetime(2026, 1, 1, 0, 1, tzinfo=UTC))


def _manifest(record: RecordDirectory) -> Manifest:
    store = records()
    store.commit(record)
    return store.manifest(record.uuid)
