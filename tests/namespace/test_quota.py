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
