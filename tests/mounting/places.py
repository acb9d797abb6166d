"""Where the tests of mounts keep their volumes, and what they look at from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from stowstore import RWVolume, Volume
from stowstore.fuse import device
from stowstore.fuse.device import MountPoint
from stowstore.mounts import table
from stowstore.mounts.table import MountRecord

__all__ = ["REPOSITORY", "Place", "eventually", "python", "running"]

REPOSITORY = Path(__file__).parents[2]

#: How long anything may take that happens by itself, seconds, however busy the machine is.
_PATIENCE = 30.0


@frozen
class Place:
    """A directory with one root, and a journal, a cache and a mount point a volume."""

    directory: Path

    @property
    def root(self) -> str:
        return f"file://{self.directory}/root"

    def volume(self, name: str = "data") -> RWVolume:
        """A new volume, declared and not yet made."""
        return Volume.new(name, bucket=self.root)

    def dirs(self, name: str = "data") -> dict[str, Path]:
        """Where the journal and the cache of a volume go."""
        return {"meta_dir": self.directory / f"{name}-meta", "cache_dir": self.directory / f"{name}-cache"}

    def mount(self, volume: RWVolume, at: str = "mnt", **options: Any) -> Path:
        """Mounts a volume for writing."""
        given = {"timeout": _PATIENCE, **self.dirs(volume.name), **options}
        return volume.blocking.mount(self.directory / at, **given)

    def record(self, path: Path) -> MountRecord:
        """What the table says of a mount."""
        found = table.find(path)
        assert found is not None
        return found

    def mounts(self) -> list[MountPoint]:
        """What the kernel has mounted below the directory."""
        return [found for found in device.mounts() if found.path.is_relative_to(self.directory)]

    def daemons(self) -> list[int]:
        """The processes that serve, or served, a mount of this place, by the log that each was given."""
        found = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                said = line.read_bytes()
            except OSError:
                continue
            if b"stowstore.daemon" in said and str(self.directory).encode() in said:
                found.append(int(line.parent.name))
        return found

    def children(self, state: str = "") -> list[int]:
        """The child processes of this one in a state as ps(1) has it, such as Z; of any without one."""
        found = []
        for name in Path("/proc").glob("[0-9]*/stat"):
            try:
                number, _, rest = name.read_text().partition(" (")
            except OSError:
                continue
            fields = rest.rpartition(") ")[2].split()
            if int(fields[1]) == os.getpid() and state in ("", fields[0]):
                found.append(int(number))
        return found


def eventually(condition: Callable[[], object], seconds: float = _PATIENCE) -> bool:
    """Whether something becomes true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def python(code: str, *arguments: object) -> list[str]:
    """The command that runs a program with the package at hand."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}", *map(str, arguments)]


@contextmanager
def running(code: str, *arguments: object, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Runs a program that says a line when it is ready and then goes on by itself; it is killed in the end."""
    process = subprocess.Popen(
        python(code, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
