"""What goes wrong on a cluster: workers that die or lack something, schedulers that are gone, clients that stop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from datastore.errors import ConfigError
from stowstore.chunks.block import PackKind
from stowstore.config import ContainerPolicy
from stowstore.interop.dask import ClusterFailed, DaskCluster, connect
from stowstore.runners import Place, Runner
from stowstore.transfer import export_spread, import_spread
from stowstore.transfer.import_notes import ImportNotes
from stowstore.transfer.import_pieces import ImportTask
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.versions.address import open_root
from stowstore.versions.check import check
from stowstore.versions.collect import collect
from stowstore.versions.findings import CheckDepth
from stowstore.versions.places import RootPlace
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session
from tests.cluster.conftest import TASK_FILES, Stow, distributed
from tests.cluster.dying import die_once
from tests.locations.s3_buckets import fresh_bucket
from tests.records.places import make
from tests.servers import Server
from tests.transfer.trees import snapshot

FILES = 600


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough small files for several tasks."""
    above = tmp_path_factory.mktemp("source") / "tree"
    for directory in range(3):
        (above / f"{directory}").mkdir(parents=True)
        for number in range(FILES // 3):
            (above / f"{directory}" / f"{number}").write_bytes(os.urandom(2_000))
    return above


@pytest.fixture
def place(tmp_path: Path) -> RootPlace:
    """An empty root, as workers open it."""
    with open_root(f"file://{tmp_path}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat()).store:
        return RootPlace.of(f"file://{tmp_path}/root")


@contextmanager
def _writing(place: RootPlace) -> Iterator[Session]:
    root = place.open_root()
    with root.store, Session.write(root, "data") as session:
        yield session


def _import(place: RootPlace, tree: Path, cluster: Any, on_progress: Progress | None = None) -> TransferReport:
    with _writing(place) as session:
        notes = ImportNotes(session.root, "data")
        report = import_spread(session.files, tree, cluster=cluster, root=place, notes=notes, on_progress=on_progress)
        session.commit()
        notes.end()
        return report


def _require_same(place: RootPlace, tree: Path, cluster: Any, out: Path) -> None:
    """Exports the newest version and compares it with what was imported."""
    root: Root = place.open_root()
    with root.store, Session.read(root, root.head("data")) as session:
        assert session.base is not None
        export_spread(session.files, out, cluster=cluster, root=place, version=session.base.name)
        assert snapshot(tree) == snapshot(out)
        with place.open() as chunks:
            assert check(root, chunks, depth=CheckDepth.DATA).is_whole


class _Once:
    """Does something the first time it is told of progress."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act: Callable[[], object] | None = act

    def __call__(self, report: TransferReport) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


class _Deadly:
    """A cluster one of whose workers kills itself, when a piece of each job is done and its result not yet told."""

    def __init__(self, cluster: DaskCluster, above: Path) -> None:
        self._cluster = cluster
        self._above = above
        self.deaths: list[Path] = []

    def at(self, place: Place[Any]) -> Runner[Any]:
        runner = self._cluster.at(place)
        mark = self._above / f"died-{len(self.deaths)}"
        self.deaths.append(mark)

        class Dying:
            slots = runner.slots

            def map(self, act: Callable[[Any, Any], Any], items: Iterable[Any]) -> Iterator[Any]:
                return runner.map(partial(die_once, act, str(mark)), items)

        return Dying()


def test_workers_that_are_killed_change_nothing(client: Any, place: RootPlace, tree: Path, tmp_path: Path) -> None:
    """One dies in the middle of an import, and of an export: what comes of them is the same."""
    cluster = _Deadly(DaskCluster(client), tmp_path)
    assert FILES == _import(place, tree, cluster).files
    _require_same(place, tree, cluster, tmp_path / "out")
    root = place.open_root()
    with root.store, place.open() as chunks:
        here = collect(root, chunks, grace=0.0)
        there = collect(root, chunks, grace=0.0, runner=DaskCluster(client).at(RootPlace.of(place.url)))
    # What the killed worker has put was put again.
    assert 0 < len(here.garbage)
    assert (here.garbage, here.live_bytes, here.sparse) == (there.garbage, there.live_bytes, there.sparse)
    assert [True] * 2 == [mark.exists() for mark in cluster.deaths]


class _Counting:
    """A cluster that counts the pieces of files it is asked for."""

    def __init__(self, cluster: DaskCluster) -> None:
        self._cluster = cluster
        self.pieces = 0

    def at(self, place: Place[Any]) -> Runner[Any]:
        runner = self._cluster.at(place)
        counting = self

        class Counted:
            slots = runner.slots

            def map(self, act: Callable[[Any, Any], Any], items: Iterable[Any]) -> Iterator[Any]:
                return runner.map(act, counting._counted(items))

        return Counted()

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ImportTask):
                self.pieces += len(item.pieces)
            yield item


def test_an_import_goes_on_where_one_was_interrupted(client: Any, place: RootPlace, tree: Path, tmp_path: Path) -> None:
    """Nothing of the first is visible, collection leaves what it has put, and the second does the rest."""

    def stop() -> None:
        raise KeyboardInterrupt

    cluster = _Counting(DaskCluster(client))
    with pytest.raises(KeyboardInterrupt):
        _import(place, tree, cluster, _Once(stop))
    root = place.open_root()
    waits: list[float] = []
    with root.store, place.open() as chunks:
        assert not root.has_volume("data")
        root.store.write_bytes(chunks.pack_reference(PackKind.DATA, bytes(16)), b"a pack older than all")
        os.utime(tmp_path / "root" / "packs" / "00" / bytes(16).hex(), (1, 1))
        done = collect(root, chunks, grace=0.0, dry_run=False, force=True, sleep=waits.append)
    assert 1 == done.deleted == len(done.garbage)
    assert 0 < len(done.young)
    # Nobody waits for the lease that an import leaves.
    assert 0 < max(waits) < 3600
    cluster.pieces = 0
    assert FILES == _import(place, tree, cluster).files
    assert 0 <= cluster.pieces <= FILES - TASK_FILES
    _require_same(place, tree, cluster, tmp_path / "out")
    assert [] == [path for name in ("imports", "leases") for path in (tmp_path / "root" / name).rglob("*")]


def test_a_scheduler_that_is_lost_is_told(client: Any, place: RootPlace, tree: Path) -> None:
    """The import ends with a clear error and nothing visible; another one, on another cluster, goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
            ) as local,
            distributed.Client(local.scheduler_address, timeout=1, set_as_default=False) as lost,
            pytest.raises(ClusterFailed, match="connection to the Dask scheduler was lost") as failed,
        ):
            _import(place, tree, DaskCluster(lost), _Once(local.close))
    assert "run the command again" in str(failed.value)
    root = place.open_root()
    with root.store:
        assert not root.has_volume("data")
    assert FILES == _import(place, tree, DaskCluster(client)).files


def test_credentials_absent_on_workers_are_told(
    stow: Stow, dask: str, client: Any, radosgw: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names a worker and what to do; once workers have credentials of their own, the same command works."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number}").write_bytes(os.urandom(10_000))
    mine = {"AWS_ACCESS_KEY_ID": radosgw.access_key, "AWS_SECRET_ACCESS_KEY": radosgw.secret_key}
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    with fresh_bucket(radosgw) as bucket:
        volume = f"s3://{bucket}/root?endpoint={radosgw.endpoint}&region=us-east-1#data"
        assert 0 == stow("volume", "create", volume).status
        command = ("volume", "import", str(source), volume, "--dask", dask)
        refused = stow(*command)
        assert 0 != refused.status
        assert "on the worker tcp://" in refused.err
        assert "credentials and keys are not sent to workers" in refused.err
        assert radosgw.secret_key not in refused.err
        client.run(_remember, mine)
        try:
            done = stow(*command, "--json")
            assert (0, 20) == (done.status, done.json["files"]), done.err
            exported = stow("volume", "export", volume, str(tmp_path / "out"), "--dask", dask)
            assert (0, snapshot(source)) == (exported.status, snapshot(tmp_path / "out"))
            assert 0 == stow("volume", "check", volume, "--depth", "data", "--dask", dask).status
            assert 0 == stow("volume", "gc", volume.partition("#")[0], "--dask", dask).status
        finally:
            client.run(_forget, list(mine))


def test_credentials_absent_on_workers_of_other_jobs_are_told(
    stow: Stow, dask: str, radosgw: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check, a collection, an export and a push end with the same words, and have done no harm."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    record = make(tmp_path / "record", {f"{number}": b"%d " % number * 500 for number in range(20)})
    with fresh_bucket(radosgw) as bucket:
        query = f"?endpoint={radosgw.endpoint}&region=us-east-1"
        root, records = f"s3://{bucket}/root{query}", f"s3://{bucket}/records{query}"
        assert 0 == stow("volume", "create", f"{root}#data").status
        assert 0 == stow("volume", "import", str(record.path), f"{root}#data").status
        for command in (
            ("volume", "check", root, "--depth", "data"),
            ("volume", "gc", root, "--grace", "0s"),
            ("volume", "export", f"{root}#data", str(tmp_path / "out")),
            ("record", "push", records, str(record.path)),
        ):
            refused = stow(*command, "--dask", dask)
            # A collection says that nothing was deleted, of whatever kind the reason is.
            assert (1 if "gc" in command else 6) == refused.status, refused.err
            assert "on the worker tcp://" in refused.err
            assert "no credentials" in refused.err
            assert "AWS_ACCESS_KEY_ID" in refused.err
            assert "credentials and keys are not sent to workers" in refused.err
            assert radosgw.secret_key not in refused.err
        assert 3 == stow("record", "show", records, record.uuid).status
        assert 0 == stow("volume", "check", root, "--depth", "data").status
        assert 0 == stow("record", "push", records, str(record.path)).status


def _remember(values: dict[str, str]) -> None:
    # The method of os.environ itself would be sent with a copy of it.
    os.environ.update(values)


def _forget(names: list[str]) -> None:
    for name in names:
        os.environ.pop(name, None)


def test_a_directory_that_workers_do_not_see_is_told(client: Any, place: RootPlace, tree: Path) -> None:
    """A task for a directory that is missing, or another one, there, is refused."""
    from stowstore.runners import require_same_directory

    status = tree.stat()
    require_same_directory(str(tree), status.st_ino, status.st_mtime_ns)
    with pytest.raises(ConfigError, match="another directory"):
        require_same_directory(str(tree), status.st_ino + 1, status.st_mtime_ns + 1)
    with pytest.raises(ConfigError, match="cannot see"):
        require_same_directory(f"{tree}/missing", status.st_ino, status.st_mtime_ns)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("volume", "check", "ROOT", "--dask", "nowhere"), "is no Dask scheduler (write tcp://HOST:PORT"),
        (("volume", "check", "mem://main/root", "--dask", "DASK"), "memory of this process"),
        (("volume", "import", "-", "ROOT#data", "--dask", "DASK"), "--dask imports directories"),
        (("volume", "export", "ROOT#data", "-", "--dask", "DASK"), "--dask exports into directories"),
    ],
)
def test_what_cannot_run_on_a_cluster_is_refused(
    stow: Stow, dask: str, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """With what is wrong and what to write instead."""
    root = f"file://{tmp_path}/root"
    for volume in (f"{root}#data", "mem://main/root#data"):
        stow("volume", "create", volume)
    answer = stow(*(text.replace("ROOT", root).replace("DASK", dask) for text in arguments))
    assert 0 != answer.status
    assert message in answer.err


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has its address."""
    monkeypatch.setattr("stowstore.interop.dask.cluster._CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(ClusterFailed, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        connect("tcp://127.0.0.1:1"),
    ):
        pass


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'stowstore\[dask\]'"), connect("tcp://127.0.0.1:1"):
        pass


def test_workers_of_this_machine_alone(stow: Stow, tmp_path: Path) -> None:
    """``local:1`` starts a worker process, and ends it."""
    root = f"file://{tmp_path}/root"
    assert 0 == stow("volume", "create", f"{root}#data").status
    answer = stow("volume", "check", root, "--depth", "data", "--json", "--dask", "local:1")
    assert (0, True) == (answer.status, answer.json["whole"])
