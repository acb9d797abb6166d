"""Random programs by several users answer as on the local disk, through commits, crashes and reopening."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stowstore.namespace.committing import FrozenChanges
from stowstore.namespace.permissions import Caller
from tests.namespace.paths import OurTree, PathNames, RealTree, outcome
from tests.namespace.sessions import Session

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.one_of(st.tuples(NAMES), st.tuples(NAMES, NAMES), st.tuples(st.just(b"a"), st.just(b"b"), NAMES))
ODD_PATHS = st.one_of(
    PATHS,
    PATHS,
    PATHS,
    st.tuples(NAMES, st.sampled_from([b"n" * 255, b"n" * 256, b".", b".."])),
)
TARGETS = st.sampled_from([b"a", b"b/a", b"c", b"nowhere", b"a/b"])
SUPERUSER = Caller(uid=0, gid=0, umask=0o022)
CALLERS = st.sampled_from(
    [
        SUPERUSER,
        SUPERUSER,
        Caller(uid=1001, gid=1001, umask=0o022),
        Caller(uid=1001, gid=1001, groups=(2001,), umask=0o022),
        Caller(uid=1002, gid=2001, umask=0o022),
    ]
)
MODES = st.sampled_from(
    [0o777, 0o755, 0o700, 0o644, 0o600, 0o444, 0o000, 0o1777, 0o2775, 0o2755, 0o4755, 0o6777, 0o2644]
)
IDS = st.sampled_from([0, 1001, 1002, 2001])
OFFSETS = st.sampled_from([0, 1, 100, 4096, 5000, 70_000])
LENGTHS = st.sampled_from([1, 100, 4096, 9000, 70_000])
ACCESS = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
OPTIONS = st.sampled_from([0, 0, os.O_APPEND, os.O_TRUNC, os.O_DIRECTORY, os.O_NOFOLLOW])
XATTRS = st.sampled_from([b"user.one", b"user.two", b"trusted.one", b"user.", b"nonsense", b"user." + b"n" * 250])
MAX_OPEN = 4


class AgainstDisk(RuleBasedStateMachine):
    """One random program on two trees; every answer and, at the end, every inode must be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="stowstore-namespace-"))
        root = self.directory / "root"
        root.mkdir(mode=0o755)
        root.chmod(0o777)
        self.directory.chmod(0o755)
        self.umask = os.umask(0o022)
        self.real = RealTree(root)
        self.session = self.make_session()
        self.ours = OurTree(self.session.files)
        self.ours.chmod((), 0o777, SUPERUSER)
        self.handles: list[tuple[int, int]] = []
        self.frozen: FrozenChanges | None = None
        self.count = 0
        for path in ((b"a",), (b"a", b"b"), (b"b",)):
            self.same("mkdir", path, 0o777, SUPERUSER)
            self.same("chmod", path, 0o777, SUPERUSER)

    def make_session(self) -> Session:
        """The session that stands against the disk."""
        return Session(journal=True)

    def teardown(self) -> None:
        self.compare_trees()
        for real, _ in self.handles:
            os.close(real)
        self.session.close()
        os.umask(self.umask)
        shutil.rmtree(self.directory)

    def same(self, verb: str, *arguments: Any) -> Any:
        """Does the same on both sides and compares what they answer."""
        expected = outcome(getattr(self.real, verb), *arguments)
        found = outcome(getattr(self.ours, verb), *arguments)
        assert expected == found, f"{verb}{arguments}: the disk says {expected!r}, we say {found!r}"
        return found

    @rule(path=ODD_PATHS, mode=MODES, caller=CALLERS)
    def mkdir(self, path: PathNames, mode: int, caller: Caller) -> None:
        self.same("mkdir", path, mode, caller)

    @rule(path=PATHS, mode=MODES, caller=CALLERS)
    def mkfifo(self, path: PathNames, mode: int, caller: Caller) -> None:
        self.same("mkfifo", path, mode, caller)

    @rule(path=ODD_PATHS, text=TARGETS, caller=CALLERS)
    def symlink(self, path: PathNames, text: bytes, caller: Caller) -> None:
        self.same("symlink", path, text, caller)

    @rule(path=PATHS, caller=CALLERS)
    def readlink(self, path: PathNames, caller: Caller) -> None:
        self.same("readlink", path, caller)

    @rule(path=PATHS, new=ODD_PATHS)
    def link(self, path: PathNames, new: PathNames) -> None:
        self.same("link", path, new, SUPERUSER)

    @rule(path=ODD_PATHS, caller=CALLERS)
    def unlink(self, path: PathNames, caller: Caller) -> None:
        self.same("unlink", path, caller)

    @rule(path=ODD_PATHS, caller=CALLERS)
    def rmdir(self, path: PathNames, caller: Caller) -> None:
        self.same("rmdir", path, caller)

    @rule(path=ODD_PATHS, new=ODD_PATHS, flags=st.sampled_from([0, 0, 0, 1, 2]), caller=CALLERS)
    def rename(self, path: PathNames, new: PathNames, flags: int, caller: Caller) -> None:
        self.same("rename", path, new, flags, caller)

    @rule(path=ODD_PATHS, access=ACCESS, mode=MODES, caller=CALLERS)
    def create(self, path: PathNames, access: int, mode: int, caller: Caller) -> None:
        self.keep(path, access | os.O_CREAT | os.O_EXCL, mode, caller)

    @rule(path=PATHS, access=ACCESS, option=OPTIONS, caller=CALLERS)
    def open(self, path: PathNames, access: int, option: int, caller: Caller) -> None:
        kind = outcome(self.real.stat, path, SUPERUSER)
        if isinstance(kind, tuple) and (stat.S_ISFIFO(kind[0]) or stat.S_ISLNK(kind[0]) or stat.S_ISDIR(kind[0])):
            return
        self.keep(path, access | option, 0, caller)

    def keep(self, path: PathNames, flags: int, mode: int, caller: Caller) -> None:
        """Opens on both sides; the handles stay open while there is room for them."""
        real = outcome(self.real.open, path, flags, mode, caller)
        ours = outcome(self.ours.open, path, flags, mode, caller)
        if isinstance(real, str) or isinstance(ours, str):
            assert real == ours, f"open{path, flags, mode, caller}: the disk says {real!r}, we say {ours!r}"
            return
        self.handles.append((real, ours))
        if len(self.handles) > MAX_OPEN:
            self.release(0)

    def release(self, at: int) -> None:
        real, ours = self.handles.pop(at)
        self.real.close(real)
        self.ours.close(ours)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.release(data.draw(st.integers(0, len(self.handles) - 1)))

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), offset=OFFSETS, length=LENGTHS, caller=CALLERS)
    def write(self, data: st.DataObject, offset: int, length: int, caller: Caller) -> None:
        self.count += 1
        written = bytes([self.count % 255 + 1]) * length
        self.on_handle("write", self.draw_handle(data), offset, written, caller)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), offset=OFFSETS, length=LENGTHS)
    def read(self, data: st.DataObject, offset: int, length: int) -> None:
        self.on_handle("read", self.draw_handle(data), offset, length)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), size=OFFSETS, caller=CALLERS)
    def ftruncate(self, data: st.DataObject, size: int, caller: Caller) -> None:
        self.on_handle("ftruncate", self.draw_handle(data), size, caller)

    @precondition(lambda self: self.handles)
    @rule(
        data=st.data(), mode=st.sampled_from([0, 1, 2, 3, 16, 17, 18]), offset=OFFSETS, length=LENGTHS, caller=CALLERS
    )
    def fallocate(self, data: st.DataObject, mode: int, offset: int, length: int, caller: Caller) -> None:
        self.on_handle("fallocate", self.draw_handle(data), mode, offset, length, caller)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), offset=OFFSETS, target_offset=OFFSETS, length=LENGTHS, caller=CALLERS)
    def copy(self, data: st.DataObject, offset: int, target_offset: int, length: int, caller: Caller) -> None:
        source, target = self.draw_handle(data), self.draw_handle(data)
        expected = outcome(self.real.copy, source[0], offset, target[0], target_offset, length, caller)
        found = outcome(self.ours.copy, source[1], offset, target[1], target_offset, length, caller)
        assert expected == found

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def fstat(self, data: st.DataObject) -> None:
        self.on_handle("fstat", self.draw_handle(data))

    def draw_handle(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(st.sampled_from(self.handles))

    def on_handle(self, verb: str, handle: tuple[int, int], *arguments: Any) -> None:
        expected = outcome(getattr(self.real, verb), handle[0], *arguments)
        found = outcome(getattr(self.ours, verb), handle[1], *arguments)
        assert expected == found, f"{verb}{arguments[-3:]}: the disk says {expected!r:.80}, we say {found!r:.80}"

    @rule(path=PATHS, size=OFFSETS, caller=CALLERS)
    def truncate(self, path: PathNames, size: int, caller: Caller) -> None:
        self.same("truncate", path, size, caller)

    @rule(path=PATHS, mode=MODES, caller=CALLERS)
    def chmod(self, path: PathNames, mode: int, caller: Caller) -> None:
        self.same("chmod", path, mode, caller)

    @rule(path=PATHS, uid=IDS, gid=IDS, caller=CALLERS)
    def chown(self, path: PathNames, uid: int, gid: int, caller: Caller) -> None:
        self.same("chown", path, uid, gid, caller)

    @rule(path=PATHS, atime=st.integers(0, 2**33 * 10**9), mtime=st.integers(-(10**9), 10**18), caller=CALLERS)
    def utime(self, path: PathNames, atime: int, mtime: int, caller: Caller) -> None:
        self.same("utime", path, atime, mtime, caller)

    @rule(path=PATHS, mask=st.integers(0, 7), caller=CALLERS)
    def access(self, path: PathNames, mask: int, caller: Caller) -> None:
        self.same("access", path, mask, caller)

    @rule(path=ODD_PATHS, caller=CALLERS)
    def stat(self, path: PathNames, caller: Caller) -> None:
        if path[-1] != b"..":
            self.same("stat", path, caller)

    @rule(path=PATHS, caller=CALLERS)
    def listdir(self, path: PathNames, caller: Caller) -> None:
        self.same("listdir", path, caller)

    @rule(path=PATHS, name=XATTRS, value=st.binary(max_size=9), flags=st.integers(0, 2), caller=CALLERS)
    def setxattr(self, path: PathNames, name: bytes, value: bytes, flags: int, caller: Caller) -> None:
        self.same("setxattr", path, name, value, flags, caller)

    @rule(path=PATHS, name=XATTRS, caller=CALLERS)
    def getxattr(self, path: PathNames, name: bytes, caller: Caller) -> None:
        self.same("getxattr", path, name, caller)

    @rule(path=PATHS, name=XATTRS, caller=CALLERS)
    def removexattr(self, path: PathNames, name: bytes, caller: Caller) -> None:
        self.same("removexattr", path, name, caller)

    @rule(path=PATHS, caller=CALLERS)
    def listxattr(self, path: PathNames, caller: Caller) -> None:
        self.same("listxattr", path, caller)

    @precondition(lambda self: self.frozen is None)
    @rule()
    def commit(self) -> None:
        self.session.commit()

    @precondition(lambda self: self.frozen is None)
    @rule()
    def freeze(self) -> None:
        self.frozen = self.session.files.freeze()

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def publish(self) -> None:
        assert self.frozen is not None
        self.frozen.flush(self.session.writer)
        self.session.publish(self.frozen.records())
        self.frozen = None

    @precondition(lambda self: self.frozen is not None)
    @rule(flushed=st.booleans())
    def give_up(self, flushed: bool) -> None:
        assert self.frozen is not None
        if flushed:
            self.frozen.flush(self.session.writer)
            self.frozen.records()
        self.session.files.commit_failed()
        self.frozen = None

    @rule()
    def fsync(self) -> None:
        self.session.files.fsync()

    @precondition(lambda self: self.frozen is None)
    @rule()
    def merge(self) -> None:
        self.session.merge()

    @precondition(lambda self: not self.handles)
    @rule(crash=st.booleans())
    def reopen(self, crash: bool) -> None:
        if crash:
            self.session.files.fsync()
            self.ours = OurTree(self.session.crash())
        else:
            self.ours = OurTree(self.session.reopen())
        self.frozen = None
        self.compare_trees()

    @invariant()
    def counters_are_kept(self) -> None:
        usage = self.session.files._usage
        assert 0 <= usage.orphan_inodes <= len(self.handles)
        assert min(usage.used_bytes, usage.orphan_bytes) >= 0

    def compare_trees(self) -> None:
        """Walks both trees and compares every inode and every byte."""
        waiting: list[PathNames] = [()]
        inodes: dict[int, int] = {}
        while waiting:
            path = waiting.pop()
            attributes = self.ours._walk(path, SUPERUSER, follow=False)
            inodes[attributes.ino] = attributes.blocks
            shown = self.same("stat", path, SUPERUSER)
            self.same("listxattr", path, SUPERUSER)
            if stat.S_ISDIR(shown[0]):
                waiting += [(*path, name) for name in self.same("listdir", path, SUPERUSER)]
            elif stat.S_ISLNK(shown[0]):
                self.same("readlink", path, SUPERUSER)
            elif stat.S_ISREG(shown[0]):
                real = self.real.open(path, os.O_RDONLY, 0, SUPERUSER)
                ours = self.ours.open(path, os.O_RDONLY, 0, SUPERUSER)
                self.on_handle("read", (real, ours), 0, shown[4] + 1)
                self.real.close(real)
                self.ours.close(ours)
        usage = self.session.files._usage
        assert usage.inode_count == len(inodes)
        assert sum(inodes.values()) == pytest.approx(usage.used_bytes / 512, abs=len(inodes))


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as several users on the local disk needs root")
class TestAgainstDisk(AgainstDisk.TestCase):  # type: ignore[misc]
    """Random programs answer on our file system as on the local disk."""

    settings = settings(
        max_examples=60,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
