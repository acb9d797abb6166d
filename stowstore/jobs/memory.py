"""Limits of a job's memory: by a control group of its own where one can be made, else of each process by itself.

A control group counts the job as a whole, files in its memory file systems included, and the kernel ends the job when
that is too much.  Without one, only the address space of each single process is limited (RLIMIT_AS): allocations fail,
and a job of many processes may use many times as much.  Which of the two it is, is said.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from attrs import frozen

__all__ = ["Enforcement", "MemoryGroup", "make_group"]

_PREFIX: Final = "stowstore-job-"
_NAME: Final = re.compile(rf"{_PREFIX}(\d+)-[\w-]+")
_PATIENCE: Final = 5.0


class Enforcement(StrEnum):
    """What holds a job to its limit of memory."""

    CGROUP = "cgroup"
    ADDRESS_SPACE = "address-space"


@frozen
class MemoryGroup:
    """A control group with a limit, for one job."""

    path: Path

    def entering(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """A command that enters the group and then becomes the one given."""
        script = 'echo 0 >"$1/cgroup.procs" || exit 125; shift; exec "$@"'
        return ("/bin/sh", "-c", script, "stowstore run", str(self.path), *command)

    @property
    def was_exceeded(self) -> bool:
        """Whether the kernel has killed a process of the job because of the limit."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                found = dict(line.split() for line in (self.path / name).read_text().splitlines())
                return int(found.get("oom_kill", 0)) > 0
        return False

    def remove(self) -> None:
        """Removes the group once its processes are gone; what is left by accident is found by the next job."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)
            else:
                return


def make_group(job: str, limit: int, root: Path = Path("/")) -> MemoryGroup | None:
    """Makes a group in the nearest one to this process's own where that is possible; None where it nowhere is.

    ``root`` is where ``/proc`` and ``/sys`` are.
    """
    for parent, is_v1 in _parents(root):
        path = parent / f"{_PREFIX}{os.getpid()}-{job}"
        _forget_dead(parent, root)
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            if is_v1:
                (path / "memory.limit_in_bytes").write_text(f"{limit}\n")
            else:
                (path / "memory.max").write_text(f"{limit}\n")
                for name, value in (("memory.swap.max", "0\n"), ("memory.oom.group", "1\n")):
                    # Neither is everywhere, and the limit holds without.
                    with contextlib.suppress(OSError):
                        (path / name).write_text(value)
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()
            continue
        return MemoryGroup(path)
    return None


def _parents(root: Path) -> Iterator[tuple[Path, bool]]:
    """Groups in which one with a limit of memory may be made, the nearest first, and whether they are of version 1."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        own = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    groups = {part[1]: part[2] for line in own if len(part := line.split(":", 2)) == 3}
    for top, prefix, kind, options in map(_mount_fields, mounts):
        if kind == "cgroup2" and "" in groups:
            # A group that has processes hands nothing down, unless it is the very first.
            for path in _upwards(root, top, prefix, groups[""]):
                with contextlib.suppress(OSError):
                    if "memory" in (path / "cgroup.subtree_control").read_text().split():
                        yield path, False
        elif kind == "cgroup" and "memory" in options:
            name = next((name for name in groups if "memory" in name.split(",")), None)
            if name is not None:
                yield from ((path, True) for path in _upwards(root, top, prefix, groups[name]))


def _mount_fields(line: str) -> tuple[str, str, str, list[str]]:
    """Of a line of mountinfo where it is mounted, what of the file system that shows, its kind and its options."""
    before, _, after = line.partition(" - ")
    fields, more = before.split(), after.split()
    return fields[4], fields[3], more[0], more[-1].split(",")


def _upwards(root: Path, top: str, prefix: str, group: str) -> Iterator[Path]:
    """The directory of a group and of those above it, as far as they are shown here."""
    below = os.path.relpath(group, prefix)
    at = Path() if below.startswith("..") else Path(below)
    base = root / top.lstrip("/")
    for path in (at, *at.parents):
        yield base / path


def _forget_dead(parent: Path, root: Path) -> None:
    """Removes groups whose supervisor and job are gone."""
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            found = _NAME.fullmatch(path.name)
            if found is not None and not (root / "proc" / found[1]).exists():
                with contextlib.suppress(OSError):
                    path.rmdir()
