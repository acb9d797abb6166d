"""Records as volumes: a version a commit, a fork a derived record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.errors import AlreadyExists
from stowstore.records.errors import InvalidRecord, NoSuchRecord, RecordCollision
from stowstore.records.volumes import VolumeRecords
from stowstore.versions.errors import RootInUse
from tests.records.places import fill, make, tree


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[VolumeRecords]:
    """Records in a root of volumes."""
    with VolumeRecords.open(f"file://{tmp_path}/store/root") as found:
        yield found


def test_every_commit_is_a_version(tmp_path: Path, volumes: VolumeRecords) -> None:
    """Each state of a record stays and comes back as it was; a commit without changes makes none."""
    record = make(tmp_path / "a", {"a": b"1", "sub/b": b"2", "l": "->sub/b", "gone/deep/er": b"3", "kind": b"4"})
    make(tmp_path / "a" / "runner" / "now", {"log": b"5"}, kind="Execution", parent=record.uuid)
    first = volumes.commit(record)
    before = tree(record.path)
    assert first == volumes.commit(record)
    fill(record, {"a": b"new"})
    os.unlink(record.path / "gone" / "deep" / "er")
    os.rmdir(record.path / "gone" / "deep")
    os.rmdir(record.path / "gone")
    os.unlink(record.path / "kind")
    fill(record, {"kind/now/a/directory": b"6"})
    fill(record, {"link": "->sub/b"})
    second = volumes.commit(record)

    assert volumes.contains(record.uuid)
    assert [second.rpartition("@")[2], first.rpartition("@")[2]] == [
        f"{found.id}:{found.name.digest}" for found in volumes.versions(record.uuid)
    ]
    assert volumes.retrieve(record.uuid, tmp_path / "new")
    assert tree(record.path) == tree(tmp_path / "new")
    assert volumes.retrieve(record.uuid, tmp_path / "old", version=first.rpartition("@")[2].partition(":")[0])
    assert before == tree(tmp_path / "old")


def test_a_derived_record_is_a_fork(tmp_path: Path, volumes: VolumeRecords) -> None:
    """It begins with the other one's chunks and has its own identity; the other one is as it was."""
    content = os.urandom(300_000)
    record = make(tmp_path / "a", {"weights": content, "only": b"a"})
    volumes.commit(record)
    stored = _stored(tmp_path)
    derived = make(tmp_path / "b", {"more": b"b"}, config={"tuned": True})
    shutil.copy2(record.path / "weights", derived.path / "weights")
    volumes.derive(record.uuid, derived)

    assert 100_000 > _stored(tmp_path) - stored
    for each in (record, derived):
        assert volumes.retrieve(each.uuid, tmp_path / each.uuid)
        assert tree(each.path) == tree(tmp_path / each.uuid)
    assert 2 == len(list(volumes.versions(derived.uuid)))
    with pytest.raises(RootInUse):
        volumes.derive(record.uuid, derived)
    with pytest.raises(NoSuchRecord, match="nothing"):
        volumes.derive("nothing", derived)


def test_a_derivation_that_stopped_half_way(tmp_path: Path, volumes: VolumeRecords) -> None:
    """A fork without a commit of its own is no record yet, and the next attempt ends it."""
    record, derived = make(tmp_path / "a", {"a": b"1"}), make(tmp_path / "b", config={"n": 2})
    volumes.commit(record)
    with volumes._reading(record.uuid, None) as session:
        session.branch(derived.uuid)

    assert not volumes.contains(derived.uuid)
    volumes.derive(record.uuid, derived)
    assert volumes.contains(derived.uuid)
    assert volumes.retrieve(derived.uuid, tmp_path / "c")
    assert tree(derived.path) == tree(tmp_path / "c")


def test_what_is_refused(tmp_path: Path, volumes: VolumeRecords) -> None:
    """Another record under the same uuid, a link that leads out, a directory that is in use, what is not there."""
    first = make(tmp_path / "a", {"a": b"1"}, config={"n": 1}, uuid="sameuuid1234")
    volumes.commit(first)

    with pytest.raises(RecordCollision, match="sameuuid1234"):
        volumes.commit(make(tmp_path / "b", {"a": b"2"}, config={"n": 2}, uuid="sameuuid1234"))
    with pytest.raises(InvalidRecord, match="leads to"):
        volumes.commit(make(tmp_path / "c", {"out": "->/etc/passwd"}))
    with pytest.raises(AlreadyExists, match="not empty"):
        volumes.retrieve(first.uuid, tmp_path / "b")
    assert not volumes.retrieve("nothing", tmp_path / "d")
    assert not volumes.retrieve(first.uuid, tmp_path / "d", version="nothing")
    assert ["a", "b", "c", "store"] == sorted(os.listdir(tmp_path))
    with pytest.raises(NoSuchRecord):
        list(volumes.versions("nothing"))


def _stored(tmp_path: Path) -> int:
    return sum(len(content) for content in tree(tmp_path / "store").values())
