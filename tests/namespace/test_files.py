"""What random programs cannot compare with a disk: holes to the byte, sharing, clearing, a mount's references."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from stowstore.namespace.attributes import NOW, AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT, Caller
from tests.namespace.sessions import Session
from tests.namespace.test_commit import get, put

ANNA = Caller(uid=1001, gid=1001)


def opened(files: FileSystem, name: bytes = b"f") -> int:
    return files.create(1, name, 0o666, os.O_RDWR, ROOT)[1]


def test_holes_and_data_are_told_apart_to_the_byte(session: Session) -> None:
    """SEEK_DATA and SEEK_HOLE see what was written, punched and zeroed; the end is a hole."""
    files = session.files
    handle = opened(files)
    files.write(handle, 100, b"x" * 50, ROOT)
    files.write(handle, 1000, b"x" * 50, ROOT)
    files.fallocate(handle, 3, 1010, 10, ROOT)
    files.setattr(2, AttributeChanges(size=2000), ROOT)
    data = [files.lseek(handle, at, os.SEEK_DATA) for at in (0, 120, 150, 1015)]
    holes = [files.lseek(handle, at, os.SEEK_HOLE) for at in (0, 120, 1000, 1020, 1500)]
    assert [100, 120, 1000, 1020] == data
    assert [0, 150, 1010, 1050, 1500] == holes
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        files.lseek(handle, 1050, os.SEEK_DATA)


@pytest.mark.parametrize(("mode", "size"), [(0, 300), (1, 100), (3, 100), (16, 300), (17, 100)])
def test_fallocate_keeps_the_size_where_it_is_asked_to(session: Session, mode: int, size: int) -> None:
    """KEEP_SIZE and punching leave the size alone, allocation and zeroing extend it."""
    files = session.files
    handle = opened(files)
    files.write(handle, 0, b"x" * 100, ROOT)
    files.fallocate(handle, mode, 50, 250, ROOT)
    assert size == files.getattr(2).size
    assert (b"x" * 100 if mode < 2 else b"x" * 50 + b"\0" * 50) == files.read(handle, 0, 100)


def test_copies_share_what_they_copy(session: Session) -> None:
    """A copied range needs no staging and no upload, and later writes to either side stay its own."""
    files = session.files
    put(files, b"source", b"a" * 5000)
    session.commit()
    staged, blocks = len(session.content.staging), len(session.content.blocks)
    source, target = files.open(2, os.O_RDWR, ROOT), opened(files)
    assert 4000 == files.copy_file_range(source, 1000, target, 10, 9000, ROOT)
    session.commit()
    assert (staged, blocks) == (len(session.content.staging), len(session.content.blocks))
    files.write(source, 1000, b"b" * 10, ROOT)
    assert b"\0" * 10 + b"a" * 4000 == get(files, b"f")
    assert 0 == files.copy_file_range(source, 5000, target, 0, 10, ROOT)


def test_appending_goes_to_the_end_whatever_the_offset(session: Session) -> None:
    """Two handles with O_APPEND never overwrite each other."""
    files = session.files
    put(files, b"log", b"0")
    first, second = (files.open(2, os.O_WRONLY | os.O_APPEND, ROOT) for _ in range(2))
    for handle, line in ((first, b"1"), (second, b"2"), (first, b"3")):
        files.write(handle, 0, line, ROOT)
    assert b"0123" == get(files, b"log")


@pytest.mark.parametrize(
    ("mode", "caller", "left"),
    [
        (0o6777, ANNA, 0o777),
        (0o2767, ANNA, 0o767),
        (0o2767, Caller(uid=1001, gid=0), 0o2767),
        (0o6777, ROOT, 0o6777),
    ],
)
def test_writing_takes_privileges_away(session: Session, mode: int, caller: Caller, left: int) -> None:
    """A write by who is not the superuser clears setuid, and setgid where it means one, with capabilities."""
    files = session.files
    handle = opened(files)
    files.setattr(2, AttributeChanges(mode=mode), ROOT)
    files.setxattr(2, b"security.capability", b"cap", ROOT)
    files.write(handle, 0, b"x", caller)
    assert left == stat.S_IMODE(files.getattr(2).mode)
    assert ([b"security.capability"] if caller.uid == 0 else []) == files.listxattr(2, ROOT)


def test_changing_the_owner_takes_privileges_away_from_files(session: Session) -> None:
    """Even the superuser's chown clears setuid and setgid of a file, never those of a directory."""
    files = session.files
    files.mknod(1, b"f", 0o6777, ROOT)
    files.mkdir(1, b"d", 0o777, ROOT)
    files.setattr(3, AttributeChanges(mode=0o2777), ROOT)
    modes = [stat.S_IMODE(files.setattr(ino, AttributeChanges(gid=5), ROOT).mode) for ino in (2, 3)]
    assert [0o777, 0o2777] == modes


def test_setgid_directories_hand_down_their_group(session: Session) -> None:
    """What is made below has the directory's group, and directories pass setgid on."""
    files = session.files
    files.mkdir(1, b"d", 0o777, ROOT)
    files.setattr(2, AttributeChanges(gid=77, mode=0o2777), ROOT)
    inner = files.mkdir(2, b"inner", 0o755, ANNA)
    below = files.mknod(inner.ino, b"f", 0o2775, ANNA)
    assert (77, 77) == (inner.gid, below.gid)
    assert (0o2755, 0o755) == (stat.S_IMODE(inner.mode), stat.S_IMODE(below.mode))


def test_times_move_as_they_should(session: Session) -> None:
    """A directory's mtime follows each change of its entries, reading moves nothing, NOW is our clock."""
    files = session.files
    ticks = iter(range(10**18, 10**19))
    files._now = lambda: next(ticks)
    directory = files.mkdir(1, b"d", 0o755, ROOT)
    seen = [directory.mtime_ns]
    for action in (
        lambda: files.mknod(2, b"a", 0o644, ROOT),
        lambda: files.link(3, 2, b"b", ROOT),
        lambda: files.rename(2, b"b", 2, b"c", ROOT),
        lambda: files.unlink(2, b"c", ROOT),
    ):
        action()
        seen.append(files.getattr(2).mtime_ns)
    assert sorted(set(seen)) == seen
    handle = files.open(3, os.O_RDWR, ROOT)
    files.write(handle, 0, b"x", ROOT)
    before = files.getattr(3)
    files.read(handle, 0, 1)
    assert before == files.getattr(3)
    assert before.btime_ns < before.mtime_ns == before.ctime_ns
    touched = files.setattr(3, AttributeChanges(atime=NOW, mtime=5), ROOT)
    assert (touched.ctime_ns, 5) == (touched.atime_ns, touched.mtime_ns)


def test_an_inode_lives_as_long_as_a_mount_knows_it(session: Session) -> None:
    """References taken without a handle keep a removed file alive until the last is given back."""
    files = session.files
    ino = put(files, b"f", b"content")
    files.retain(ino, 3)
    files.unlink(1, b"f", ROOT)
    files.forget(ino, 2)
    assert 0 == files.getattr(ino).nlink
    handle = files.open(ino, os.O_RDONLY, ROOT)
    files.forget(ino)
    assert b"content" == files.read(handle, 0, 10)
    files.release(handle)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        files.getattr(ino)


def test_a_file_of_a_petabyte_costs_nothing(session: Session) -> None:
    """Truncating to 10^15 bytes, and punching there, works on extents, not on bytes."""
    files = session.files
    handle = opened(files)
    files.setattr(2, AttributeChanges(size=10**15), ROOT)
    files.write(handle, 10**15 - 5, b"end", ROOT)
    files.fallocate(handle, 3, 0, 10**15 - 10, ROOT)
    session.commit()
    version = session.reader()
    found = version.getattr(2)
    assert (10**15, 1) == (found.size, found.blocks)
    assert b"\0\0end\0\0" == version.read(version.open(2, os.O_RDONLY, ROOT), 10**15 - 7, 100)
