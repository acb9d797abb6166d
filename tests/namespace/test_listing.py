"""Listings: complete, in order, continued from any cookie, and stable while the directory changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowstore.index.keys import entry_key
from stowstore.index.node import LEAF_RECORDS
from stowstore.index.records import CorruptRecord, EntryRecord
from stowstore.namespace.handles import DirectoryStream
from stowstore.namespace.inodes import Inode
from stowstore.namespace.permissions import ROOT
from tests.namespace.paths import list_names
from tests.namespace.sessions import Session


def test_every_entry_is_seen_once_while_they_are_removed(session: Session) -> None:
    """Removing each entry as it is read skips none, committed or not."""
    files = session.files
    names = [b"%05d" % number for number in range(3000)]
    for name in names[::2]:
        files.mknod(1, name, 0o644, ROOT)
    session.commit()
    for name in names[1::2]:
        files.mknod(1, name, 0o644, ROOT)
    handle = files.opendir(1, ROOT)
    seen: list[bytes] = []
    cookie = 0
    while entries := files.readdir(handle, cookie, 100):
        for entry in entries:
            if entry.name not in (b".", b".."):
                files.unlink(1, entry.name, ROOT)
                seen.append(entry.name)
        cookie = entries[-1].cookie
    assert names == seen
    assert [b".", b".."] == [entry.name for entry in files.readdir(handle, 0, 100)]
    files.releasedir(handle)


def test_attributes_of_entries_that_are_gone_are_none(session: Session) -> None:
    """Readdirplus gives present attributes, and none for what was removed after reading began."""
    files = session.files
    files.mknod(1, b"gone", 0o644, ROOT)
    kept = files.mknod(1, b"kept", 0o644, ROOT)
    handle = files.opendir(1, ROOT)
    (dot,) = files.readdirplus(handle, 0, 1)
    assert files.getattr(1) == dot.attributes
    files.unlink(1, b"gone", ROOT)
    found = {entry.name: entry.attributes for entry in files.readdirplus(handle, dot.cookie)}
    assert {b"gone": None, b"kept": kept} == {name: found[name] for name in (b"gone", b"kept")}
    files.releasedir(handle)


def test_attributes_that_lie_far_apart_are_left_to_who_asks_for_them(session: Session) -> None:
    """Listing directories that were each filled before the next was made reads few leaves of the index, and no more
    attributes than lie there; what is left out is found by looking it up."""
    files = session.files
    names = [b"d%03d" % number for number in range(40)]
    for name in names:
        made = files.mkdir(1, name, 0o755, ROOT).ino
        for number in range(2 * LEAF_RECORDS):
            files.mknod(made, b"f%d" % number, 0o644, ROOT)
    session.commit()
    session.merge()
    for read_only in (True, False):
        files = session.reader() if read_only else session.reopen()
        handle = files.opendir(1, ROOT)
        entries = files.readdir(handle, 0, 100)
        before = files.snapshot.cache.fetched
        found = files.present(1, entries)
        assert files.snapshot.cache.fetched - before < len(names) // 2
        shown = {entry.name: one for entry, one in zip(entries, found, strict=True) if one is not None}
        assert 5 <= len(shown) < len(names)
        for name in names:
            looked_up = files.look_up(1, name)
            assert looked_up is not None
            assert shown.get(name, looked_up) == looked_up
        assert None not in files.present(1, entries)[2:]
        files.releasedir(handle)
        if read_only:
            files.close()


def test_a_listing_begins_when_it_is_read(session: Session) -> None:
    """What is made after opening and before reading is listed, and what is removed is not: kernels keep the answer."""
    files = session.files
    files.mknod(1, b"gone", 0o644, ROOT)
    handle = files.opendir(1, ROOT)
    files.unlink(1, b"gone", ROOT)
    files.mknod(1, b"new", 0o644, ROOT)
    assert [b".", b"..", b"new"] == [entry.name for entry in files.readdir(handle)]
    files.releasedir(handle)


def test_a_removed_directory_lists_nothing(session: Session) -> None:
    """Who holds a removed directory open finds it empty, dots included, when reading from the start."""
    files = session.files
    ino = files.mkdir(1, b"d", 0o755, ROOT).ino
    handle = files.opendir(ino, ROOT)
    assert 2 == len(files.readdir(handle))
    files.rmdir(1, b"d", ROOT)
    assert [] == files.readdir(handle)
    files.releasedir(handle)


@pytest.mark.parametrize("name", [b"a/b", b"a\0b", b"..", b"."])
def test_impossible_names_are_reported(session: Session, name: bytes) -> None:
    """A version with a hostile entry is not listed."""
    session.commit()
    session.files.freeze()
    session.publish({entry_key(1, name): EntryRecord(1, 0o040000).encode()})
    with pytest.raises(CorruptRecord, match="impossible name"):
        list_names(session.reader(), 1, ROOT)


def test_a_circle_of_directories_is_reported(session: Session) -> None:
    """Directories that hostile metadata make their own ancestors do not hang a rename."""
    files = session.files
    first = files.mkdir(1, b"first", 0o755, ROOT).ino
    second = files.mkdir(first, b"second", 0o755, ROOT).ino
    files.mkdir(1, b"mover", 0o755, ROOT)
    files._overlay.inode(first).parent = second  # type: ignore[union-attr]
    with pytest.raises(CorruptRecord, match="circle"):
        files.rename(1, b"mover", second, b"x", ROOT)


@settings(deadline=None, max_examples=60)
@given(
    stored=st.integers(0, 2600),
    added=st.sets(st.integers(0, 2600), max_size=40),
    removed=st.sets(st.integers(0, 2600), max_size=40),
    reads=st.lists(st.tuples(st.integers(0, 2700), st.integers(1, 1500)), max_size=12),
)
def test_a_stream_reads_from_any_cookie(
    stored: int, added: set[int], removed: set[int], reads: list[tuple[int, int]]
) -> None:
    """Reading at cookies in any order gives what the whole listing holds there."""
    session = Session()
    base = {entry_key(1, b"%05d" % number): EntryRecord(number + 2, 0o100000).encode() for number in range(stored)}
    session.files.freeze()
    session.publish(base)
    changes: dict[bytes, EntryRecord | None] = {b"%05d" % number: None for number in removed}
    changes |= {b"%05d+" % number: EntryRecord(number + 5000, 0o100000) for number in added}
    node = Inode(1, 0o040755, 0, 0, 2, 0)
    node.parent = 1
    stream = DirectoryStream(node, session.files.snapshot, changes)
    kept = [b"%05d" % number for number in range(stored) if number not in removed]
    expected = [b".", b"..", *sorted(kept + [b"%05d+" % number for number in added])]
    for cookie, count in reads:
        found = stream.read(cookie, count)
        assert expected[cookie : cookie + count] == [entry.name for entry in found]
        assert list(range(cookie + 1, cookie + len(found) + 1)) == [entry.cookie for entry in found]
