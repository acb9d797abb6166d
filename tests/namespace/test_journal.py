"""After fsync nothing is lost to the death of the process; the journal is never on the path of an operation."""

from __future__ import annotations

import os

import pytest

from stowstore.index.keys import entry_key, inode_key
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.permissions import ROOT
from tests.namespace.paths import list_names
from tests.namespace.sessions import MemoryMetaStore, Session
from tests.namespace.test_commit import get, put


def store(session: Session) -> MemoryMetaStore:
    assert session.metastore is not None
    return session.metastore


def test_what_was_synced_survives_a_crash(journalled: Session) -> None:
    """Content, names, attributes, removals and counters come back as they were at the last fsync."""
    files = journalled.files
    put(files, b"kept", b"1")
    put(files, b"gone", b"2")
    journalled.commit()
    files.unlink(1, b"gone", ROOT)
    files.rename(1, b"kept", 1, b"moved", ROOT)
    ino = put(files, b"new", b"3")
    files.setxattr(ino, b"user.x", b"1", ROOT)
    files.fsync()
    usage = files._usage.record()
    put(files, b"never synced", b"4")
    files = journalled.crash()
    assert [b"moved", b"new"] == list_names(files, 1, ROOT)
    assert (b"1", b"3") == (get(files, b"moved"), get(files, b"new"))
    assert b"1" == files.getxattr(ino, b"user.x", ROOT)
    assert usage == files._usage.record()
    journalled.commit()
    assert [b"1", b"3"] == [get(journalled.reader(), name) for name in (b"moved", b"new")]


def test_a_file_of_many_extents_survives_a_crash(journalled: Session) -> None:
    """Extents under keys of their own are journalled, staged ones too, over those of the version."""
    files = journalled.files
    attributes, handle = files.create(1, b"many", 0o644, os.O_RDWR, ROOT)
    for piece in range(30):
        files.write(handle, piece * 8192, b"a" * 100, ROOT)
    journalled.commit()
    for piece in range(0, 30, 3):
        files.write(handle, piece * 8192, b"b" * 50, ROOT)
    files.fsync(handle)
    expected = files.read(handle, 0, 1 << 20)
    for reopened in (journalled.crash, journalled.crash):
        files = reopened()
        assert expected == get(files, b"many")
    journalled.commit()
    assert expected == get(journalled.reader(), b"many")
    files.setattr(attributes.ino, AttributeChanges(size=100), ROOT)
    files.fsync()
    assert expected[:100] == get(journalled.crash(), b"many")


def test_a_crash_while_a_commit_is_written_loses_nothing(journalled: Session) -> None:
    """The journal holds the frozen changes and the later ones until the new version stands below."""
    files = journalled.files
    put(files, b"frozen", b"1")
    frozen = files.freeze()
    put(files, b"later", b"2")
    frozen.flush(None)
    frozen.records()
    files = journalled.crash()
    assert (b"1", b"2") == (get(files, b"frozen"), get(files, b"later"))


def test_the_journal_starts_over_with_a_commit(journalled: Session) -> None:
    """What a version holds is dropped from the journal, what came after the freeze stays, and the meta is set."""
    files = journalled.files
    first = put(files, b"first", b"1")
    frozen = files.freeze()
    second = put(files, b"second", b"2")
    frozen.flush(None)
    changes = frozen.records()
    assert inode_key(first) in store(journalled).records
    journalled.publish(changes)
    kept = store(journalled).records
    assert inode_key(first) not in kept
    assert {inode_key(second), entry_key(1, b"second")} <= set(kept)
    assert (b"1", b"2") == (get(journalled.crash(), b"first"), get(journalled.files, b"second"))


def test_a_journal_that_fails_is_tried_again(journalled: Session) -> None:
    """A full disk makes fsync fail; when there is room again, the next one keeps everything."""
    files = journalled.files
    put(files, b"f", b"1")
    store(journalled).fail = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        files.fsync()
    store(journalled).fail = None
    put(files, b"g", b"2")
    files.fsync()
    assert [b"f", b"g"] == list_names(journalled.crash(), 1, ROOT)


def test_a_removed_inode_takes_its_journalled_records_along(journalled: Session) -> None:
    """Extended attributes journalled before the removal do not come back."""
    files = journalled.files
    ino = put(files, b"f", b"1")
    files.setxattr(ino, b"user.x", b"1", ROOT)
    files.fsync()
    files.unlink(1, b"f", ROOT)
    files.fsync()
    files = journalled.crash()
    assert [] == list_names(files, 1, ROOT)
    assert {} == files._overlay.live.xattrs
    assert {inode_key(1)} == {key for key in journalled.commit() if key.startswith(b"i")}


def test_the_background_journals_without_being_asked() -> None:
    """Changes reach the journal within the interval, in a batch of their own."""
    session = Session(journal=True)
    session.files.close()
    files = session.files = session._open(session.ref)
    assert files.journal is not None
    files.journal._interval = 0.01
    files.journal.start()
    put(files, b"f", b"1")
    for _ in range(1000):
        if entry_key(1, b"f") in store(session).records:
            break
        files.journal._stopping.wait(0.01)
    files.close()
    assert entry_key(1, b"f") in store(session).records
    assert files.journal.failure is None
