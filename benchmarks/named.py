"""Named volumes and jobs: to make, list, resize and remove volumes, and to start a job that uses three of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from attrs import frozen

from benchmarks.model import Row
from benchmarks.scale import QUICK, Scale
from stowstore import Volume
from stowstore.mounts import table
from stowstore.mounts.options import MountOptions
from stowstore.named import Holder, NamedVolumes

__all__ = ["named"]

Progress = Callable[[str], None]

_MIB: Final = 1 << 20
_SECONDS: Final = 120
_MAIN: Final = "from stowstore.cli import main; main()"
_NAMES: Final = ("first", "second", "third")


@frozen(kw_only=True)
class _Sizes:
    volumes: int
    rounds: int
    mebibytes: int


_FULL = _Sizes(volumes=1_000, rounds=9, mebibytes=256)
_QUICK = _Sizes(volumes=50, rounds=2, mebibytes=16)


def named(scale: Scale, progress: Progress) -> Iterator[Row]:
    """Measures named volumes, where this machine can mount them."""
    sizes = _QUICK if scale is QUICK else _FULL
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        yield Row(group="named", what="named volumes", client="stowstore", note="needs root and /dev/fuse")
        return
    with _place() as directory:
        volumes = NamedVolumes(directory / "volumes")
        progress("named: registry")
        yield from _registry(volumes, sizes)
        progress("named: resize")
        yield from _resized(volumes)
        progress("named: memory")
        yield from _memory(volumes, directory, sizes)
        progress("named: jobs")
        yield from _jobs(volumes, sizes)


def _registry(volumes: NamedVolumes, sizes: _Sizes) -> Iterator[Row]:
    """The first volume of a registry finds out what the host can do; it is not one of those that are measured."""
    volumes.create("probe", size="1MB")
    volumes.remove("probe")
    made = [_timed(lambda name=name: volumes.create(name, size="1MB")) for name in _many(sizes.volumes)]
    yield _limited("create a volume", median(made), 0.150)
    listed = min(_timed(volumes.list) for _ in range(sizes.rounds))
    yield _limited(f"list {sizes.volumes:,} volumes", listed, 0.200)
    removed = [_timed(lambda name=name: volumes.remove(name)) for name in _many(sizes.volumes)]
    yield _limited("remove a volume", median(removed), 0.150)


def _resized(volumes: NamedVolumes) -> Iterator[Row]:
    volumes.create("resized", size="10MB")
    with volumes.attach("resized", holder=Holder(job="bench")) as attached:
        (attached.path / "file").write_bytes(os.urandom(_MIB))
        spent = [_timed(lambda size=size: volumes.resize("resized", size)) for size in ("1PB", "2MB", "8191PB")]
    yield _limited("resize a volume in use", max(spent), 0.100)
    volumes.remove("resized")


def _memory(volumes: NamedVolumes, directory: Path, sizes: _Sizes) -> Iterator[Row]:
    """A volume in memory beside a mount of a volume that has its store, its journal and its cache in memory."""
    volumes.create("memory", size=f"{sizes.mebibytes * 4}MB", volume_type="memory")
    speeds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        plain = Volume.new("plain", f"file://{shared}/root", metadata_store_type="memory")
        mount = plain.blocking.mount(
            directory / "plain", f"{shared}/meta", f"{shared}/cache", options=MountOptions(metrics_port=None)
        )
        try:
            with volumes.attach("memory", holder=Holder(job="bench")) as attached:
                for client, path in (("mount in memory", mount), ("stowstore", attached.path)) * sizes.rounds:
                    speed = sizes.mebibytes / _timed(lambda path=path: _write(path / "file", sizes.mebibytes))
                    speeds[client] = max(speeds.get(client, 0.0), speed)
                    (path / "file").unlink()
        finally:
            plain.blocking.unmount()
    for client, speed in speeds.items():
        ratio = speed / speeds["mount in memory"]
        yield Row(
            group="named",
            what="write to a volume in memory",
            client=client,
            figure=f"{speed:,.0f} MiB/s",
            ratio=ratio,
            target="at least 0.5" if client == "stowstore" else "",
            met=ratio >= 0.5 if client == "stowstore" else None,
        )
    volumes.remove("memory", force=True)


def _jobs(volumes: NamedVolumes, sizes: _Sizes) -> Iterator[Row]:
    """Whole commands, the interpreter's start included, with volumes that are mounted and that are not."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        yield Row(group="named", what="start a job", client="bubblewrap", note="bwrap is not installed")
        return
    for name in _NAMES:
        volumes.create(name, size="50MB")
    alone = [bwrap, "--ro-bind", "/", "/", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "true"]
    job = [sys.executable, "-c", _MAIN, "run", *(f"--volume={name}" for name in _NAMES), "true"]
    empty = [sys.executable, "-c", _MAIN, "run", "true"]
    reference = min(_ran(alone) for _ in range(sizes.rounds))
    yield Row(group="named", what="start a job", client="bubblewrap alone", wall=reference)
    yield _job("start a job without volumes", [_ran(empty) for _ in range(sizes.rounds)], reference)
    cold = []
    for _ in range(sizes.rounds):
        cold.append(_ran(job))
        _await_unmounted()
    yield _job("start a job with three volumes, none mounted", cold, reference)
    attached = [volumes.attach(name, holder=Holder(job="bench")) for name in _NAMES]
    warm = [_ran(job) for _ in range(sizes.rounds)]
    for one in attached:
        one.release()
    yield _job("start a job with three volumes in use", warm, reference)
    _await_unmounted()
    for name in _NAMES:
        volumes.remove(name)


def _job(what: str, times: list[float], reference: float) -> Row:
    wall = min(times)
    limited = "three" in what
    return Row(
        group="named",
        what=what,
        client="stowstore",
        wall=wall,
        figure=f"{(wall - reference) * 1000:,.0f} ms beyond bubblewrap",
        target="under 500 ms beyond" if limited else "",
        met=wall - reference < 0.5 if limited else None,
    )


def _limited(what: str, seconds: float, limit: float) -> Row:
    return Row(
        group="named",
        what=what,
        client="stowstore",
        wall=seconds,
        target=f"under {limit * 1000:.0f} ms",
        met=seconds < limit,
    )


def _many(count: int) -> list[str]:
    return [f"volume-{number}" for number in range(count)]


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _write(path: Path, mebibytes: int) -> None:
    block = os.urandom(_MIB)
    with path.open("wb", buffering=0) as sink:
        for _ in range(mebibytes):
            sink.write(block)


def _ran(command: list[str]) -> float:
    return _timed(lambda: subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=True))


def _await_unmounted() -> None:
    end = time.monotonic() + _SECONDS
    while table.known() and time.monotonic() < end:
        time.sleep(0.05)


@contextmanager
def _place() -> Iterator[Path]:
    """A registry and mounts of our own, of which nothing is left."""
    with tempfile.TemporaryDirectory(prefix="stowstore-bench-") as directory:
        told = {
            "STOWSTORE_ROOT": f"{directory}/volumes",
            "STOWSTORE_RUNTIME_DIR": f"{directory}/run",
            "STOWSTORE_IDLE_SECONDS": "0.1",
            # An installed package has its bytecode, and what is measured is no compiler.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        }
        before = {name: os.environ.get(name) for name in told}
        os.environ.update(told)
        try:
            yield Path(directory)
            _await_unmounted()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
