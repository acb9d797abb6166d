"""Random programs through `vol.files`, against a real directory, with commits, reopening, forks and ways back."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stowstore import ROVolume, RWVolume, Volume
from stowstore.volumes import Files
from tests.volumes.disk import Disk, Tree, tree

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.one_of(st.binary(max_size=20), st.integers(0, 255).map(lambda byte: bytes([byte]) * 70_000))


def outcome(act: Any) -> object:
    try:
        return act()
    except OSError as error:
        return error.errno


class VolumeMachine(RuleBasedStateMachine):
    """A volume and a directory that are told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="volume-machine-"))
        self.versions: list[tuple[ROVolume, Tree]] = []

    @initialize(kind=st.sampled_from(["file", "mem"]))
    def create(self, kind: str) -> None:
        """Begins with an empty volume."""
        root = f"file://{self.directory}/root" if kind == "file" else f"mem://{uuid.uuid4().hex}/root"
        self.kind = kind
        self.volume: RWVolume = Volume.new(bucket=root)
        (self.directory / "disk").mkdir()
        self.disk = Disk(self.directory / "disk")
        self.open()

    def open(self) -> None:
        local = self.directory / "local" / self.volume.name
        self.files: Files = self.volume.blocking.open(meta_dir=local / "meta", cache_dir=local / "cache")

    def both(self, act: Any) -> None:
        """Does the same on both sides; results and errors are the same."""
        assert outcome(lambda: act(self.disk)) == outcome(lambda: act(self.files))

    @rule(path=PATHS, content=CONTENTS)
    def write(self, path: str, content: bytes) -> None:
        self.both(lambda on: on.write_bytes(path, content))

    @rule(path=PATHS, offset=st.integers(0, 100_000), content=CONTENTS)
    def patch(self, path: str, offset: int, content: bytes) -> None:
        def act(on: Any) -> None:
            with on.open(path, "r+b") as file:
                file.seek(offset)
                file.write(content)

        self.both(act)

    @rule(path=PATHS, content=CONTENTS)
    def append(self, path: str, content: bytes) -> None:
        def act(on: Any) -> None:
            with on.open(path, "ab") as file:
                file.write(content)

        self.both(act)

    @rule(path=PATHS, size=st.integers(0, 100_000))
    def truncate(self, path: str, size: int) -> None:
        self.both(lambda on: on.truncate(path, size))

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.both(lambda on: on.mkdir(path))

    @rule(path=PATHS)
    def makedirs(self, path: str) -> None:
        self.both(lambda on: on.makedirs(path, exist_ok=True))

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        self.both(lambda on: on.remove(path))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda on: on.rmdir(path))

    @rule(old=PATHS, new=PATHS)
    def rename(self, old: str, new: str) -> None:
        self.both(lambda on: on.rename(old, new))

    @rule(text=PATHS, path=PATHS)
    def symlink(self, text: str, path: str) -> None:
        self.both(lambda on: on.symlink(text, path))

    @rule(old=PATHS, new=PATHS)
    def link(self, old: str, new: str) -> None:
        self.both(lambda on: on.link(old, new))

    @rule(path=PATHS)
    def read(self, path: str) -> None:
        self.both(lambda on: on.read_bytes(path))

    @rule()
    def commit(self) -> None:
        """A version is what the directory is now, and stays it."""
        self.versions.append((self.volume.blocking.commit(), tree(self.disk)))

    @precondition(lambda self: self.kind == "file")
    @rule(discard=st.just(False))
    def reopen(self, discard: bool) -> None:
        """Closing and opening again loses nothing, committed or not."""
        self.volume.blocking.close(discard=discard)
        self.open()

    @rule(name=st.uuids().map(str))
    def fork(self, name: str) -> None:
        """Going on in a fork of the present state is going on."""
        branch = self.volume.blocking.fork(name)
        assert isinstance(branch, RWVolume)
        self.volume.blocking.close()
        self.volume = branch
        self.open()

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """Going back to a version makes the volume what it was; hard links are made anew, as separate files."""
        version, wanted = data.draw(st.sampled_from(self.versions))
        self.volume.blocking.restore(version)
        assert wanted == tree(self.files)
        # Which names were one file cannot be seen in a tree: the disk learns it from the volume.
        shutil.rmtree(self.directory / "disk")
        (self.directory / "disk").mkdir()
        first: dict[int, str] = {}
        for path in sorted(wanted):
            kind, content = wanted[path]
            if kind == "d":
                self.disk.mkdir(path)
                continue
            ino = self.files.lstat(path).st_ino
            if ino in first:
                self.disk.link(first[ino], path)
            elif isinstance(content, str):
                self.disk.symlink(content, path)
            else:
                self.disk.write_bytes(path, content)
            first.setdefault(ino, path)

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        """A version is what it was when it was made, also after it has travelled."""
        version, wanted = data.draw(st.sampled_from(self.versions))
        assert wanted == tree(ROVolume.from_json(version.to_json()).files)
        version.blocking.close()

    @precondition(lambda self: len(self.versions) > 1)
    @rule(data=st.data())
    def compare(self, data: st.DataObject) -> None:
        """A difference names every path that differs in kind, content or target."""
        (old, before), (new, after) = (data.draw(st.sampled_from(self.versions)) for _ in range(2))
        different = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        told = {change.path for change in new.blocking.diff(old)}
        # A file of several names is told under one of them.
        inodes = {
            version: {path: version.files.lstat(path).st_ino for path in paths}
            for version, paths in ((old, before), (new, after))
        }
        for path in different - told:
            same = {other for known in inodes.values() for other, ino in known.items() if ino == known.get(path)}
            assert same & told
        for version in (old, new):
            version.blocking.close()

    @invariant()
    def they_are_equal(self) -> None:
        if hasattr(self, "files"):
            assert tree(self.disk) == tree(self.files)
            for path, (kind, _) in tree(self.disk).items():
                ours, theirs = self.files.lstat(path), self.disk.stat(path, follow_symlinks=False)
                assert (theirs.st_mode, theirs.st_size if kind != "d" else 0) == (
                    ours.st_mode,
                    ours.st_size if kind != "d" else 0,
                )
                assert kind == "d" or theirs.st_nlink == ours.st_nlink

    def teardown(self) -> None:
        if hasattr(self, "files"):
            self.volume.blocking.close()
        shutil.rmtree(self.directory)


VolumeMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestVolumeMachine = VolumeMachine.TestCase
