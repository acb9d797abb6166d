"""Nothing is fetched while the lock is held: one slow answer of the store keeps nobody else waiting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from stowstore.chunks.block import BlockRef
from stowstore.chunks.patience import WouldWait, never_waiting
from stowstore.namespace.attributes import NOW, AttributeChanges
from stowstore.namespace.extents import WINDOW_BYTES
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT, Caller
from stowstore.namespace.renames import RenameFlags
from tests.namespace.paths import list_names
from tests.namespace.stacks import StackSession

#: More windows than one leaf of the index holds, several times.
_WINDOWS = 1000
_SOMEBODY = Caller(uid=5, gid=5)


@pytest.fixture(scope="module")
def stored() -> Iterator[StackSession]:
    """A volume whose index lies in many nodes, with everything there is to be fetched late."""
    session = StackSession()
    files = session.files
    deep = 1
    for level in range(5):
        deep = files.mkdir(deep, b"deep%d" % level, 0o777, ROOT).ino
        for number in range(300):
            files.mknod(deep, b"f%d" % number, 0o666, ROOT)
    for name in (b"empty", b"emptied", b"target", b"moved"):
        made = files.mkdir(1, name, 0o777, ROOT).ino
        if name == b"emptied":
            for number in range(500):
                files.mknod(made, b"g%d" % number, 0o666, ROOT)
    _large, handle = files.create(1, b"large", 0o666, os.O_RDWR, ROOT)
    for window in range(_WINDOWS):
        files.write(handle, window * WINDOW_BYTES, b"x", ROOT)
    files.release(handle)
    for number in range(300):
        ino = files.mknod(1, b"x%d" % number, 0o666, ROOT).ino
        files.setxattr(ino, b"user.a", b"1" * 100, ROOT)
        files.setxattr(ino, b"security.capability", b"2", ROOT)
    session.commit()
    session.merge()
    yield session
    session.close()


def _inode(files: FileSystem, *names: bytes) -> int:
    ino = 1
    for name in names:
        ino = files.lookup(ino, name, ROOT).ino
    return ino


def _deepest(files: FileSystem) -> int:
    return _inode(files, *(b"deep%d" % level for level in range(5)))


def _open(files: FileSystem) -> int:
    return files.open(_inode(files, b"large"), os.O_RDWR, ROOT)


def _empty(files: FileSystem) -> None:
    directory = _inode(files, b"emptied")
    for name in list_names(files, directory, ROOT):
        files.unlink(directory, name, ROOT)


def _refused(action: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(OSError, match="not empty"):
        action(*arguments)


_MIDDLE = _WINDOWS // 2 * WINDOW_BYTES

#: What is done before the index is forgotten, and what then has to fetch from it.
_OPERATIONS: dict[str, tuple[Callable[[FileSystem], Any], Callable[[FileSystem, Any], Any]]] = {
    "read": (_open, lambda files, handle: files.read(handle, _MIDDLE, 10)),
    "write": (_open, lambda files, handle: files.write(handle, _MIDDLE + 5, b"y", ROOT)),
    "append": (
        lambda files: files.open(_inode(files, b"large"), os.O_WRONLY | os.O_APPEND, ROOT),
        lambda files, handle: files.write(handle, 0, b"y", ROOT),
    ),
    "punch": (_open, lambda files, handle: files.fallocate(handle, 3, _MIDDLE, WINDOW_BYTES, ROOT)),
    "seek": (_open, lambda files, handle: files.lseek(handle, _MIDDLE + 1, os.SEEK_DATA)),
    "copy": (_open, lambda files, handle: files.copy_file_range(handle, 0, handle, _MIDDLE, 2 * WINDOW_BYTES, ROOT)),
    "truncate": (
        lambda files: _inode(files, b"large"),
        lambda files, ino: files.setattr(ino, AttributeChanges(size=_MIDDLE), ROOT),
    ),
    "truncate to nothing": (
        lambda files: _inode(files, b"large"),
        lambda files, ino: files.setattr(ino, AttributeChanges(size=0), ROOT),
    ),
    "journal a truncated file": (
        lambda files: files.setattr(_inode(files, b"large"), AttributeChanges(size=0), ROOT),
        lambda files, _: files.fsync(),
    ),
    "getxattr": (
        lambda files: _inode(files, b"x200"),
        lambda files, ino: files.getxattr(ino, b"user.a", ROOT),
    ),
    "listxattr": (lambda files: _inode(files, b"x200"), lambda files, ino: files.listxattr(ino, ROOT)),
    "setxattr": (
        lambda files: _inode(files, b"x200"),
        lambda files, ino: files.setxattr(ino, b"user.b", b"1", ROOT),
    ),
    "removexattr": (
        lambda files: _inode(files, b"x200"),
        lambda files, ino: files.removexattr(ino, b"user.a", ROOT),
    ),
    "chown": (
        lambda files: _inode(files, b"x200"),
        lambda files, ino: files.setattr(ino, AttributeChanges(uid=7), ROOT),
    ),
    "write by another": (
        lambda files: files.open(_inode(files, b"x200"), os.O_RDWR, ROOT),
        lambda files, handle: files.write(handle, 0, b"y", _SOMEBODY),
    ),
    "rmdir": (lambda files: None, lambda files, _: files.rmdir(1, b"empty", ROOT)),
    "rmdir of what was emptied": (_empty, lambda files, _: files.rmdir(1, b"emptied", ROOT)),
    "rmdir of what is full": (
        lambda files: None,
        lambda files, _: _refused(files.rmdir, 1, b"emptied", ROOT),
    ),
    "rename over a directory": (lambda files: None, lambda files, _: files.rename(1, b"moved", 1, b"target", ROOT)),
    "rename into the depth": (
        _deepest,
        lambda files, ino: files.rename(1, b"moved", ino, b"there", ROOT),
    ),
    "exchange with the depth": (
        _deepest,
        lambda files, ino: files.rename(1, b"moved", ino, b"f7", ROOT, RenameFlags.EXCHANGE),
    ),
    "look the parent up": (_deepest, lambda files, ino: files.look_up(ino, b"..")),
    "find the parent": (_deepest, lambda files, ino: files.find(ino, b"..")),
    "look up": (lambda files: None, lambda files, _: files.look_up(1, b"x200")),
    "touch": (
        lambda files: _inode(files, b"x200"),
        lambda files, ino: files.setattr(ino, AttributeChanges(mtime=NOW), ROOT),
    ),
    "statfs": (lambda files: None, lambda files, _: files.statfs()),
    "usage": (lambda files: None, lambda files, _: files.usage()),
}


@pytest.mark.parametrize("name", _OPERATIONS)
def test_nothing_is_fetched_under_the_lock(stored: StackSession, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever an operation needs of the index is there before it takes the lock; who must not wait is told first."""
    prepare, act = _OPERATIONS[name]
    files = stored.reader() if name in ("statfs", "usage") else _fresh(stored)
    prepared = prepare(files)
    _forget(files)
    read = stored.nodes.read
    fetched = 0

    def guarded(refs: Sequence[BlockRef]) -> list[bytes]:
        nonlocal fetched
        fetched += 1
        assert not files._lock.locked()
        return read(refs)

    monkeypatch.setattr(stored.nodes, "read", guarded)
    if name != "journal a truncated file":
        with never_waiting(), pytest.raises(WouldWait):
            act(files, prepared)
        assert 0 == fetched
    act(files, prepared)
    assert fetched


def _fresh(stored: StackSession) -> FileSystem:
    """The volume as it was committed, without what was done to it before."""
    stored.files.close()
    stored.metastore.clear()
    return stored.crash()


def _forget(files: FileSystem) -> None:
    """Has the index be fetched anew, and what was remembered of it."""
    cache = files.snapshot.tree.cache
    cache._nodes.clear()
    cache._bytes = 0
    overlay = files._overlay
    overlay.inodes.young.clear()
    overlay.inodes._old.clear()
    overlay.entries.young.clear()
    overlay.entries._old.clear()
    overlay._fetched.clear()
