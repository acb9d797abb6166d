"""Deletion in two steps, collection, and letting go of local copies."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from datastore import MemoryStore
from datastore.errors import TransientError
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule
from stowstore.records import Deletion, Placement, RecordIndex
from stowstore.records.collecting import collect
from stowstore.records.errors import RecordDamaged
from tests.records.places import BASE, fill, make, records, tree, without_grace


def keys(store: object) -> set[str]:
    """All keys below the base."""
    return {entry.reference.key.removeprefix(f"{BASE.key}/") for entry in store.walk(BASE, directory=True)}  # type: ignore[attr-defined]


def test_deleted_at_once(tmp_path: Path) -> None:
    """Nothing of the record is left, it is contained nowhere, and the index says so."""
    store = records(index=RecordIndex(tmp_path / "index.sqlite"))
    record = make(tmp_path / "a", {"a": b"1"}, label="best")
    store.commit(record)

    assert store.delete(record.uuid)
    assert not store.contains(record.uuid)
    assert not store.delete(record.uuid)
    assert {"records.json"} == keys(store.store)
    assert [] == store.search_for(record)
    assert store.index is not None
    assert store.index.get(record.uuid).home_uri is None  # type: ignore[union-attr]


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_deletion_that_stops_half_way(tmp_path: Path, nth: int) -> None:
    """Whatever a deletion fails at, the record is there whole or not at all, and deleting again ends it."""
    inner = MemoryStore()
    record = make(tmp_path / "a", {"a": b"1"})
    records(inner).commit(record)
    operations = {Operation.DELETE, Operation.DELETE_MANY, Operation.LIST, Operation.READ}
    faulty = FaultyStore(inner, [Rule(Raise(TransientError), operations=operations, nth=nth)])
    with pytest.raises(TransientError):
        records(faulty).delete(record.uuid)

    assert records(inner).contains(record.uuid) == records(inner).retrieve(record.uuid, tmp_path / "b")
    assert [] == records(inner).search_for(record) or records(inner).contains(record.uuid)
    records(inner).delete(record.uuid)
    assert set() == {key for key in keys(inner) if key.startswith("records/")}


def test_trashed_and_restored(tmp_path: Path) -> None:
    """A record in the trash is gone for everybody, and comes back whole."""
    store = records()
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)

    assert store.delete(record.uuid, Deletion.TRASH)
    assert not store.contains(record.uuid)
    assert not store.retrieve(record.uuid, tmp_path / "b")
    assert store.restore(record.uuid)
    assert [record.uuid] == store.search_for(record)
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not store.restore(record.uuid)


@pytest.mark.parametrize("placement", Placement)
def test_the_second_step(tmp_path: Path, placement: Placement) -> None:
    """Two collections, a grace period apart, remove what is in the trash, and nothing that any record needs."""
    inner = MemoryStore()
    store = without_grace(inner, placement=placement)
    kept = make(tmp_path / "kept", {"shared": b"s", "own": b"k"})
    gone = make(tmp_path / "gone", {"shared": b"s", "own": b"g"})
    for record in (kept, gone):
        store.commit(record)
    store.delete(gone.uuid, Deletion.TRASH)

    assert (0, True) == _numbers(collect(records(inner)))
    assert store.restore(gone.uuid)
    store.delete(gone.uuid, Deletion.TRASH)
    first = collect(store)
    assert (0, True) == (first.removed, first.condemned > 0)
    assert (gone.uuid,) == first.records
    second = collect(store)
    assert (first.condemned, 0) == (second.removed, second.condemned)
    assert not store.restore(gone.uuid)
    assert (0, True) == _numbers(collect(store))
    assert not any(gone.uuid in key for key in keys(inner))
    assert store.verify(kept.uuid, deep=True)
    assert [kept.uuid] == store.search_for(kept)


def _numbers(collection: object) -> tuple[int, bool]:
    return collection.removed, collection.condemned == 0  # type: ignore[attr-defined]


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """It says what would go."""
    store = without_grace()
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)
    fill(record, {"a": b"2"})
    store.commit(record)
    before = keys(store.store)

    assert 1 == collect(store, dry_run=True).condemned
    assert before == keys(store.store)


def test_readers_of_an_older_manifest_have_the_grace_period(tmp_path: Path) -> None:
    """What a commit retired stays as long, and goes after."""
    inner = MemoryStore()
    store = records(inner, grace=timedelta(hours=1))
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)
    fill(record, {"a": b"2"})
    store.commit(record)

    for _ in range(2):
        assert 0 == collect(store).condemned
    for _ in range(2):
        collect(without_grace(inner))
    assert f"records/{record.uuid}/f/a" not in keys(inner)
    assert store.verify(record.uuid, deep=True)


@pytest.mark.parametrize("placement", Placement)
def test_what_is_about_to_go_is_not_used(tmp_path: Path, placement: Placement) -> None:
    """A commit between the two collections does not name what the second one removes."""
    inner = MemoryStore()
    store = without_grace(inner, placement=placement)
    record = make(tmp_path / "a", {"a": b"1" * 100_000})
    store.commit(record)
    for content in (b"2", b"1" * 100_000, b"3"):
        fill(record, {"a": content})
        store.commit(record)
    assert 0 < collect(store).condemned
    fill(record, {"a": b"1" * 100_000})
    store.commit(record)

    assert 0 < collect(store).removed
    assert store.verify(record.uuid, deep=True)


def test_what_an_interrupted_upload_left_goes(tmp_path: Path) -> None:
    """Files and notes of an upload that nobody went on with are collected."""
    inner = MemoryStore()
    record = make(tmp_path / "a", {"a": b"1", "b": b"2"})
    faulty = FaultyStore(inner, [Rule(Raise(TransientError), operations={Operation.WRITE}, keys="*/manifest.json")])
    with pytest.raises(TransientError):
        without_grace(faulty).commit(record)
    assert [] == records(inner).search_for(record)
    for _ in range(2):
        collect(without_grace(inner))

    assert {"records.json"} == keys(inner)
    without_grace(inner).commit(record)
    assert without_grace(inner).verify(record.uuid, deep=True)


def test_missing_pointers_are_written_again(tmp_path: Path) -> None:
    """A record that searches do not find is found after a collection."""
    store = records()
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)
    store.store.delete_many([entry.reference for entry in store.store.walk(f"{BASE}/by-identity", directory=True)])
    assert [] == store.search_for(record)
    collect(store)

    assert [record.uuid] == store.search_for(record)


def test_a_damaged_record_keeps_what_may_be_its_own(tmp_path: Path) -> None:
    """Nothing is removed on the word of a manifest that cannot be read."""
    store = without_grace()
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)
    manifest = f"{BASE}/records/{record.uuid}/manifest.json"
    good = store.store.read_bytes(manifest)
    store.store.write_bytes(manifest, b"{")
    for _ in range(3):
        assert (record.uuid,) == collect(store).damaged
    store.store.write_bytes(manifest, good)

    assert store.verify(record.uuid, deep=True)


def test_nothing_is_sent_past_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    """Without knowing what is about to go, nothing is committed."""
    store = records()
    store.store.write_bytes(f"{BASE}/condemned", b"nonsense")

    with pytest.raises(RecordDamaged, match="to be removed"):
        store.commit(make(tmp_path / "a", {"a": b"1"}))


@pytest.mark.parametrize("reason", ["never pushed", "changed since", "damaged", "added since", "edge since"])
def test_only_what_the_store_has_is_evicted(tmp_path: Path, reason: str) -> None:
    """A local copy is removed when the store has every byte of it, and not otherwise."""
    store = records()
    record = make(tmp_path / "a", {"a": b"1"})
    if reason != "never pushed":
        store.commit(record)
    if reason == "changed since":
        fill(record, {"a": b"2"})
    elif reason == "added since":
        fill(record, {"b": b"2"})
    elif reason == "edge since":
        record.relate("Interface.Interface.using", make(tmp_path / "b"))
        os.unlink(record.path / "updated_at")
    elif reason == "damaged":
        store.store.write_bytes(f"{BASE}/records/{record.uuid}/f/a", b"2")

    assert not store.evict(record.path)
    assert record.path.exists()
    if reason == "damaged":
        store.store.write_bytes(f"{BASE}/records/{record.uuid}/f/a", b"1")
    else:
        store.commit(record)
    assert store.evict(record.path)
    assert not record.path.exists()
