"""What a mount does while something else goes on: commits, a store that hangs, a kernel that reads by itself.

None of this is pinned to one processor: it is about what the others do meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.clients import CLIENTS, Client, Service
from benchmarks.memory import back_free_memory
from benchmarks.model import Row
from benchmarks.mount_places import WORKER, Progress, Sizes, measured, mounted, plain, row
from stowstore import Volume
from stowstore.config import ContainerPolicy
from stowstore.mounts import control, table
from stowstore.versions.address import open_root_store

__all__ = ["beside_a_commit", "beside_a_slow_store", "passed_through", "to_a_gateway", "unpinned"]

_MIB: Final = 1 << 20
_PACK: Final = 4 << 20
_UPLOADS: Final = 8
_BUCKET: Final = "bench-mount"
_HANGING: Final = 5.0
_JOURNALLED: Final = 3.0


def unpinned(local: Path, sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """Small files with and without spinning, in turn: waking a virtual processor costs more than serving."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(sizes.rounds):
        for client, spin in (("stowstore", 0.0), ("stowstore --spin 0.001", 0.001)):
            progress(f"mount: {client}, not pinned")
            with mounted(local, spin=spin) as (_, path):
                for what, value in measured("small_files", path / f"free-{number}", sizes.files).items():
                    found.setdefault((what, client), []).append(value)
    for (what, client), values in sorted(found.items()):
        figure = median(values)
        yield row(
            f"{what}, not pinned",
            client,
            f"{figure:,.0f} files/s",
            ratio=figure / median(found[what, "stowstore"]),
        )


def passed_through(local: Path, sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """A large file of a version: as the kernel reads it by itself, as the daemon serves it, and a plain one."""
    progress("mount: passthrough")
    content = os.urandom(sizes.mebibytes * _MIB)
    with tempfile.TemporaryDirectory(dir=local) as scratch, plain(local / "beside") as beside:
        (beside / "large").write_bytes(content)
        volume = Volume.new("versions", f"file://{scratch}/root")
        with volume.blocking as files:
            files.write_bytes("/large", content)
            version = volume.blocking.commit()
        del content
        found: dict[str, Mapping[str, float]] = {"local disk": _best("reads", beside, sizes)}
        refusal = None
        for client, cache in (("stowstore, passed through", f"{scratch}/cache"), ("stowstore, served", None)):
            path = version.blocking.mount(f"{scratch}/ro", cache_dir=cache)
            try:
                control.ask(path, "warmup")
                found[client] = _best("reads", path, sizes)
                if cache is not None:
                    refusal = control.ask(path, "stats")["passthrough"]["refusal"]
            finally:
                version.blocking.unmount()
    for what in found["local disk"]:
        for client, values in found.items():
            is_random, value = what.startswith("random"), values[what]
            ratio = value / found["local disk"][what]
            target, met = "", None
            if client.endswith("through"):
                target = "at least 100,000 a second" if is_random else "at least 0.5 of the local disk"
                met = None if refusal else value >= 100_000 if is_random else ratio >= 0.5
            note = refusal or "" if met is None and client.endswith("through") else ""
            figure = f"{value:,.0f} a second" if is_random else f"{value:,.0f} MiB/s"
            yield row(what, client, figure, ratio=ratio, target=note or target, met=met)


def beside_a_commit(local: Path, sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """How fast fresh data are published, and what becomes of small files and stats meanwhile."""
    progress("mount: commit")
    with mounted(local, upload_delay="1h") as (volume, path):
        with _working(path / "idle") as idle:
            time.sleep(sizes.idle)
        alone = _written_and_committed(volume, path / "first", sizes.commit)
        with _working(path / "busy") as busy:
            beside = _written_and_committed(volume, path / "second", sizes.commit, settle=0.0)
    figure = sizes.commit * _MIB / 1e6
    what = f"commit of {sizes.commit} MiB of fresh random data"
    yield row(what, "stowstore", f"{figure / alone:,.0f} MB/s", target="at least 400 MB/s", met=figure / alone >= 400)
    yield row(f"{what}, small files beside", "stowstore", f"{figure / beside:,.0f} MB/s")
    ratio = busy["files a second"] / idle["files a second"]
    yield row(
        "small files during a commit",
        "stowstore",
        f"{busy['files a second']:,.0f} files/s",
        ratio=ratio,
        target="at least half of when idle",
        met=ratio >= 0.5,
    )
    longest = busy["stat, 99th percentile"]
    yield row(
        "stat during a commit, 99th percentile",
        "stowstore",
        f"{longest * 1000:.2f} ms",
        target="under 20 ms",
        met=longest < 0.02,
    )


def to_a_gateway(local: Path, sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """How fast fresh data are published to Ceph's gateway, in turns with a client that only uploads as much."""
    progress("mount: commit to radosgw")
    what = f"commit of {sizes.commit} MiB of fresh random data to radosgw"
    try:
        from tests import servers

        server = servers.radosgw.start()
    except ImportError as error:
        yield row(what, "all", "", note=f"no servers from here: {error}")
        return
    except servers.ServerError as error:
        yield row(what, "all", "", note=f"the server cannot be provided: {error}")
        return
    found: dict[str, list[float]] = {"obstore": [], "stowstore": []}
    with server, tempfile.TemporaryDirectory(dir=local) as scratch:
        service = Service(
            endpoint=server.endpoint, bucket=_BUCKET, access_key=server.access_key, secret_key=server.secret_key
        )
        root = f"s3://{_BUCKET}/root?endpoint={server.endpoint}&region=us-east-1"
        access = {"access_key": server.access_key, "secret_key": server.secret_key}
        open_root_store(root, options=access, create=ContainerPolicy.IF_MISSING)[0].close()
        volume = Volume.new("bench", root, options=access)
        path = volume.blocking.mount(f"{scratch}/mnt", f"{scratch}/meta", f"{scratch}/cache", upload_delay="1h")
        try:
            for number in range(sizes.rounds):
                found["obstore"].append(_uploaded(CLIENTS["obstore"](service), sizes.commit, Path(scratch)))
                found["stowstore"].append(_written_and_committed(volume, path / f"file-{number}", sizes.commit))
        finally:
            volume.blocking.unmount()
    for client, walls in found.items():
        ratio = min(found["obstore"]) / min(walls)
        ours = client == "stowstore"
        yield row(
            what,
            client,
            f"{sizes.commit * _MIB / 1e6 / min(walls):,.0f} MB/s",
            ratio=ratio,
            target="at least 0.8 of the raw client" if ours else "",
            met=ratio >= 0.8 if ours else None,
        )


def beside_a_slow_store(local: Path, progress: Progress) -> Iterator[Row]:
    """A store that hangs: one in a mount of ours, whose daemon is stopped while somebody reads what is not cached."""
    progress("mount: a store that hangs")
    with mounted(local) as (_, outer), tempfile.TemporaryDirectory(dir=local) as scratch:
        volume = Volume.new("slow", f"file://{outer}/root")
        with volume.blocking as files:
            files.write_bytes("/large", os.urandom(4 * _MIB))
            volume.blocking.commit()
        path = volume.blocking.mount(f"{scratch}/mnt", f"{scratch}/meta", f"{scratch}/cache")
        record = table.find(outer)
        assert record is not None
        try:
            _drop_caches(outer)
            with _working(path / "beside") as found:
                time.sleep(0.2)
                os.kill(record.pid, signal.SIGSTOP)
                began = time.perf_counter()
                reader = subprocess.Popen(["cat", str(path / "large")], stdout=subprocess.DEVNULL)
                time.sleep(_HANGING)
                os.kill(record.pid, signal.SIGCONT)
                reader.wait()
                took = time.perf_counter() - began
        finally:
            os.kill(record.pid, signal.SIGCONT)
            volume.blocking.unmount()
    yield row(
        f"longest operation beside a read of {took:.1f} s",
        "stowstore",
        f"{found['longest'] * 1000:.1f} ms",
        target="under 50 ms",
        met=found["longest"] < 0.05 if took >= _HANGING else None,
    )


def _best(task: str, directory: Path, sizes: Sizes) -> Mapping[str, float]:
    found = [measured(task, directory, sizes.mebibytes) for _ in range(sizes.rounds)]
    return {what: max(one[what] for one in found) for what in found[0]}


def _written_and_committed(volume: Volume, path: Path, mebibytes: int, settle: float = _JOURNALLED) -> float:
    """Seconds that the commit alone takes, of data that were written just before."""
    with open(path, "wb", buffering=0) as file:
        file.writelines(os.urandom(_MIB) for _ in range(mebibytes))
    time.sleep(settle)
    back_free_memory(4 * mebibytes * _MIB, path.parent.parent)
    began = time.perf_counter()
    volume.blocking.commit()
    return time.perf_counter() - began


def _uploaded(client: Client, mebibytes: int, local: Path) -> float:
    """Seconds that a client takes to put fresh data in objects of the size of packs."""
    objects = [os.urandom(_PACK) for _ in range(mebibytes * _MIB // _PACK)]
    back_free_memory(4 * mebibytes * _MIB, local)
    with ThreadPoolExecutor(_UPLOADS) as pool:
        began = time.perf_counter()
        for done in [pool.submit(client.put, f"raw/{uuid.uuid4()}", data) for data in objects]:
            done.result()
        return time.perf_counter() - began


@contextmanager
def _working(directory: Path) -> Iterator[dict[str, float]]:
    """Makes small files and asks for them as long as the ``with`` lasts; what came of it is there afterwards."""
    found: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, "-S", str(WORKER), "beside", str(directory), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield found
        finally:
            said, _ = process.communicate()
    found.update(json.loads(said))


def _drop_caches(directory: Path) -> None:
    """Has the kernel forget the content of all files below a directory."""
    for place, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(f"{place}/{name}", os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
