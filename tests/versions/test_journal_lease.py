"""What keeps the blocks that only a journal refers to, after its session has ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from datastore.errors import TransientError
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule
from stowstore.chunks.block import BlockRef, PackKind
from stowstore.config import ContainerPolicy
from stowstore.namespace.metastore import open_metastore
from stowstore.namespace.permissions import ROOT
from stowstore.versions.address import open_root
from stowstore.versions.collect import DAY, CollectionReport, collect
from stowstore.versions.journal_lease import JOURNAL_LEASE_SECONDS, JournalLease
from stowstore.versions.lease import Lease, read_lease
from stowstore.versions.options import SessionOptions
from stowstore.versions.recovering import recover_journal
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session
from tests.chunks.chunk_stores import noise

MIB = 1 << 20
SIZE = 9 * MIB


@pytest.fixture
def options(tmp_path: Path) -> SessionOptions:
    return SessionOptions(meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    found = open_root(f"file://{tmp_path}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
    with closing(found.store):
        yield found


def opened(root: Root, options: SessionOptions, volume: str = "data") -> Session:
    return Session.write(root, volume, options)


def write(session: Session, name: str = "file", seed: int = 0) -> None:
    """Writes a file and waits until it refers to blocks as far as it will."""
    files = session.files
    _, handle = files.create(1, name.encode(), 0o644, os.O_RDWR, ROOT)
    for at in range(0, SIZE, MIB):
        files.write(handle, at, noise(SIZE, seed)[at : at + MIB], ROOT)
    node = files._file(handle).node
    for _ in range(1000):
        with files._lock:
            staged = [piece.length for piece in node.extents.pieces(0, SIZE) if not isinstance(piece.source, BlockRef)]
        if sum(staged) == MIB:
            files.fsync(handle)
            files.release(handle)
            return
        time.sleep(0.01)
    pytest.fail("the file does not come to refer to blocks")


def read(session: Session, name: str = "file") -> bytes:
    found = session.files.lookup(1, name.encode(), ROOT)
    handle = session.files.open(found.ino, os.O_RDONLY, ROOT)
    try:
        return session.files.read(handle, 0, SIZE)
    finally:
        session.files.release(handle)


def leases(root: Root) -> list[str]:
    """The journals' leases there are."""
    found = root.store.walk(root.base.join("leases"), directory=True)
    return [entry.reference.name for entry in found if entry.reference.name.startswith("_journal-")]


def collected(root: Root, options: SessionOptions, *, after: float) -> CollectionReport:
    """A collection so many seconds from now."""
    with Session.write(root, "another", SessionOptions()) as session:
        return collect(
            root,
            session.chunks,
            dry_run=False,
            force=True,
            now=lambda: time.time() + after,
            sleep=lambda _: None,
        )


def test_what_a_journal_refers_to_is_not_collected(root: Root, options: SessionOptions) -> None:
    """Data that were synced and never committed are there days later, whatever was collected in between."""
    with opened(root, options) as session:
        write(session)
    assert len(leases(root)) == 1
    report = collected(root, options, after=20 * DAY)
    assert (report.deleted, len(report.young)) == (0, 2)
    assert [str(lease).partition(" of ")[0] for lease in report.keepers] == ["uncommitted work"]
    with opened(root, options) as session:
        assert read(session) == noise(SIZE)
        session.commit()
        assert leases(root) == []
    assert collected(root, options, after=20 * DAY).deleted == 0
    with opened(root, options) as session:
        assert read(session) == noise(SIZE)


def test_a_journal_that_nobody_comes_back_for_is_given_up(root: Root, options: SessionOptions) -> None:
    """A month later its blocks are garbage: a machine that is gone does not stop collection for ever."""
    with opened(root, options) as session:
        write(session)
    assert collected(root, options, after=JOURNAL_LEASE_SECONDS + 2 * DAY).deleted == 2
    assert leases(root) == []


def test_a_session_that_goes_on_keeps_what_the_last_one_had(root: Root, options: SessionOptions) -> None:
    """However often a volume is opened and closed before it is committed."""
    for number in range(3):
        with opened(root, options) as session:
            write(session, f"file{number}", number)
        assert len(leases(root)) == 1
    assert collected(root, options, after=20 * DAY).deleted == 0
    with opened(root, options) as session:
        assert [read(session, f"file{number}") for number in range(3)] == [noise(SIZE, number) for number in range(3)]


def test_a_recovered_journal_needs_it_no_more(root: Root, options: SessionOptions) -> None:
    """What somebody else's commit has stranded is kept until it is a volume of its own."""
    with opened(root, options) as session:
        session.commit()
        write(session)
    with opened(root, SessionOptions()) as other:
        write(other, "other", 1)
        other.commit()
    assert collected(root, options, after=20 * DAY).deleted == 0
    recover_journal(root, "data", "saved", options)
    assert leases(root) == []
    with opened(root, SessionOptions(), "saved") as session:
        assert read(session) == noise(SIZE)


@pytest.mark.parametrize("ending", ["commit", "remove", "discard"])
def test_nothing_is_kept_for_an_empty_journal(root: Root, options: SessionOptions, ending: str) -> None:
    """A session that leaves nothing uncommitted leaves no lease."""
    session = opened(root, options)
    session.commit()
    write(session)
    if ending == "remove":
        session.files.unlink(1, b"file", ROOT)
    if ending != "discard":
        session.commit()
    session.close(discard=ending == "discard")
    assert leases(root) == []


def test_a_failed_commit_keeps_everything(root: Root, options: SessionOptions) -> None:
    """The leases that a commit was to end stay until one succeeds."""
    faulty = FaultyStore(root.store)
    failing = Root.open(faulty, root.base, address=root.address)
    session = opened(failing, options)
    write(session)
    faulty.add(Rule(Raise(), operations=[Operation.WRITE], keys="*versions*"))
    for _ in range(2):
        with pytest.raises(TransientError):
            session.commit()
        assert len(leases(root)) == 1
    write(session, "more", 1)
    faulty.clear()
    session.commit()
    session.close()
    assert leases(root) == []


def test_sessions_without_a_journal_need_none(root: Root) -> None:
    """What is not committed ends with them anyway."""
    with opened(root, SessionOptions()) as session:
        write(session)
        assert leases(root) == []


def test_the_lease_is_extended_once_a_day(root: Root, options: SessionOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the session that needs it, for as long as that lasts."""
    assert options.meta_dir is not None
    lease = Lease(root.store, root.lease_reference("data"))
    with closing(open_metastore("sqlite", options.meta_dir)) as metastore:
        kept = JournalLease(root, metastore, lease.record)
        kept.extend()
        assert leases(root) == []
        kept.require()
        (name,) = leases(root)

        def expires() -> float:
            found = read_lease(root.store, root.base.join("leases", name))
            assert found is not None
            assert found.started == lease.record.started
            return found.expires

        first, clock = expires(), time.monotonic
        for days, is_later in ((0.9, False), (1.1, True)):
            monkeypatch.setattr(time, "monotonic", lambda days=days: clock() + days * DAY)
            kept.extend()
            assert (expires() > first) is is_later
        monkeypatch.undo()
    lease.release()


def test_packs_are_all_that_is_kept(root: Root, options: SessionOptions) -> None:
    """Of a closed session nothing is left in the root but its packs and the lease."""
    with opened(root, options) as session:
        write(session)
        found = list(session.chunks.list_packs(PackKind.DATA))
        assert len(found) == 2
    left = {entry.reference.key.split("/")[-2] for entry in root.store.walk(root.base.join("leases"), directory=True)}
    assert left == {"leases"}
