"""Commit takes one moment, writes what changed, and leaves the file system usable meanwhile."""

from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from stowstore.index.keys import SUPERBLOCK, entry_key, extents_prefix, inode_key, xattr_key
from stowstore.index.records import InodeRecord, Superblock
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from tests.namespace.paths import list_names
from tests.namespace.sessions import Session


def put(files: FileSystem, name: bytes, data: bytes, parent: int = 1) -> int:
    """A file with content."""
    attributes, handle = files.create(parent, name, 0o644, os.O_RDWR, ROOT)
    files.write(handle, 0, data, ROOT)
    files.release(handle)
    return attributes.ino


def get(files: FileSystem, name: bytes, parent: int = 1) -> bytes:
    """The content of a file."""
    handle = files.open(files.lookup(parent, name, ROOT).ino, os.O_RDONLY, ROOT)
    try:
        return files.read(handle, 0, 1 << 20)
    finally:
        files.release(handle)


def test_a_commit_holds_the_moment_of_the_freeze(session: Session) -> None:
    """What is changed, made, removed and renamed after the freeze is not in the version, and is in the next."""
    files = session.files
    for name in (b"written", b"grown", b"removed", b"renamed"):
        put(files, name, b"before")
    frozen = files.freeze()
    handle = files.open(files.lookup(1, b"written", ROOT).ino, os.O_WRONLY, ROOT)
    files.write(handle, 0, b"after!", ROOT)
    files.release(handle)
    files.setattr(files.lookup(1, b"grown", ROOT).ino, AttributeChanges(size=2, mode=0o600), ROOT)
    files.unlink(1, b"removed", ROOT)
    files.rename(1, b"renamed", 1, b"new name", ROOT)
    put(files, b"made", b"after")
    frozen.flush(None)
    session.publish(frozen.records())

    version = session.reader()
    assert [b"grown", b"removed", b"renamed", b"written"] == list_names(version, 1, ROOT)
    assert {b"before"} == {get(version, name) for name in (b"written", b"grown", b"removed", b"renamed")}
    assert 0o644 == stat.S_IMODE(version.lookup(1, b"grown", ROOT).mode)
    session.commit()
    version = session.reader()
    assert [b"grown", b"made", b"new name", b"written"] == list_names(version, 1, ROOT)
    assert [b"be", b"after", b"before", b"after!"] == [get(version, name) for name in list_names(version, 1, ROOT)]


def test_a_commit_given_up_loses_nothing(session: Session) -> None:
    """After a store refused writes, the next commit has both what was frozen and what came later."""
    files = session.files
    put(files, b"early", b"1")
    put(files, b"gone", b"2")
    session.content.fail_flush = PermissionError("the store refuses writes")
    frozen = files.freeze()
    put(files, b"late", b"3")
    files.unlink(1, b"gone", ROOT)
    with pytest.raises(PermissionError):
        frozen.flush(None)
    files.commit_failed()
    session.content.fail_flush = None
    assert b"1" == get(files, b"early")
    session.commit()
    assert [b"early", b"late"] == list_names(session.reader(), 1, ROOT)
    assert [b"1", b"3"] == [get(session.reader(), name) for name in (b"early", b"late")]


def test_only_one_commit_is_written_at_a_time(session: Session) -> None:
    """A second freeze says what to do; giving up twice does no harm."""
    session.files.freeze()
    with pytest.raises(RuntimeError, match="commit_failed"):
        session.files.freeze()
    session.files.commit_failed()
    session.files.commit_failed()
    session.commit()


def test_freezing_takes_no_copies(session: Session) -> None:
    """A freeze swaps the layers, however much has changed; inodes are captured when they are changed again."""
    files = session.files
    inos = [files.mknod(1, b"%d" % number, 0o644, ROOT).ino for number in range(1000)]
    live = files._overlay.live.inodes
    files.freeze()
    frozen = files._overlay.frozen
    assert frozen is not None
    assert frozen.inodes is live
    assert not frozen.captured
    files.setattr(inos[7], AttributeChanges(mode=0o600), ROOT)
    assert [inos[7]] == list(frozen.captured)


def test_what_was_made_and_removed_between_commits_leaves_nothing(session: Session) -> None:
    """Inodes and whole trees that no version has seen need no tombstones."""
    files = session.files
    session.commit()
    directory = files.mkdir(1, b"d", 0o755, ROOT).ino
    ino = put(files, b"f", b"x", directory)
    files.setxattr(ino, b"user.x", b"1", ROOT)
    files.unlink(directory, b"f", ROOT)
    files.rmdir(1, b"d", ROOT)
    changes = session.commit()
    assert {entry_key(1, b"d"): None} == {key: value for key, value in changes.items() if value is None}
    assert {inode_key(1), entry_key(1, b"d"), SUPERBLOCK} == set(changes)


def test_removing_a_file_removes_all_its_records(session: Session) -> None:
    """With the inode go the extents under keys of their own and the extended attributes."""
    files = session.files
    _, handle = files.create(1, b"many", 0o644, os.O_RDWR, ROOT)
    for piece in range(40):
        files.write(handle, piece * 8192, b"x" * 100, ROOT)
    files.release(handle)
    ino = files.lookup(1, b"many", ROOT).ino
    files.setxattr(ino, b"user.x", b"1", ROOT)
    assert any(key.startswith(extents_prefix(ino)) for key in session.commit())
    files = session.reopen()
    files.unlink(1, b"many", ROOT)
    session.commit()
    left = [key for key, _ in files.snapshot.scan()]
    assert [inode_key(1), SUPERBLOCK] == left
    assert Superblock(next_ino=3) == Superblock.decode(files.snapshot.get(SUPERBLOCK) or b"")


def test_nothing_changed_is_empty(session: Session) -> None:
    """A second commit has nothing to write."""
    session.commit()
    frozen = session.files.freeze()
    assert frozen.is_empty
    assert {} == frozen.records()


def test_an_open_file_without_a_name_survives_for_its_holder_only(session: Session) -> None:
    """An unlinked file and one made with O_TMPFILE are in no version, and go on through commits."""
    files = session.files
    put(files, b"unlinked", b"content")
    handle = files.open(files.lookup(1, b"unlinked", ROOT).ino, os.O_RDWR, ROOT)
    files.unlink(1, b"unlinked", ROOT)
    _, nameless = files.tmpfile(1, 0o600, os.O_RDWR, ROOT)
    files.write(nameless, 0, b"temporary", ROOT)
    changes = session.commit()
    assert {inode_key(1), SUPERBLOCK} == set(changes)
    assert 1 == Superblock.decode(changes[SUPERBLOCK] or b"").inode_count
    files.write(handle, 7, b", and more", ROOT)
    assert b"content, and more" == files.read(handle, 0, 100)
    assert b"temporary" == files.read(nameless, 0, 100)
    usage = files._usage
    assert (2, 26) == (usage.orphan_inodes, usage.orphan_bytes)
    files.release(handle)
    files.release(nameless)
    assert (0, 0) == (usage.orphan_inodes, usage.orphan_bytes)


def test_a_nameless_file_can_be_linked_in(session: Session) -> None:
    """O_TMPFILE and link put a whole file in its place at once; with O_EXCL the file stays nameless."""
    files = session.files
    attributes, handle = files.tmpfile(1, 0o640, os.O_RDWR, ROOT)
    files.write(handle, 0, b"whole", ROOT)
    files.setxattr(attributes.ino, b"user.x", b"1", ROOT)
    assert 1 == files.link(attributes.ino, 1, b"named", ROOT).nlink
    files.release(handle)
    session.commit()
    version = session.reader()
    assert b"whole" == get(version, b"named")
    assert b"1" == version.getxattr(attributes.ino, b"user.x", ROOT)
    attributes, handle = files.tmpfile(1, 0o640, os.O_RDWR | os.O_EXCL, ROOT)
    with pytest.raises(FileNotFoundError):
        files.link(attributes.ino, 1, b"never", ROOT)


def test_numbers_are_never_used_again(session: Session) -> None:
    """An inode's number stays its own after the file is gone and the volume was opened again."""
    seen = set()
    for _ in range(3):
        ino = put(session.files, b"f", b"x")
        session.commit()
        session.files.unlink(1, b"f", ROOT)
        session.commit()
        session.reopen()
        assert ino not in seen
        seen.add(ino)


def test_content_is_flushed_in_directory_order(session: Session) -> None:
    """Files go into packs as a listing meets them, not as they were written."""
    files = session.files
    second = files.mkdir(1, b"z", 0o755, ROOT).ino
    order = [put(files, name, b"x", parent) for parent, name in ((second, b"b"), (1, b"c"), (second, b"a"), (1, b"b"))]
    session.commit()
    assert [[order[3], order[1], order[2], order[0]]] == session.content.flushed


def test_a_reader_loads_nothing_before_it_is_asked(session: Session) -> None:
    """Opening a version read-only makes no request; one lookup reads a few nodes of a large directory."""
    for number in range(5000):
        session.files.mknod(1, b"%05d" % number, 0o644, ROOT)
    session.commit()
    session.merge()
    session.nodes.reads = 0
    reader = session.reader()
    assert 0 == session.nodes.reads
    reader.lookup(1, b"04711", ROOT)
    assert session.nodes.reads <= 6
    assert 5001 == reader._usage.inode_count


def test_an_entry_without_its_inode_is_an_error(session: Session) -> None:
    """A damaged index is reported, not followed."""
    ino = put(session.files, b"f", b"x")
    changes = session.commit()
    session.ref = type(session.ref)()
    session.files = session._open(session.ref)
    damaged = {key: value for key, value in changes.items() if key != inode_key(ino)}
    session.files.freeze()
    session.publish(damaged)
    with pytest.raises(OSError, match="does not exist") as caught:
        session.reader().lookup(1, b"f", ROOT)
    assert errno.EIO == caught.value.errno


def test_attributes_survive(session: Session) -> None:
    """Everything stat shows, and attributes of every class, come back from a version."""
    files = session.files
    ino = put(files, b"f", b"x" * 5000)
    changes = AttributeChanges(mode=0o4751, uid=7, gid=2**32 - 2, atime=-5, mtime=2**62)
    files.setattr(ino, changes, ROOT)
    device = files.mknod(1, b"d", stat.S_IFBLK | 0o600, ROOT, os.makedev(8, 1))
    for name in (b"user.x", b"trusted.x", b"security.x"):
        files.setxattr(ino, name, name * 3, ROOT)
    before = files.getattr(ino)
    assert xattr_key(ino, b"user.x") in session.commit()
    version = session.reader()
    assert before == version.getattr(ino)
    assert device == version.lookup(1, b"d", ROOT)
    assert (5000, 10) == (before.size, before.blocks)
    assert [b"security.x", b"trusted.x", b"user.x"] == version.listxattr(ino, ROOT)
    record = InodeRecord.decode(version.snapshot.get(inode_key(ino)) or b"")
    assert (True, 5000) == (record.xattrs, record.allocated)


@pytest.mark.parametrize(("asked", "kept"), [(2**64 * 10**9, 2**63 - 1), (-(2**70), -(2**63)), (2**62, 2**62)])
def test_times_beyond_64_bits_are_the_nearest_that_can_be_kept(session: Session, asked: int, kept: int) -> None:
    """A time no record can hold becomes the first or last one that it can, and the version can be written."""
    files = session.files
    ino = put(files, b"f", b"x")
    files.setattr(ino, AttributeChanges(atime=asked, mtime=asked), ROOT)
    session.commit()
    found = session.reader().getattr(ino)
    assert (found.atime_ns, found.mtime_ns) == (kept, kept)


def test_operations_go_on_in_threads_while_commits_are_written(session: Session) -> None:
    """Many threads make, write, rename and remove while versions are made; every version is whole."""
    files = session.files
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            directory = files.mkdir(1, b"%d" % number, 0o755, ROOT).ino
            for turn in range(150):
                put(files, b"new", b"%d" % turn * 10, directory)
                files.rename(directory, b"new", directory, b"current", ROOT)
                assert b"%d" % turn * 10 == get(files, b"current", directory)
            files.unlink(directory, b"current", ROOT)
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        session.commit()
        version = session.reader()
        for name in list_names(version, 1, ROOT):
            directory = version.lookup(1, name, ROOT).ino
            for inner in list_names(version, directory, ROOT):
                data = get(version, inner, directory)
                assert data == data[: len(data) // 10] * 10
    for thread in threads:
        thread.join()
    assert [] == problems
    session.commit()
    assert 5 == session.reader().statfs().files - session.reader().statfs().files_free
