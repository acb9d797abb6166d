"""Where the work of the mount benchmarks is done, and the process that does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from benchmarks.model import Measure, Row
from stowstore import Volume
from stowstore.mounts.options import MountOptions

__all__ = [
    "FULL_SIZES",
    "QUICK_SIZES",
    "WORKER",
    "Progress",
    "Sizes",
    "measured",
    "mounted",
    "one_processor",
    "plain",
    "row",
]

Progress = Callable[[str], None]

WORKER: Final = Path(__file__).with_name("mount_worker.py")
_SECONDS: Final = 1800


@frozen(kw_only=True)
class Sizes:
    """Small files, MiB of a stream and of a commit, seconds of an idle run, and files of volumes to be mounted."""

    files: int
    mebibytes: int
    commit: int
    idle: float
    rounds: int
    namespaces: tuple[int, ...]


FULL_SIZES = Sizes(files=5_000, mebibytes=256, commit=512, idle=4.0, rounds=3, namespaces=(100, 100_000, 1_000_000))
QUICK_SIZES = Sizes(files=500, mebibytes=16, commit=32, idle=0.5, rounds=1, namespaces=(100, 2_000))


@contextmanager
def plain(directory: Path) -> Iterator[Path]:
    """A directory of its own, removed afterwards."""
    directory.mkdir(exist_ok=True)
    try:
        yield directory
    finally:
        subprocess.run(["rm", "-rf", str(directory)], check=True)


@contextmanager
def mounted(local: Path, *, upload_delay: str | None = None, **options: Any) -> Iterator[tuple[Any, Path]]:
    """A fresh volume on the local disk, with its default metadata store, and where it is mounted."""
    with tempfile.TemporaryDirectory(dir=local) as scratch:
        volume = Volume.new("bench", f"file://{scratch}/root")
        path = volume.blocking.mount(
            f"{scratch}/mnt",
            f"{scratch}/meta",
            f"{scratch}/cache",
            upload_delay=upload_delay,
            options=MountOptions(**options),
        )
        try:
            yield volume, path
        finally:
            volume.blocking.unmount()


def measured(task: str, directory: Path, count: int = 0) -> Mapping[str, float]:
    """What a task of the worker has found."""
    done = subprocess.run(
        [sys.executable, "-S", str(WORKER), task, str(directory), str(count)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextmanager
def one_processor() -> Iterator[None]:
    """Has this process, and those it starts, run on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def row(what: str, client: str, figure: str, **more: Any) -> Row:
    """A row of the group, whose figure says what was measured."""
    return Row(group="mount", what=what, client=client, figure=figure, measure=Measure.WALL, **more)
