"""Mounts beside tmpfs and the local disk: small files, streams, programs, and the time to mount.

Server and caller are pinned to one processor: unpinned runs on a virtual machine measure how long it takes to wake
the other one.  tmpfs is the fair peer: what it keeps is as durable as what a mount has not yet committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from attrs import frozen

from benchmarks.model import Measure, Row
from benchmarks.scale import QUICK, Scale
from stowstore import Volume
from stowstore.mounts.options import MountOptions

__all__ = ["mount"]

Progress = Callable[[str], None]

_WORKER: Final = Path(__file__).with_name("mount_worker.py")
_SECONDS: Final = 300
_SHM: Final = Path("/dev/shm")
_MODES: Final = ("writethrough", "writeback")


@frozen(kw_only=True)
class _Sizes:
    files: int
    mebibytes: int
    rounds: int
    namespaces: tuple[int, int]


_FULL = _Sizes(files=5_000, mebibytes=256, rounds=3, namespaces=(100, 100_000))
_QUICK = _Sizes(files=500, mebibytes=16, rounds=1, namespaces=(100, 2_000))


def mount(scale: Scale, progress: Progress) -> Iterator[Row]:
    """Measures mounts, where this machine can mount."""
    sizes = _QUICK if scale is QUICK else _FULL
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        yield Row(group="mount", what="mount", client="stowstore", note="/dev/fuse is not here, or not open to us")
        return
    with tempfile.TemporaryDirectory(prefix="stowstore-bench-") as directory, _one_processor():
        local = Path(directory)
        os.environ["STOWSTORE_BENCH_ARCHIVE"] = str(local / "tree.tar")
        found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number in range(sizes.rounds):
            for task, count in (("small_files", sizes.files), ("stream", sizes.mebibytes), ("programs", 0)):
                for client, place in _places(local, number):
                    progress(f"mount: {client}: {task}")
                    with place as target:
                        for what, value in _measured(task, target / f"{task}-{number}", count).items():
                            found[task, what][client].append(value)
        for (task, what), values in found.items():
            yield from _rows(task, what, values)
        yield from _mount_times(local, sizes, progress)


def _places(local: Path, number: int) -> Iterator[tuple[str, Any]]:
    """Where the work is done, in turn."""
    yield "local disk", _plain(local / f"disk-{number}")
    if _SHM.is_dir():
        yield "tmpfs", _plain(_SHM / f"stowstore-bench-{os.getpid()}-{number}")
    for mode in _MODES:
        yield f"stowstore {mode}", _mounted(local, mode)


@contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    try:
        yield directory
    finally:
        subprocess.run(["rm", "-rf", str(directory)], check=True)


@contextmanager
def _mounted(local: Path, mode: str) -> Iterator[Path]:
    """A fresh volume of local disk, with its default metadata store."""
    with tempfile.TemporaryDirectory(dir=local) as scratch:
        volume = Volume.new("bench", f"file://{scratch}/root")
        path = volume.blocking.mount(
            f"{scratch}/mnt", f"{scratch}/meta", f"{scratch}/cache", options=MountOptions(kernel_cache=mode)
        )
        try:
            yield path
        finally:
            volume.blocking.unmount()


def _measured(task: str, directory: Path, count: int) -> Mapping[str, float]:
    done = subprocess.run(
        [sys.executable, "-S", str(_WORKER), task, str(directory), str(count)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _rows(task: str, what: str, values: Mapping[str, list[float]]) -> Iterator[Row]:
    reference = median(values["tmpfs" if "tmpfs" in values else "local disk"])
    for client, found in values.items():
        value = median(found)
        if task == "programs":
            target = "at most 2x tmpfs + 0.5 s" if what in ("untar", "git clone") and "stow" in client else ""
            yield Row(
                group="mount",
                what=what,
                client=client,
                wall=value,
                ratio=value / reference,
                measure=Measure.WALL,
                target=target,
                met=value <= 2 * reference + 0.5 if target else None,
            )
            continue
        least = {"write": 600, "read, cold kernel": 1_200}.get(what) if "stow" in client else None
        unit = "files/s" if task == "small_files" else "MiB/s"
        yield Row(
            group="mount",
            what=what,
            client=client,
            figure=f"{value:,.0f} {unit}",
            ratio=value / reference,
            measure=Measure.WALL,
            target=f"at least {least:,} MB/s" if least else "",
            met=value * 1.048576 >= least if least else None,
        )


def _mount_times(local: Path, sizes: _Sizes, progress: Progress) -> Iterator[Row]:
    """How long it takes until a mount answers, of few files and of many."""
    for files in sizes.namespaces:
        progress(f"mount: {files:,} files")
        root = f"file://{local}/times"
        volume = Volume.new(f"files-{files}", root)
        with volume.blocking as made:
            for number in range(files):
                if number % 1000 == 0:
                    made.mkdir(f"/d{number // 1000}")
                made.write_bytes(f"/d{number // 1000}/f{number}", b"")
            version = volume.blocking.commit()
        times = []
        for _ in range(max(sizes.rounds, 2)):
            done = subprocess.run(
                [sys.executable, "-c", _MOUNTING, version.locator or "", f"{local}/times-mnt"],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=True,
            )
            times.append(float(done.stdout))
        yield Row(
            group="mount",
            what=f"mount {files:,} files until they are listed",
            client="stowstore",
            wall=min(times),
            target="under 0.5 s, flat",
            met=min(times) < 0.5,
        )


_MOUNTING: Final = """
import os, sys, time
from stowstore import Volume
version = Volume.blocking.from_locator(sys.argv[1])
began = time.perf_counter()
os.listdir(version.blocking.mount(sys.argv[2]))
print(time.perf_counter() - began)
version.blocking.unmount()
"""


@contextmanager
def _one_processor() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
