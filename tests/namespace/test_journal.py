"""After fsync nothing is lost to the death of the process; the journal is never on the path of an operation."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import Any

import pytest

from stowstore.index.keys import entry_key, inode_key
from stowstore.namespace import journal_batch
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.namespace.renames import RenameFlags
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


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_holds_one_moment(journalled: Session, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever is changed, renamed, removed or committed while a batch is being taken, the journal has none of it."""
    chance = random.Random(seed)
    files = journalled.files
    monkeypatch.setattr(journal_batch, "_SLICE", chance.choice((1, 3)))
    for number in range(30):
        meddle(files, chance, number)
        if number == 10 and seed % 2:
            journalled.commit()
    frozen = files.freeze() if seed % 3 == 0 else None
    expected: list[Any] = []
    steps = iter(range(30, 70))

    def meddling(_: float) -> None:
        nonlocal frozen
        if not expected:
            pytest.fail("the moment has not been looked at")
        meddle(files, chance, next(steps, 1000))
        if frozen is not None and chance.random() < 0.1:
            files.commit_failed()
            frozen = None

    monkeypatch.setattr(journal_batch, "time", SimpleNamespace(sleep=meddling))
    expected.append(everything(files))
    files.fsync()
    assert everything(files) != expected[0]
    assert everything(journalled.crash()) == expected[0]


def meddle(files: FileSystem, chance: random.Random, number: int) -> None:
    """Some change or other of a flat directory."""
    names = list_names(files, 1, ROOT)
    name = chance.choice(names) if names else b""
    what = (
        chance.choice(("make", "make", "write", "rename", "unlink", "xattr", "mode", "swap", "link"))
        if names
        else "make"
    )
    ino = files.lookup(1, name, ROOT).ino if names else 0
    if what == "make":
        put(files, b"f%d" % number, b"%d" % number)
        files.setxattr(files.lookup(1, b"f%d" % number, ROOT).ino, b"user.made", b"%d" % number, ROOT)
    elif what == "write":
        handle = files.open(ino, os.O_RDWR, ROOT)
        files.write(handle, chance.randrange(4) * 5000, b"w%d" % number, ROOT)
        files.release(handle)
    elif what == "rename":
        files.rename(1, name, 1, chance.choice([*names, b"r%d" % number]), ROOT)
    elif what == "swap":
        files.rename(1, name, 1, chance.choice(names), ROOT, RenameFlags.EXCHANGE)
    elif what == "unlink":
        files.unlink(1, name, ROOT)
    elif what == "xattr":
        files.setxattr(ino, b"user.made", b"x%d" % number, ROOT)
    elif what == "mode":
        files.setattr(ino, AttributeChanges(mode=chance.randrange(0o1000)), ROOT)
    else:
        files.link(ino, 1, b"l%d" % number, ROOT)


def everything(files: FileSystem) -> dict[bytes, Any]:
    """All that a flat directory shows."""
    found: dict[bytes, Any] = {b"": (files.getattr(1), files.usage())}
    for name in list_names(files, 1, ROOT):
        about = files.lookup(1, name, ROOT)
        found[name] = (about, get(files, name), files.getxattr(about.ino, b"user.made", ROOT))
    return found
