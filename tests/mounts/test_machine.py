"""Random programs on a mount and on the local disk: the same results, the same trees, also after mounting again."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from stowstore import RWVolume
from stowstore.mounts.options import MountOptions
from tests.mounts.behaviours.calling import fallocate, rename2
from tests.mounts.conftest import Mounting
from tests.mounts.trees import snapshot, unlike

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the programs give files to other users, which takes root")

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=2).map("/".join)
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 5000, 65_535, 65_536, 100_000])
CONTENTS = st.one_of(st.binary(max_size=20), st.integers(1, 255).map(lambda byte: bytes([byte]) * 9_000))
FLAGS = st.sampled_from(
    [os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_APPEND | os.O_CREAT, os.O_RDWR | os.O_TRUNC]
)
SLOTS = st.integers(0, 2)


class _Side:
    """One of the two directories, with the files and the directory that a program has open below it."""

    def __init__(self, top: Path) -> None:
        top.mkdir(exist_ok=True)
        self.top = top
        self.opened: dict[int, int] = {}
        self.inside: int | None = None

    def at(self, path: str) -> str:
        return f"{self.top}/{path}"

    def close(self) -> None:
        for descriptor in (*self.opened.values(), *([] if self.inside is None else [self.inside])):
            os.close(descriptor)
        self.opened.clear()


class _Machine(RuleBasedStateMachine):
    """A mount and a directory that are told the same."""

    local: ClassVar[Path]
    mounted: ClassVar[Path]
    volume: ClassVar[RWVolume]
    numbers: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        program = f"program-{next(self.numbers)}"
        self.disk, self.mount = _Side(self.local / program), _Side(self.mounted / program)

    def both(self, act: Callable[[_Side], Any]) -> None:
        """Does the same on both sides; results and errors are the same."""
        assert _outcome(act, self.disk) == _outcome(act, self.mount)

    def with_open(self, slot: int, act: Callable[[int], Any]) -> None:
        """Does the same with a file that is open."""
        self.both(lambda side: act(side.opened[slot]) if slot in side.opened else None)

    @rule(path=PATHS, slot=SLOTS, flags=FLAGS, mode=st.sampled_from([0o644, 0o600]))
    def open(self, path: str, slot: int, flags: int, mode: int) -> None:
        def act(side: _Side) -> None:
            descriptor = os.open(side.at(path), flags | os.O_NONBLOCK, mode)
            if slot in side.opened:
                os.close(side.opened[slot])
            side.opened[slot] = descriptor

        self.both(act)

    @rule(slot=SLOTS, offset=OFFSETS, content=CONTENTS)
    def pwrite(self, slot: int, offset: int, content: bytes) -> None:
        self.with_open(slot, lambda descriptor: os.pwrite(descriptor, content, offset))

    @rule(slot=SLOTS, content=CONTENTS)
    def write(self, slot: int, content: bytes) -> None:
        self.with_open(slot, lambda descriptor: (os.write(descriptor, content), os.lseek(descriptor, 0, os.SEEK_CUR)))

    @rule(slot=SLOTS, offset=OFFSETS, length=OFFSETS)
    def pread(self, slot: int, offset: int, length: int) -> None:
        self.with_open(slot, lambda descriptor: os.pread(descriptor, length, offset))

    @rule(slot=SLOTS, size=OFFSETS)
    def ftruncate(self, slot: int, size: int) -> None:
        self.with_open(slot, lambda descriptor: os.ftruncate(descriptor, size))

    @rule(slot=SLOTS, mode=st.sampled_from([0, 1, 3, 16, 17]), offset=OFFSETS, length=OFFSETS)
    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        self.with_open(slot, lambda descriptor: fallocate(descriptor, mode, offset, length))

    @rule(slot=SLOTS, offset=st.integers(0, 5000), content=st.binary(min_size=1, max_size=50))
    def write_by_mapping(self, slot: int, offset: int, content: bytes) -> None:
        def act(descriptor: int) -> Any:
            size = os.fstat(descriptor).st_size
            if size < offset + len(content):
                return size
            with mmap.mmap(descriptor, size) as memory:
                memory[offset : offset + len(content)] = content
            return None

        self.with_open(slot, act)

    @rule(slot=SLOTS, other=SLOTS, offset=OFFSETS, to=OFFSETS, length=OFFSETS)
    def copy(self, slot: int, other: int, offset: int, to: int, length: int) -> None:
        def act(side: _Side) -> Any:
            if slot not in side.opened or other not in side.opened:
                return None
            return os.copy_file_range(side.opened[slot], side.opened[other], length, offset, to)

        self.both(act)

    @rule(slot=SLOTS)
    def fsync(self, slot: int) -> None:
        self.with_open(slot, os.fsync)

    @rule(slot=SLOTS)
    def status(self, slot: int) -> None:
        def act(descriptor: int) -> Any:
            found = os.fstat(descriptor)
            return oct(found.st_mode), found.st_nlink, found.st_size

        self.with_open(slot, act)

    @rule(slot=SLOTS)
    def close(self, slot: int) -> None:
        self.both(lambda side: os.close(side.opened.pop(slot)) if slot in side.opened else None)

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.both(lambda side: os.mkdir(side.at(path)))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda side: os.rmdir(side.at(path)))

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.both(lambda side: os.unlink(side.at(path)))

    @rule(old=PATHS, new=PATHS, flags=st.sampled_from([0, 0, 1, 2]))
    def rename(self, old: str, new: str, flags: int) -> None:
        self.both(lambda side: rename2(side.at(old), side.at(new), flags))

    @rule(old=PATHS, new=PATHS)
    def link(self, old: str, new: str) -> None:
        self.both(lambda side: os.link(side.at(old), side.at(new), follow_symlinks=False))

    @rule(text=PATHS, path=PATHS)
    def symlink(self, text: str, path: str) -> None:
        self.both(lambda side: os.symlink(text, side.at(path)))

    @rule(path=PATHS, mode=st.sampled_from([0o644, 0o400, 0o7755]))
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda side: os.chmod(side.at(path), mode))

    @rule(path=PATHS, owner=st.sampled_from([-1, 0, 7]), group=st.sampled_from([-1, 0, 8]))
    def chown(self, path: str, owner: int, group: int) -> None:
        self.both(lambda side: os.chown(side.at(path), owner, group, follow_symlinks=False))

    @rule(path=PATHS, moment=st.integers(-(10**18), 10**18 - 1))
    def utime(self, path: str, moment: int) -> None:
        self.both(lambda side: os.utime(side.at(path), ns=(moment, moment), follow_symlinks=False))

    @rule(path=PATHS, name=NAMES, value=st.binary(max_size=50))
    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self.both(lambda side: os.setxattr(side.at(path), f"user.{name}", value, follow_symlinks=False))

    @rule(path=PATHS, name=NAMES)
    def removexattr(self, path: str, name: str) -> None:
        self.both(lambda side: os.removexattr(side.at(path), f"user.{name}", follow_symlinks=False))

    @rule(path=st.one_of(st.just("."), PATHS))
    def listdir(self, path: str) -> None:
        self.both(lambda side: sorted(os.listdir(side.at(path))))

    @rule(path=PATHS)
    def enter(self, path: str) -> None:
        def act(side: _Side) -> None:
            descriptor = os.open(side.at(path), os.O_RDONLY | os.O_DIRECTORY)
            if side.inside is not None:
                os.close(side.inside)
            side.inside = descriptor

        self.both(act)

    @rule(name=NAMES, what=st.sampled_from(["make", "remove", "list", "count"]))
    def inside(self, name: str, what: str) -> None:
        """In a directory that is open, wherever it may be by now."""
        acts: dict[str, Callable[[int], Any]] = {
            "make": lambda inside: os.mkdir(name, dir_fd=inside),
            "remove": lambda inside: os.rmdir(name, dir_fd=inside),
            "list": lambda inside: sorted(os.listdir(inside)),
            "count": lambda inside: os.fstat(inside).st_nlink,
        }
        self.both(lambda side: None if side.inside is None else acts[what](side.inside))

    @rule()
    def compare(self) -> None:
        assert not unlike(self.disk.top, self.mount.top)

    @rule()
    def commit(self) -> None:
        """A version holds what there is, and writers go on."""
        version = self.volume.blocking.commit()
        top = f"/{self.mount.top.name}"
        for path, (status, _, content, _, _) in snapshot(self.disk.top).items():
            shown = version.files.lstat(f"{top}/{path}")
            assert oct(shown.st_mode) == status[0]
            if isinstance(content, bytes):
                assert version.files.read_bytes(f"{top}/{path}") == content
        version.blocking.close()

    def teardown(self) -> None:
        for side in (self.disk, self.mount):
            side.close()
        assert not unlike(self.disk.top, self.mount.top)


#: Ways to mount: the kernel gathers writes or hands them on, and keeps what it was told or asks every time.
_WAYS: dict[str, dict[str, Any]] = {
    "writethrough": {},
    "writeback": {"options": MountOptions(kernel_cache="writeback")},
    "uncached": {"attr_cache": 0.0, "entry_cache": 0.0, "dir_entry_cache": 0.0},
}


@pytest.mark.parametrize("way", _WAYS)
def test_random_programs_do_the_same_on_a_mount(mounting: Mounting, way: str) -> None:
    """After each program both sides are the same; once more after mounting anew, and after going on from there."""
    volume = mounting.volume()
    local = mounting.directory / "local"
    local.mkdir()

    _run(mounting.mount(volume, **_WAYS[way]), local, volume, 30)

    volume.blocking.unmount()
    assert not unlike(local, mounting.mount(volume, **_WAYS[way]))

    # With nothing in memory or on disk of all that is stored.
    volume.blocking.finalize()
    elsewhere = {"meta_dir": mounting.directory / "meta", "cache_dir": mounting.directory / "cold"}
    _run(mounting.mount(volume, **_WAYS[way], **elsewhere), local, volume, 15)


def _run(mounted: Path, local: Path, volume: RWVolume, count: int) -> None:
    """Runs so many programs, each in a directory that an earlier run may have left as it is."""
    told = {"local": local, "mounted": mounted, "volume": volume, "numbers": itertools.count()}
    run_state_machine_as_test(
        type("MountMachine", (_Machine,), told),
        settings=settings(
            max_examples=count, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def _outcome(act: Callable[[_Side], Any], side: _Side) -> Any:
    try:
        return act(side)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
