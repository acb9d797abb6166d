"""Mounts beside tmpfs and the local disk: small files, streams, programs, the time to mount, and what disturbs them.

Server and caller of the first part are pinned to one processor: unpinned runs on a virtual machine measure how long it
takes to wake the other one.  tmpfs is the fair peer: what it keeps is as durable as what a mount has not yet committed.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import mount_busy
from benchmarks.model import Measure, Row
from benchmarks.mount_places import FULL_SIZES, QUICK_SIZES, Progress, Sizes, measured, mounted, one_processor, plain
from benchmarks.mount_times import mount_times
from benchmarks.scale import QUICK, Scale

__all__ = ["mount"]

_SHM: Final = Path("/dev/shm")
_MODES: Final = ("writethrough", "writeback")


def mount(scale: Scale, progress: Progress) -> Iterator[Row]:
    """Measures mounts, where this machine can mount."""
    sizes = QUICK_SIZES if scale is QUICK else FULL_SIZES
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        yield Row(group="mount", what="mount", client="stowstore", note="/dev/fuse is not here, or not open to us")
        return
    with tempfile.TemporaryDirectory(prefix="stowstore-bench-") as directory:
        local = Path(directory)
        with one_processor():
            yield from _beside_others(local, sizes, progress)
        yield from mount_busy.unpinned(local, sizes, progress)
        yield from mount_busy.passed_through(local, sizes, progress)
        yield from mount_busy.beside_a_commit(local, sizes, progress)
        yield from mount_busy.to_a_gateway(local, sizes, progress)
        yield from mount_busy.beside_a_slow_store(local, progress)
        yield from mount_times(local, sizes, progress)


def _beside_others(local: Path, sizes: Sizes, progress: Progress) -> Iterator[Row]:
    os.environ["STOWSTORE_BENCH_ARCHIVE"] = str(local / "tree.tar")
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(sizes.rounds):
        for task, count in (("small_files", sizes.files), ("stream", sizes.mebibytes), ("programs", 0)):
            for client, place in _places(local, number):
                progress(f"mount: {client}: {task}")
                with place as target:
                    for what, value in measured(task, target / f"{task}-{number}", count).items():
                        found[task, what][client].append(value)
    for (task, what), values in found.items():
        yield from _rows(task, what, values)


def _places(local: Path, number: int) -> Iterator[tuple[str, Any]]:
    """Where the work is done, in turn."""
    yield "local disk", plain(local / f"disk-{number}")
    if _SHM.is_dir():
        yield "tmpfs", plain(_SHM / f"stowstore-bench-{os.getpid()}-{number}")
    for mode in _MODES:
        yield f"stowstore {mode}", _path_of(local, mode)


@contextmanager
def _path_of(local: Path, mode: str) -> Iterator[Path]:
    with mounted(local, kernel_cache=mode) as (_, path):
        yield path


def _rows(task: str, what: str, values: Mapping[str, list[float]]) -> Iterator[Row]:
    reference = median(values["tmpfs" if "tmpfs" in values else "local disk"])
    for client, found in values.items():
        value = median(found)
        if task == "programs":
            target = "at most 2x tmpfs + 0.5 s" if what.startswith(("untar", "git clone")) and "stow" in client else ""
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
        is_random = what.startswith("random")
        unit, least = (
            ("files/s", None) if task == "small_files" else ("a second", 100_000) if is_random else _STREAM[what]
        )
        in_mb = value if is_random else value * 1.048576
        target = "" if least is None or "stow" not in client else f"at least {least:,}{'' if is_random else ' MB/s'}"
        yield Row(
            group="mount",
            what=what,
            client=client,
            figure=f"{value:,.0f} {unit}",
            ratio=value / reference,
            measure=Measure.WALL,
            target=target,
            met=in_mb >= least if target and least else None,
        )


#: Units, and what is to be reached in MB/s.
_STREAM: Final[Mapping[str, tuple[str, int | None]]] = {
    "write": ("MiB/s", 600),
    "read, cold kernel": ("MiB/s", 1_200),
}
