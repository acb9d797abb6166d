"""Reading through fsspec: scans of a parquet dataset on Ceph's gateway, and the listing of a large directory.

Each scan runs in a process of its own (this module, run as a program), and the clients take turns: s3fs and obstore's
own file system read plain objects, stowstore the same objects and the same files in a version of a volume.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from benchmarks.model import Measure, Row
from benchmarks.scale import QUICK, Scale

__all__ = ["interop"]

Progress = Callable[[str], None]

#: How much parquet is scanned, in MiB; the figure to reach is for 1024.
SIZE_VARIABLE: Final = "STOWSTORE_BENCH_PARQUET_MIB"

_PROJECT = Path(__file__).resolve().parents[1]
_MIB: Final = 1 << 20
_SECONDS: Final = 300
_FILE_MIB: Final = 32
#: What a row takes in a file: seven random numbers do not compress, and what does is little.
_ROW_BYTES: Final = 76
_LISTED: Final = 10_000
_READERS: Final = ("s3fs", "obstore", "stow", "stowvol")
_SHOWN: Final = {"stow": "stowstore, objects", "stowvol": "stowstore, version"}
_TASKS: Final = ("pyarrow dataset", "pandas")


@frozen(kw_only=True)
class _Place:
    """A gateway with a bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str

    def ask(self, task: str, **more: Any) -> Mapping[str, Any]:
        """Has a task done by a fresh process.

        Raises:
            RuntimeError: it failed; the message is the end of what it said.
        """
        order = {
            "task": task,
            "endpoint": self.endpoint,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "bucket": self.bucket,
            **more,
        }
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.interop"],
            input=json.dumps(order),
            cwd=_PROJECT,
            env={**os.environ, "PYTHONPATH": str(_PROJECT)},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if run.returncode:
            raise RuntimeError(" ".join(run.stderr.splitlines()[-1:]) or f"status {run.returncode}")
        answer: dict[str, Any] = json.loads(run.stdout)
        return answer


def interop(scale: Scale, progress: Progress) -> Iterator[Row]:
    """Scans and listings through fsspec."""
    try:
        from tests import servers
    except ImportError as error:
        yield _row("everything", "all", note=f"no servers from here: {error}")
        return
    try:
        server = servers.radosgw.start()
    except servers.ServerError as error:
        yield _row("everything", "all", note=f"the server cannot be provided: {error}")
        return
    with server:
        place = _Place(
            endpoint=server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
            bucket=f"bench-{uuid.uuid4().hex[:12]}",
        )
        mib = int(os.environ.get(SIZE_VARIABLE, "8" if scale is QUICK else "1024"))
        progress(f"interop: writing {mib} MiB of parquet")
        try:
            made = place.ask("make", mib=mib)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            yield _row("everything", "all", note=f"{type(error).__name__}: {error}"[:160])
            return
        for task in _TASKS:
            yield from _scanned(place, task, made, scale, progress)
        yield from _listed(place, scale, progress)


def _scanned(place: _Place, task: str, made: Mapping[str, Any], scale: Scale, progress: Progress) -> Iterator[Row]:
    what = f"{task}, {made['bytes'] / _MIB:,.0f} MiB in {made['files']} files"
    walls: dict[str, list[float]] = {reader: [] for reader in _READERS}
    cpus: dict[str, list[float]] = {reader: [] for reader in _READERS}
    peaks: dict[str, int] = {}
    notes: dict[str, str] = {}
    for turn in range(1 if scale is QUICK else 2):
        for reader in _READERS:
            progress(f"interop: {task}: {reader}, round {turn + 1}")
            try:
                found = place.ask("scan", what=task, reader=reader, locator=made["locator"], rows=made["rows"])
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                notes[reader] = f"{type(error).__name__}: {error}"[:160]
                continue
            walls[reader].append(found["wall"])
            cpus[reader].append(found["cpu"])
            peaks[reader] = max(peaks.get(reader, 0), found["peak"])
    for reader in _READERS:
        if not walls[reader]:
            yield _row(what, _SHOWN.get(reader, reader), note=notes.get(reader, "not measured"))
            continue
        wall = min(walls[reader])
        target, met = "", None
        if reader == "stowvol" and walls["s3fs"] and walls["obstore"]:
            target = "at most 1x s3fs and 1.3x obstore"
            met = wall <= min(walls["s3fs"]) and wall <= 1.3 * min(walls["obstore"])
        yield _row(
            what,
            _SHOWN.get(reader, reader),
            wall=wall,
            figure=f"{made['bytes'] / _MIB / wall:,.0f} MiB/s, {min(cpus[reader]):.2f} s of CPU",
            ratio=wall / min(walls["obstore"]) if walls["obstore"] else None,
            peak=peaks[reader],
            target=target,
            met=met,
        )


def _listed(place: _Place, scale: Scale, progress: Progress) -> Iterator[Row]:
    count = 500 if scale is QUICK else _LISTED
    progress(f"interop: a directory of {count:,} files")
    what = f"ls of {count:,} files"
    try:
        found = place.ask("list", count=count)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        yield _row(what, "all", note=f"{type(error).__name__}: {error}"[:160])
        return
    for client, wall in found.items():
        ours = client.startswith("version")
        yield _row(
            what, client, wall=wall, target="under 50 ms" if ours else "", met=wall < 0.05 if ours else None
        )  # fmt: skip


def _row(what: str, client: str, **more: Any) -> Row:
    return Row(group="interop", what=what, client=client, measure=Measure.WALL, **more)


# -- what the processes do -------------------------------------------------------------------------------------------


def _work(order: Mapping[str, Any]) -> Mapping[str, Any]:
    import stowstore.locations.s3.location  # noqa: F401
    from stowstore.volumes import Volume

    root = f"s3://{order['bucket']}/root?endpoint={order['endpoint']}"
    secrets = {"access_key_id": order["access_key"], "secret_key": order["secret_key"]}
    Volume.configure(root, options=secrets)
    return _WORK[order["task"]](order, root)


def _make(order: Mapping[str, Any], root: str) -> Mapping[str, Any]:
    """The same files as objects and in a version."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    from stowstore import Volume, open_store

    store = open_store(
        f"s3://{order['bucket']}?endpoint={order['endpoint']}",
        options={"access_key_id": order["access_key"], "secret_key": order["secret_key"]},
    )
    chance = np.random.default_rng(7)
    volume = Volume.new("data", root)
    total = rows = 0
    wanted = order["mib"] * _MIB
    per_file = min(wanted, _FILE_MIB * _MIB) // _ROW_BYTES
    count = 0
    with volume.blocking as files:
        files.mkdir("/scan")
        while total < wanted:
            name = f"part-{count:03}.parquet"
            count += 1
            columns: dict[str, Any] = {f"x{number}": chance.random(per_file) for number in range(7)}
            columns["id"] = np.arange(rows, rows + per_file)
            columns["kind"] = pa.array([f"kind {number % 7}" for number in range(per_file)])
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.table(columns), sink, row_group_size=128 << 10)
            data = sink.getvalue().to_pybytes()
            files.write_bytes(f"/scan/{name}", data)
            store.write_bytes(store.base_container_fqn.join("scan", name), data)
            total, rows = total + len(data), rows + per_file
        version = volume.blocking.commit()
    return {"bytes": total, "files": count, "rows": rows, "locator": version.locator}


def _scan(order: Mapping[str, Any], root: str) -> Mapping[str, Any]:
    import pandas as pd
    from pyarrow import dataset

    # Importing is not scanning; connecting, opening and reading are measured.
    fs, path = _file_system(order)
    began, cpu = time.perf_counter(), time.process_time()
    if order["what"] == "pandas":
        rows = len(pd.read_parquet(path, filesystem=fs))
    else:
        rows = dataset.dataset(path, filesystem=fs, format="parquet").to_table().num_rows
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    if rows != order["rows"]:
        raise RuntimeError(f"{rows} rows were read of {order['rows']}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {"wall": wall, "cpu": used, "peak": peak}


def _file_system(order: Mapping[str, Any]) -> tuple[Any, str]:
    objects = f"{order['bucket']}/scan"
    if order["reader"] == "s3fs":
        import aiobotocore.session  # noqa: F401
        import s3fs

        keys = {"key": order["access_key"], "secret": order["secret_key"]}
        return s3fs.S3FileSystem(endpoint_url=order["endpoint"], **keys), objects
    if order["reader"] == "obstore":
        from obstore.fsspec import FsspecStore

        store = FsspecStore(
            "s3",
            endpoint=order["endpoint"],
            access_key_id=order["access_key"],
            secret_access_key=order["secret_key"],
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        return store, objects
    if order["reader"] == "stow":
        from stowstore.interop.fsspec.store import StowFileSystem

        keys = {"access_key_id": order["access_key"], "secret_key": order["secret_key"]}
        return StowFileSystem(query=f"endpoint={order['endpoint']}", **keys), f"s3/{objects}"
    from stowstore.interop.fsspec.urls import path_of, query_of, volume_url
    from stowstore.interop.fsspec.volume import VolumeFileSystem

    url = volume_url(order["locator"], "scan")
    return VolumeFileSystem(query=query_of(url)), path_of(url, "stowvol")


def _list(order: Mapping[str, Any], root: str) -> Mapping[str, Any]:
    """The best of a few listings by file systems opened anew, and of a second one by each."""
    import gc
    import tempfile

    from stowstore import Volume
    from stowstore.interop.fsspec.urls import path_of, query_of, volume_url
    from stowstore.interop.fsspec.volume import VolumeFileSystem

    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="stowstore-bench-") as directory:
        for where, place in (("disk", f"file://{directory}/root"), ("radosgw", root)):
            volume = Volume.new("listed", place)
            with volume.blocking as files:
                files.mkdir("/many")
                for number in range(order["count"]):
                    files.write_bytes(f"/many/{number:08}", b"x")
                version = volume.blocking.commit()
            version.blocking.close()
            url = volume_url(version, "many")
            path = path_of(url, "stowvol")
            first, again = [], []
            for _ in range(5):
                # Opened anew, with nothing in its caches.
                fs = VolumeFileSystem(query=query_of(url), skip_instance_cache=True)
                # What came before has left is not for the listing to clear away.
                gc.collect()
                for walls in (first, again):
                    began = time.perf_counter()
                    entries = fs.ls(path, detail=True)
                    walls.append(time.perf_counter() - began)
                    if len(entries) != order["count"]:
                        raise RuntimeError(f"{len(entries)} entries of {order['count']}")
            found[f"version on {where}, first"] = min(first)
            found[f"version on {where}, again"] = min(again)
    return found


_WORK: Final[Mapping[str, Callable[[Mapping[str, Any], str], Mapping[str, Any]]]] = {
    "list": _list,
    "make": _make,
    "scan": _scan,
}

if __name__ == "__main__":
    json.dump(_work(json.load(sys.stdin)), sys.stdout)
