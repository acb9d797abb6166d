"""Two writers of one volume: one of them writes, the other is told so, and whoever lost the lease publishes nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from datastore import DataReference, MemoryStore
from datastore.errors import PreconditionFailed, StoreError
from stowstore.namespace.permissions import ROOT
from stowstore.versions.check import check
from stowstore.versions.errors import LeaseHeld, LeaseLost, RootInUse, VolumeError
from stowstore.versions.findings import CheckDepth
from stowstore.versions.lease import LeaseRecord
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.recovering import recover_journal
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.versions.successors import merge_version
from tests.volumes_faults.programs import read_file, tree_of, write_file
from tests.volumes_faults.writing import VOLUME, Place, options_of, root_of

BASE = DataReference("mem://main/root")

_context = multiprocessing.get_context("forkserver")


def test_race_for_the_lease(tmp_path: Path) -> None:
    """Of many processes that open a volume at once one gets it, the others hear who has it; all publish in the end."""
    workers, rounds = 3, 4
    start = _context.Barrier(workers)
    pipes, processes = [], []
    for number in range(workers):
        ours, theirs = _context.Pipe(duplex=False)
        process = _context.Process(target=_contend, args=(theirs, start, tmp_path, number, rounds))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    said = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    refused = sum(count for _, count in said)
    published = {name for names, _ in said for name in names}
    root = root_of(Place(tmp_path))
    assert len(published) == workers * rounds
    with Session.read(root, root.head(VOLUME)) as reader:
        assert set(tree_of(reader.files)) == {f"{number}-{at}" for number in range(workers) for at in range(rounds)}
    # One history, with every version in it.
    history, name = [], root.head(VOLUME)
    while True:
        manifest = root.load(name)
        history.append(manifest.id)
        if not manifest.parents:
            break
        (name,) = manifest.parents
    assert set(history) == published
    assert refused > 0


def _contend(pipe: Connection, start: Barrier, directory: Path, number: int, rounds: int) -> None:
    root = root_of(Place(directory))
    refused, published = 0, []
    start.wait()
    for at in range(rounds):
        while True:
            try:
                session = Session.write(root, VOLUME)
            except LeaseHeld:
                refused += 1
                time.sleep(0.002)
            else:
                break
        with session:
            write_file(session.files, f"{number}-{at}", f"{number} {at}".encode())
            published.append(session.commit().id)
    pipe.send((published, refused))


def test_who_lost_the_lease_publishes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """What it journalled comes back with its meta_dir, as long as the volume has not moved on."""
    place = Place(tmp_path)
    root = root_of(place)
    session = Session.write(root, VOLUME, options_of(place))
    write_file(session.files, "first", b"1")
    session.commit()
    head = root.head(VOLUME)
    write_file(session.files, "second", b"2")
    session.files.fsync()
    _give_to_somebody(root)
    for _ in range(2):
        with pytest.raises(LeaseLost, match="somebody on elsewhere"):
            session.commit()
    assert root.head(VOLUME) == head
    assert read_file(session.files, "second") == b"2"
    session.close()
    # The stranger's lease is not the session's to remove.
    with pytest.raises(LeaseHeld, match="somebody on elsewhere, process 1"):
        Session.write(root, VOLUME, options_of(place))
    root.store.delete(root.lease_reference(VOLUME))

    with Session.write(root, VOLUME, options_of(place)) as again:
        assert read_file(again.files, "second") == b"2"
        again.commit()
    with Session.read(root, root.head(VOLUME)) as reader:
        assert set(tree_of(reader.files)) == {"first", "second"}


def test_journal_over_a_version_that_is_no_longer_the_newest(tmp_path: Path) -> None:
    """It is neither dropped nor laid over what somebody else has written: the error says where it is and of what."""
    place = Place(tmp_path)
    root = root_of(place)
    session = Session.write(root, VOLUME, options_of(place))
    write_file(session.files, "first", b"1")
    base = session.commit()
    write_file(session.files, "mine", b"mine")
    session.files.fsync()
    root.store.delete(root.lease_reference(VOLUME))
    with Session.write(root, VOLUME) as other:
        write_file(other.files, "theirs", b"theirs")
        newest = other.commit()
    with pytest.raises(LeaseLost):
        session.commit()
    session.close()

    with pytest.raises(VolumeError, match="holds uncommitted changes") as caught:
        Session.write(root, VOLUME, options_of(place))
    for part in (str(tmp_path / "meta"), base.id, newest.id):
        assert part in str(caught.value)
    assert root.head(VOLUME) == newest.name
    # Its lease is free again, and without that journal the volume is open to all.
    with Session.write(root, VOLUME) as again:
        assert set(tree_of(again.files)) == {"first", "theirs"}

    # What it holds becomes a volume of its own, forked where the changes began, and nothing else moves.
    recovered = recover_journal(root, VOLUME, "rescued", options_of(place), message="rescued")
    assert (recovered.volume, recovered.message, recovered.parents) == ("rescued", "rescued", (base.name,))
    with Session.read(root, recovered.name) as reader:
        assert read_file(reader.files, "mine") == b"mine"
        assert set(tree_of(reader.files)) == {"first", "mine"}
    assert root.head(VOLUME) == newest.name
    with pytest.raises(VolumeError, match=r"holds no changes|is of rescued"):
        recover_journal(root, VOLUME, "again", options_of(place))
    with Session.write(root, VOLUME, SessionOptions(cache_dir=tmp_path / "other-cache")) as again:
        assert set(tree_of(again.files)) == {"first", "theirs"}


def test_recovered_changes_are_merged_back(tmp_path: Path) -> None:
    """Files that both writers made have numbers of their own, so a merge brings all of them together."""
    place = Place(tmp_path)
    root = root_of(place)
    session = Session.write(root, VOLUME, options_of(place))
    write_file(session.files, "first", b"1")
    session.commit()
    mine = session.files.mkdir(1, b"mine", 0o755, ROOT).ino
    for number in range(5):
        made, handle = session.files.create(mine, b"%d" % number, 0o600, os.O_WRONLY, ROOT)
        session.files.write(handle, 0, random.Random(number).randbytes(5_000 * number), ROOT)
        session.files.setxattr(made.ino, b"user.n", b"%d" % number, ROOT)
        session.files.release(handle)
    write_file(session.files, "first", b"changed by mine")
    expected = tree_of(session.files)
    session.close()
    root.store.delete(root.lease_reference(VOLUME))
    with Session.write(root, VOLUME) as other:
        for number in range(9):
            write_file(other.files, f"theirs-{number}", b"theirs %d" % number)
        theirs = tree_of(other.files)
        other.commit()

    recovered = recover_journal(root, VOLUME, "rescued", options_of(place))
    with Session.read(root, recovered.name) as reader:
        assert tree_of(reader.files) == expected
        report = check(root, reader.chunks, depth=CheckDepth.DATA)
        assert report.is_whole, "\n".join(map(str, report.findings))
    with chunk_store(root, SessionOptions()) as chunks:
        merged = merge_version(root, chunks, VOLUME, recovered.name)
        assert check(root, chunks, depth=CheckDepth.DATA).is_whole
    with Session.read(root, merged.version) as reader:
        found = tree_of(reader.files)
    assert found == theirs | expected


def test_changes_are_recovered_over_the_version_they_lie_over(tmp_path: Path) -> None:
    """Not over one that the same journal has published before, when somebody else has written since."""
    place = Place(tmp_path)
    root = root_of(place)
    with Session.write(root, VOLUME, options_of(place)) as session:
        write_file(session.files, "first", b"1")
        session.commit()
    with Session.write(root, VOLUME) as other:
        write_file(other.files, "theirs", b"theirs")
        theirs = other.commit()
    with Session.write(root, VOLUME, options_of(place)) as session:
        write_file(session.files, "mine", b"mine")

    recovered = recover_journal(root, VOLUME, "rescued", options_of(place))
    assert recovered.parents == (theirs.name,)
    with Session.read(root, recovered.name) as reader:
        assert set(tree_of(reader.files)) == {"first", "theirs", "mine"}


def test_recovery_that_was_interrupted_is_taken_up(tmp_path: Path) -> None:
    """Killed between forking and committing it can be run again; another volume of that name is never overwritten."""
    place = Place(tmp_path)
    root = root_of(place)
    with Session.write(root, VOLUME, options_of(place)) as session:
        write_file(session.files, "first", b"1")
        base = session.commit()
        write_file(session.files, "mine", b"mine")
    with Session.write(root, "taken") as other:
        write_file(other.files, "x", b"x")
        other.commit()
    with pytest.raises(RootInUse):
        recover_journal(root, VOLUME, "taken", options_of(place))
    root.set_head("rescued", base.name, None)
    recovered = recover_journal(root, VOLUME, "rescued", options_of(place))
    with Session.read(root, recovered.name) as reader:
        assert set(tree_of(reader.files)) == {"first", "mine"}


def test_lease_taken_between_the_check_and_the_head() -> None:
    """Even then the head moves for one of them: it moves only from where the writer thinks it is."""
    store = MemoryStore()
    root = Root.open_or_create(store, BASE)
    with Session.write(root, VOLUME) as session:
        write_file(session.files, "base", b"")
        session.commit()

    late = Session.write(root, VOLUME)
    write_file(late.files, "late", b"")
    moved: list[Any] = []

    class Overtaken(Root):
        """Lets another writer through just before it moves the head."""

        def set_head(self, *args: Any) -> None:
            if not moved:
                store.delete(root.lease_reference(VOLUME))
                with Session.write(root, VOLUME) as early:
                    write_file(early.files, "early", b"")
                    moved.append(early.commit().name)
            super().set_head(*args)

    late.root = Overtaken(store, BASE, root.format)
    with pytest.raises(PreconditionFailed, match="has moved"):
        late.commit()
    assert [root.head(VOLUME)] == moved
    # It stays that way, and says so.
    with pytest.raises(StoreError):
        late.commit()
    late.close()
    assert [root.head(VOLUME)] == moved
    with Session.read(root, root.head(VOLUME)) as reader:
        assert set(tree_of(reader.files)) == {"base", "early"}


def test_expired_lease_is_given_up_before_anybody_may_take_it() -> None:
    """A writer that could not renew in time does not publish, though nobody has taken its lease yet."""
    store = MemoryStore()
    root = Root.open_or_create(store, BASE)
    told = threading.Event()
    session = Session.write(root, VOLUME, SessionOptions(lease_seconds=0.6), on_lost=told.set)
    write_file(session.files, "f", b"")
    _rewrite(root, lambda record: {**record, "token": "of nobody", "expires": time.time() - 100})
    assert told.wait(30)
    with pytest.raises(LeaseLost):
        session.commit()
    assert not root.has_volume(VOLUME)
    with Session.write(root, VOLUME) as other:
        write_file(other.files, "g", b"")
        other.commit()
    session.close()
    with Session.read(root, root.head(VOLUME)) as reader:
        assert set(tree_of(reader.files)) == {"g"}


def test_two_sessions_do_not_share_directories(tmp_path: Path) -> None:
    """A second volume opened on the same directories is refused in words, and leaves the first as it was."""
    place = Place(tmp_path)
    root = root_of(place)
    with Session.write(root, VOLUME, options_of(place)) as session:
        write_file(session.files, "f", b"1")
        with pytest.raises(StoreError, match="used by another session"):
            Session.write(root, "other", options_of(place))
        session.commit()
    with Session.write(root, "other", SessionOptions()) as other:
        assert tree_of(other.files) == {}


def _give_to_somebody(root: Root) -> None:
    """Rewrites the lease as if a writer elsewhere had taken it over."""
    _rewrite(
        root,
        lambda record: {
            **record,
            "token": "another",
            "holder": "somebody",
            "host": "elsewhere",
            "pid": 1,
            "expires": time.time() + 600,
        },
    )


def _rewrite(root: Root, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    reference = root.lease_reference(VOLUME)
    record = LeaseRecord.decode(json.dumps(change(json.loads(root.store.read_bytes(reference)))).encode())
    root.store.write_bytes(reference, record.encode())
