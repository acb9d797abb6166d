"""What reads through fsspec reads versions of volumes: tables, arrays, queries, paths and workers, without a mount."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stowstore.interop.fsspec import store_url, volume_url
from stowstore.interop.fsspec.urls import path_of
from stowstore.volumes import Conflicts, Volume
from tests.interop.places import s3_options
from tests.servers import Server

FILES, ROWS = 4, 2_500


@pytest.fixture
def version(tmp_path: Path) -> Any:
    """A version with a dataset of parquet files, partitioned by year."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    volume = Volume.new("table", f"file://{tmp_path}/root")
    with volume.blocking as files:
        for number in range(FILES):
            rows = range(number * ROWS, (number + 1) * ROWS)
            table = pa.table({"id": list(rows), "half": [row / 2 for row in rows]})
            sink = pa.BufferOutputStream()
            parquet.write_table(table, sink, row_group_size=500)
            files.makedirs(f"/table/year={2020 + number}")
            files.write_bytes(f"/table/year={2020 + number}/part.parquet", sink.getvalue().to_pybytes())
        return volume.blocking.commit()


def test_pandas_reads_and_writes_by_url(version: Any, tmp_path: Path) -> None:
    """A frame of one file and of a whole dataset; one that is written lies in the volume and its next version."""
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.read_parquet(volume_url(version, "table/year=2021/part.parquet"))
    assert (ROWS, ROWS) == (len(frame), int(frame["id"].min()))
    whole = pd.read_parquet(volume_url(version, "table"), columns=["id"], filters=[("year", "=", 2022)])
    assert [*range(2 * ROWS, 3 * ROWS)] == sorted(whole["id"])
    url = f"stowvol://file{tmp_path}/root#table"
    frame.to_csv(f"{url}/out/frame.csv", index=False, storage_options={"access": "rw"})
    frame.to_parquet(f"{url}/out/frame.parquet", storage_options={"access": "rw"})
    second = fsspec.filesystem("stowvol", access="rw").finalize(url)
    for read, name in ((pd.read_csv, "frame.csv"), (pd.read_parquet, "frame.parquet")):
        pd.testing.assert_frame_equal(frame, read(volume_url(second, f"out/{name}")))


def test_pyarrow_scans_a_dataset(version: Any) -> None:
    """Partitions are found by their directories, and a filter reads the files it needs alone."""
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    fs, path = fsspec.core.url_to_fs(volume_url(version, "table"))
    found = dataset.dataset(path, filesystem=fs, format="parquet", partitioning="hive")
    assert (FILES, FILES * ROWS) == (len(found.files), found.count_rows())
    assert sum(range(FILES * ROWS)) == sum(found.to_table()["id"].to_pylist())
    one = found.to_table(filter=dataset.field("year") == 2023, columns=["half"])
    assert (ROWS, 3 * ROWS / 2) == (one.num_rows, one["half"][0].as_py())


def test_pyarrow_writes_a_dataset_into_a_volume_and_a_bucket(version: Any, radosgw: Server, bucket: str) -> None:
    """What is written as files of a volume or as objects is read again as it was."""
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    fs, path = fsspec.core.url_to_fs(volume_url(version, "table"))
    table = dataset.dataset(path, filesystem=fs, format="parquet", partitioning="hive").to_table()
    written = fsspec.filesystem("stowvol", access="rw")
    inside = f"{path.partition('#')[0]}#copy/table"
    objects = fsspec.filesystem("stow", **s3_options(radosgw))
    for target, base in ((written, inside), (objects, f"s3/{bucket}/table")):
        dataset.write_dataset(
            table, base, filesystem=target, format="parquet", partitioning=["year"], partitioning_flavor="hive"
        )
        again = dataset.dataset(base, filesystem=target, format="parquet", partitioning="hive").to_table()
        assert table.sort_by("id").select(["id", "half"]) == again.sort_by("id").select(["id", "half"])
    assert FILES == written.commit(inside).inode_count - 2 - FILES


def test_duckdb_queries_a_version(version: Any) -> None:
    """SQL over all files of a dataset, found by a pattern."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("stowvol"))
        url = volume_url(version, "table/*/*.parquet")
        query = f"select count(*), sum(id), max(year) from read_parquet('{url}', hive_partitioning=true)"
        assert (FILES * ROWS, sum(range(FILES * ROWS)), 2023) == connection.execute(query).fetchone()


def test_xarray_writes_and_opens_arrays(tmp_path: Path) -> None:
    """A dataset of named arrays goes into a volume as zarr, and comes out of its version, in part."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("zarr", reason="zarr is not installed")
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    values = np.arange(1200, dtype="f8").reshape(30, 40)
    made = xarray.Dataset({"t": (("x", "y"), values)}, coords={"x": np.arange(30)})
    url = f"stowvol://file{tmp_path}/root#climate/t.zarr"
    made.to_zarr(url, mode="w", zarr_format=3, consolidated=False, storage_options={"access": "rw"})
    version = fsspec.filesystem("stowvol", access="rw").finalize(url)
    with xarray.open_zarr(volume_url(version, "t.zarr"), consolidated=False, chunks=None) as found:
        assert (values[7:9, 3:5] == found["t"].sel(x=slice(7, 8))[:, 3:5].values).all()


def test_paths_of_universal_pathlib(version: Any, tmp_path: Path) -> None:
    """Paths go up and down in volumes and stores, know their address, and keep the options of their URL."""
    upath = pytest.importorskip("upath", reason="universal_pathlib is not installed")
    from upath.registry import register_implementation

    from stowstore.interop.upath import StowPath, VolumePath

    register_implementation("stow", StowPath, clobber=True)
    register_implementation("stowvol", VolumePath, clobber=True)
    top = upath.UPath(volume_url(version))
    assert isinstance(top, VolumePath)
    parts = sorted(path for path in top.rglob("*.parquet"))
    assert [f"year={year}" for year in range(2020, 2024)] == [path.parent.name for path in parts]
    assert (version.locator, True, True) == (parts[0].volume, parts[0].is_file(), parts[0].parent.is_dir())
    with parts[0].open("rb") as file:
        assert b"PAR1" == file.read(4)
    writable = upath.UPath(f"stowvol://file{tmp_path}/root#notes", access="rw") / "a" / "b.txt"
    writable.parent.mkdir(parents=True)
    writable.write_text("first")
    writable.rename(writable.with_name("c.txt"))
    made = writable.commit("notes")
    assert "first" == (upath.UPath(volume_url(made)) / "a" / "c.txt").read_text()
    stored = upath.UPath(store_url("file://main/k.txt", f"path={tmp_path}"))
    stored.write_text("object")
    assert str(stored) == f"stow://file/main/k.txt?path={tmp_path}" == str(upath.UPath(str(stored)))
    assert (["k.txt"], "object") == ([path.name for path in stored.parent.iterdir()], stored.read_text())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_worker_processes_read_one_version(version: Any, method: str) -> None:
    """Workers get the file system, and read the version without a mount."""
    fs, path = fsspec.core.url_to_fs(volume_url(version, "table"))
    names = fs.find(path)
    sizes = [fs.size(name) for name in names]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap_async(_tail, [(fs, name) for name in names]).get(90)
    assert [(size, b"PAR1") for size in sizes] == found


def test_a_forked_child_reads_what_its_parent_reads(version: Any, radosgw: Server, bucket: str) -> None:
    """After a fork both go on: a version on disk and objects of S3 are read again in the child."""
    code = """
        import json, multiprocessing, sys
        import fsspec
        from stowstore.interop.fsspec.store import StowFileSystem
        from stowstore.interop.fsspec.volume import VolumeFileSystem

        def look():
            with volume.open(path) as file:
                return [file.read(4).decode(), objects.cat_file(key).decode()]

        def child(queue):
            queue.put(look())

        path, key, options = json.load(sys.stdin)
        volume, objects = VolumeFileSystem(), StowFileSystem(**options)
        objects.pipe_file(key, b"object")
        found = [look()]
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        found += [queue.get(timeout=60), look()]
        process.join(60)
        print(json.dumps(found))
    """
    path = path_of(volume_url(version, "table/year=2020/part.parquet"), "stowvol")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        input=json.dumps([path, f"s3/{bucket}/key", s3_options(radosgw)]),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (0, [["PAR1", "object"]] * 3) == (run.returncode, json.loads(run.stdout or "null")), run.stderr


def _tail(fs: Any, name: str) -> tuple[int, bytes]:
    data = fs.cat_file(name)
    return len(data), data[-4:]


# -- dask ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of Dask; they import what this process does."""
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
            ) as local,
            distributed.Client(local) as client,
        ):
            client.wait_for_workers(2, timeout=90)
            yield client


def test_a_cluster_reads_one_version(version: Any, cluster: Any) -> None:
    """Worker processes share the reading of a dataset by its URL, and of files by the file system sent to them."""
    fs, path = fsspec.core.url_to_fs(volume_url(version, "table"))
    tasks = [cluster.submit(_worker_sum, fs, name, pure=False) for name in fs.find(path)]
    assert (sum(range(FILES * ROWS)), True) == (
        sum(total for total, _ in cluster.gather(tasks)),
        all(pid != os.getpid() for _, pid in cluster.gather(tasks)),
    )


def _worker_sum(fs: Any, name: str) -> tuple[int, int]:
    from pyarrow import parquet

    with fs.open(name) as file:
        return sum(parquet.read_table(file)["id"].to_pylist()), os.getpid()


def test_dask_frames_read_a_version(version: Any, cluster: Any) -> None:
    """A frame over all files of a version is summed by the cluster."""
    frames = pytest.importorskip("dask.dataframe", reason="dask[dataframe] is not installed")
    cluster.run(__import__, "stowstore.interop.fsspec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = frames.read_parquet(volume_url(version, "table"), columns=["id"])
        assert sum(range(FILES * ROWS)) == int(frame["id"].sum().compute(scheduler=cluster))


def test_forks_fan_out_and_merges_fan_in(version: Any, cluster: Any, tmp_path: Path) -> None:
    """Each worker writes a fork of one version; merging the forks brings all of it together."""
    tasks = [cluster.submit(_write_fork, version.to_json(), number, str(tmp_path), pure=False) for number in range(4)]
    forks = cluster.gather(tasks)
    result = Volume.blocking.at(f"{version.bucket}#table")
    merged = None
    for locator in forks:
        merged = result.blocking.merge(locator, conflicts=Conflicts.FAIL).version
    assert merged is not None
    fs, path = fsspec.core.url_to_fs(volume_url(merged))
    assert {f"{path}/results/{number}.json" for number in range(4)} == set(fs.find(f"{path}/results"))
    assert [{"sum": sum(range(number * ROWS, (number + 1) * ROWS))} for number in range(4)] == [
        json.loads(fs.cat_file(f"{path}/results/{number}.json")) for number in range(4)
    ]
    assert FILES == len(fs.find(f"{path}/table"))
    assert not version.files.exists("/results")


def _write_fork(text: str, number: int, directory: str) -> str:
    """What a worker does: reads its part of a version, and writes the result into a fork of its own."""
    from stowstore.volumes import ROVolume

    os.environ["XDG_CACHE_HOME"] = f"{directory}/worker-{number}"
    version = ROVolume.from_json(text)
    total, _ = _worker_sum(*fsspec.core.url_to_fs(volume_url(version, f"table/year={2020 + number}/part.parquet")))
    fork = version.blocking.fork(f"part-{number}")
    url = volume_url(f"{fork.bucket}#{fork.name}")
    fs = fsspec.filesystem("stowvol", access="rw")
    fs.pipe_file(f"{url}/results/{number}.json", json.dumps({"sum": total}).encode())
    locator: str = fs.finalize(url, f"part {number}").locator
    return locator


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    """Both file systems and the coroutines need none of the libraries that use them."""
    code = """
        import sys
        import stowstore.interop.asyncio, stowstore.interop.fsspec.store, stowstore.interop.fsspec.volume
        heavy = {"pandas", "pyarrow", "numpy", "zarr", "xarray", "duckdb", "dask", "distributed", "upath", "s3fs"}
        print(sorted(heavy & set(sys.modules)))
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    assert "[]\n" == subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
