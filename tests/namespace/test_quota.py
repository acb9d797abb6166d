"""Limits in bytes and inodes: refused before anything is accepted, and what statfs shows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.permissions import ROOT
from tests.namespace.sessions import Session
from tests.namespace.test_commit import get, put


def no_space(action: Callable[[], Any]) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        action()
    assert errno.ENOSPC == caught.value.errno


def test_bytes_are_limited_by_what_extents_cover(session: Session) -> None:
    """Holes are free, overwriting costs nothing again, and a refused write has changed nothing."""
    files = session.files
    files.set_limits(limit_bytes=10_000)
    _, handle = files.create(1, b"f", 0o644, os.O_RDWR, ROOT)
    files.setattr(2, AttributeChanges(size=10**15), ROOT)
    files.write(handle, 10**12, b"x" * 9_000, ROOT)
    no_space(lambda: files.write(handle, 0, b"y" * 1_001, ROOT))
    assert b"\0" * 10 == files.read(handle, 0, 10)
    files.write(handle, 10**12, b"y" * 9_000, ROOT)
    files.write(handle, 0, b"y" * 1_000, ROOT)
    no_space(lambda: files.write(handle, 2_000, b"y", ROOT))
    no_space(lambda: files.copy_file_range(handle, 0, handle, 2_000, 1, ROOT))
    files.fallocate(handle, 3, 10**12, 4_000, ROOT)
    files.write(handle, 2_000, b"y" * 4_000, ROOT)
    assert 10_000 == files._usage.used_bytes


def test_inodes_are_limited(session: Session) -> None:
    """No further inode is made beyond the limit, of any kind, nameless ones included."""
    files = session.files
    files.set_limits(limit_inodes=2)
    files.mknod(1, b"f", 0o644, ROOT)
    no_space(lambda: files.mknod(1, b"g", 0o644, ROOT))
    no_space(lambda: files.mkdir(1, b"g", 0o755, ROOT))
    no_space(lambda: files.symlink(1, b"g", b"f", ROOT))
    no_space(lambda: files.tmpfile(1, 0o600, os.O_RDWR, ROOT))
    files.link(2, 1, b"another name", ROOT)
    files.unlink(1, b"f", ROOT)
    files.unlink(1, b"another name", ROOT)
    files.mknod(1, b"g", 0o644, ROOT)


def test_unlinked_but_open_files_count(session: Session) -> None:
    """A limit cannot be got around by removing files that stay open."""
    files = session.files
    files.set_limits(limit_bytes=1_000, limit_inodes=2)
    put(files, b"f", b"x" * 1_000)
    handle = files.open(2, os.O_RDWR, ROOT)
    files.unlink(1, b"f", ROOT)
    no_space(lambda: files.mknod(1, b"g", 0o644, ROOT))
    files.release(handle)
    put(files, b"g", b"y" * 1_000)


def test_statfs_shows_the_limits(session: Session) -> None:
    """Size and free space are those of the limits, or plenty; names have up to 255 bytes."""
    files = session.files
    assert files.statfs().blocks_free * 4096 >= 1 << 50
    put(files, b"f", b"x" * 8_192)
    files.set_limits(limit_bytes=4096 * 10, limit_inodes=5)
    assert (4096, 10, 8, 5, 3, 255) == tuple(files.statfs())


def test_limits_and_counters_are_committed(session: Session) -> None:
    """The next session goes on with the same limits and counters."""
    session.files.set_limits(limit_bytes=100, limit_inodes=3)
    put(session.files, b"f", b"x" * 60)
    session.commit()
    files = session.reopen()
    no_space(lambda: put(files, b"g", b"x" * 60))
    assert (60, 3) == (files._usage.used_bytes, files._usage.inode_count)


def test_a_full_staging_area_is_told_and_loses_nothing(session: Session) -> None:
    """When the cache directory has no room, the write fails with ENOSPC and the file is as before."""
    files = session.files
    ino = put(files, b"f", b"before")
    session.content.fail_stage = OSError(errno.ENOSPC, "No space left on device")
    handle = files.open(ino, os.O_RDWR, ROOT)
    before = files.getattr(ino)
    no_space(lambda: files.write(handle, 0, b"after", ROOT))
    assert before == files.getattr(ino)
    assert b"before" == get(files, b"f")


_END = (1 << 63) - 1


@pytest.mark.parametrize(
    ("held", "offset", "length", "flags", "expected"),
    [
        pytest.param([(0, 4_000)], 4_000, 6_000, 0, 6_000, id="all fits, to the byte"),
        pytest.param([(0, 4_000)], 4_000, 6_001, 0, 6_000, id="one byte too many"),
        pytest.param([], 0, 50_000, 0, 10_000, id="more than there can be"),
        pytest.param([(0, 10_000)], 10_000, 1, 0, errno.ENOSPC, id="full"),
        pytest.param([(0, 10_000)], 0, 10_000, 0, 10_000, id="overwriting costs nothing"),
        pytest.param([(0, 10_000)], 5_000, 9_000, 0, 5_000, id="overwriting to the end of what is there"),
        pytest.param([(0, 9_000)], 5_000, 9_000, 0, 5_000, id="overwriting and some more"),
        pytest.param([(1_000, 1_000), (5_000, 7_000)], 0, 4_000, 0, 3_000, id="the holes count"),
        pytest.param([(1_000, 1_000), (5_000, 7_500)], 0, 9_000, 0, 2_500, id="up to within a hole"),
        pytest.param([(1_000, 1_000), (5_000, 4_000)], 0, 20_000, 0, 10_000, id="behind the last of them"),
        pytest.param([(20_000, 10_000)], 0, 5_000, 0, errno.ENOSPC, id="full, and before it a hole"),
        pytest.param([(0, 9_000)], 0, 3_000, os.O_APPEND, 1_000, id="appended"),
        pytest.param([(0, 10_000)], 0, 3_000, os.O_APPEND, errno.ENOSPC, id="appended to a full one"),
        pytest.param([], _END - 3, 10, 0, 3, id="the largest file"),
        pytest.param([(0, 9_998)], _END - 3, 10, 0, 2, id="the largest file, and no room for it"),
        pytest.param([], _END, 10, 0, errno.EFBIG, id="behind the largest file"),
        pytest.param([], _END + 5, 10, 0, errno.EFBIG, id="far behind the largest file"),
    ],
)
def test_what_fits_is_written(
    session: Session, held: list[tuple[int, int]], offset: int, length: int, flags: int, expected: int
) -> None:
    """Up to the last byte of room; the next write then has none, and writing all or nothing has written nothing."""
    files = session.files
    made = files.create(1, b"f", 0o644, os.O_RDWR, ROOT)[0]
    plain = files.open(made.ino, os.O_RDWR, ROOT)
    for start, size in held:
        files.write(plain, start, b"h" * size, ROOT)
    files.set_limits(limit_bytes=10_000)
    handle = files.open(made.ino, os.O_RDWR | flags, ROOT)
    at = files.getattr(made.ino).size if flags & os.O_APPEND else offset
    data = os.urandom(length)
    before = files.getattr(made.ino)
    if expected != length:
        assert _outcome(lambda: files.write(handle, offset, data, ROOT)) in (errno.ENOSPC, errno.EFBIG)
        assert before == files.getattr(made.ino)
    assert expected == _outcome(lambda: files.write_fitting(handle, offset, data, ROOT))
    if expected in (errno.ENOSPC, errno.EFBIG):
        assert before == files.getattr(made.ino)
        return
    assert data[:expected] == files.read(plain, at, expected)
    assert max(before.size, at + expected) == files.getattr(made.ino).size
    assert files._usage.used_bytes <= 10_000
    if expected < length:
        rest = data[expected:]
        assert _outcome(lambda: files.write_fitting(handle, at + expected, rest, ROOT)) in (errno.ENOSPC, errno.EFBIG)


def _outcome(write: Callable[[], int]) -> int | None:
    """How much was written, or the number of the error."""
    try:
        return write()
    except OSError as error:
        return error.errno


def test_a_full_staging_area_takes_no_part_of_a_write(session: Session) -> None:
    """What does not fit there fits into no volume, however much room that has."""
    files = session.files
    files.set_limits(limit_bytes=10_000)
    ino = put(files, b"f", b"before")
    session.content.fail_stage = OSError(errno.ENOSPC, "No space left on device")
    handle = files.open(ino, os.O_RDWR, ROOT)
    no_space(lambda: files.write_fitting(handle, 0, b"after", ROOT))
    assert b"before" == get(files, b"f")


def test_room_that_another_takes_meanwhile_is_gone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between finding out what fits and writing it somebody else may write: what is left then is written."""
    files = session.files
    files.set_limits(limit_bytes=10_000)
    handle = files.create(1, b"f", 0o644, os.O_RDWR, ROOT)[1]
    other = files.create(1, b"g", 0o644, os.O_RDWR, ROOT)[1]
    look = files._room_for

    def look_and_lose(*asked: Any) -> int:
        found = look(*asked)
        monkeypatch.undo()
        files.write(other, 0, b"o" * 4_000, ROOT)
        return found

    monkeypatch.setattr(files, "_room_for", look_and_lose)
    assert 6_000 == files.write_fitting(handle, 0, b"x" * 20_000, ROOT)
    no_space(lambda: files.write_fitting(handle, 6_000, b"x", ROOT))
