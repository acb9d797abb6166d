"""machinable's own package from PyPI, with records in a store: mirrored while it runs, restored where nothing is left.

Each test runs programs in processes of their own: machinable imports a project's modules under their bare names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stowstore.records import RecordStore
from stowstore.records.opening import open_records
from tests import servers
from tests.locations.s3_buckets import fresh_bucket
from tests.records.places import fill, make

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("machinable") is None,
    reason="machinable is not installed: pip install 'stowstore[machinable]'",
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "machinable"
HEAD = """
import json, os, sys
from machinable import Execution, Index, Interface, Project, Storage, get
from stowstore.records.machinable import Stow
url = sys.argv[1]
def say(**values): print(json.dumps(values))
"""

Program = Callable[..., Any]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where records go."""
    return f"file://{tmp_path}/store"


@pytest.fixture
def program(tmp_path: Path, url: str) -> Program:
    """Runs a program in a project of the example's components, warnings as errors; returns the JSON it printed."""

    def run(code: str, project: str = "project", **environment: str) -> Any:
        directory = tmp_path / project
        if not directory.exists():
            shutil.copytree(EXAMPLE, directory)
        done = _python(["-c", HEAD + textwrap.dedent(code), url], directory, tmp_path, environment)
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None

    return run


def _python(args: list[str], directory: Path, above: Path, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(above / "cache"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(directory)]),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done


@pytest.fixture
def store(url: str) -> RecordStore:
    """The records themselves, as anybody sees them."""
    return open_records(url)


def _files(store: RecordStore, uuid: str) -> set[str]:
    return {file.path for file in store.manifest(uuid).files}


def test_the_example_on_a_real_server(tmp_path: Path, radosgw: servers.Server) -> None:
    """Executions are dispatched and mirrored to S3, and an empty directory gets everything back."""
    with fresh_bucket(radosgw) as bucket:
        url = f"s3://{bucket}/runs?endpoint={radosgw.endpoint}&region=us-east-1"
        keys = {"AWS_ACCESS_KEY_ID": radosgw.access_key, "AWS_SECRET_ACCESS_KEY": radosgw.secret_key}
        for name in ("here", "elsewhere"):
            shutil.copytree(EXAMPLE, tmp_path / name)

        first = _python(["run.py", url], tmp_path / "here", tmp_path, keys)
        # The two places share nothing but the server.
        shutil.rmtree(tmp_path / "here")
        shutil.rmtree(tmp_path / "cache")
        second = _python(["restore.py", url], tmp_path / "elsewhere", tmp_path, keys)

    assert "the best rate is 0.4; 1 records to be mirrored again\n" == first.stdout
    assert ["8 records", "best: 0.000000, looks best", "finished: True", "the best rate is 0.4"] == (
        second.stdout.splitlines()
    )


def test_what_is_saved_late_is_mirrored(program: Program, store: RecordStore) -> None:
    """Results, late files, labels and relations are all in the mirror when it is left, and the run with them."""
    said = program("""
        with Project("."), Stow(url) as mirror, Storage("./storage"):
            study, other = get("study", {"rate": 0.2}), get("study", {"rate": 0.3})
            study.launch()
            other.launch()
            other.save_file("before.txt", "x")
            study.save_file("late/file.txt", "late")
            open(study.local_directory("unofficial.txt"), "w").write("without a word")
            study.set_label("best")
            study.relate("uses", other)
            say(uuid=study.uuid, other=other.uuid, pending=mirror.pending)
    """)

    assert {"result.json", "late/file.txt", "unofficial.txt", "related/metadata.jsonl"} <= _files(store, said["uuid"])
    assert "before.txt" in _files(store, said["other"])
    assert "best" == store.manifest(said["uuid"]).label
    assert said["other"] in store.manifest(said["uuid"]).related()
    assert 2 == said["pending"]
    runs = store.search(parent=said["uuid"])
    assert 1 == len(runs)
    assert {"finished_at", "started_at", "output.log"} - {"output.log"} <= _files(store, runs[0])


def test_changes_arrive_while_it_runs(program: Program) -> None:
    """The follower brings what changed without anybody leaving the storage."""
    said = program("""
        import time
        with Project("."), Stow({"url": url, "follow_seconds": 0.1}) as mirror, Storage("./storage"):
            study = get("study")
            study.launch()
            study.save_file("late.txt", "late")
            deadline = time.monotonic() + 60
            while mirror.pending and time.monotonic() < deadline:
                time.sleep(0.05)
            files = [file.path for file in mirror.records.manifest(study.uuid).files]
            say(files=files, pending=mirror.pending)
    """)

    assert "late.txt" in said["files"]
    assert 0 == said["pending"]


def test_changes_to_records_of_earlier_sessions(program: Program, store: RecordStore) -> None:
    """A record that is only loaded and added to is mirrored, too, if the store has it."""
    uuid = program("""
        with Project("."), Stow(url), Storage("./storage"):
            study = get("study")
            study.launch()
            say(uuid=study.uuid)
    """)["uuid"]
    program("""
        with Project("."), Stow(url), Storage("./storage"):
            get("study").save_file("later.txt", "x")
    """)

    assert "later.txt" in _files(store, uuid)


def test_the_mirror_restores_what_home_lost(program: Program, tmp_path: Path) -> None:
    """Two records in both, home deleted: each is fetched when it is asked for."""
    program("""
        with Project("."), Stow(url), Storage("./storage"):
            get("study", {"rate": 0.2}).launch()
            get("study", {"rate": 0.3}).launch()
    """)
    shutil.rmtree(tmp_path / "project" / "storage")
    said = program("""
        with Project("."), Stow(url), Storage("./storage"):
            studies = [get("study", {"rate": rate}) for rate in (0.2, 0.3)]
            say(found=[study.load_file("result.json")["steps"] for study in studies],
                cached=[study.cached() for study in studies],
                finished=[study.execution.is_finished() for study in studies])
    """)

    assert {"found": [20, 20], "cached": [True, True], "finished": [True, True]} == said


def test_a_veto_keeps_a_record_out(program: Program, store: RecordStore) -> None:
    """``on_commit`` False keeps a record from the mirror, and an explicit upload brings it."""
    said = program("""
        with open("vetoed.py", "w") as out:
            out.write("from machinable import Interface\\n\\nclass Vetoed(Interface):\\n"
                      "    def on_commit(self):\\n        return False\\n")
        with Project("."), Stow(url) as mirror, Storage("./storage"):
            study = get("vetoed")
            study.materialize()
            study.save_file("late.txt", "x")
            say(uuid=study.uuid, contained=mirror.contains(study.uuid))
    """)
    assert not said["contained"]
    assert not store.contains(said["uuid"])
    program("""
        with Project("."), Stow(url) as mirror, Storage("./storage"):
            mirror.upload(get("vetoed"), related=False)
    """)

    assert store.contains(said["uuid"])


def test_an_execution_of_several(program: Program, store: RecordStore) -> None:
    """One execution that runs several interfaces leaves a run record of each in the mirror."""
    said = program("""
        with Project("."), Stow(url), Storage("./storage"):
            studies = [get("study", {"rate": rate}) for rate in (0.1, 0.2, 0.3)]
            with Execution():
                for study in studies:
                    study.launch()
            say(uuids=[study.uuid for study in studies])
    """)
    runs = [store.search(parent=uuid) for uuid in said["uuids"]]

    assert [1, 1, 1] == [len(found) for found in runs]
    assert all("finished_at" in _files(store, found[0]) for found in runs)
    assert all(store.verify(uuid, deep=True) for uuid in said["uuids"])
    restored = program(
        """
        with Project("."), Stow({"url": url, "directory": "./storage"}) as storage:
            Index.get().reindex(storage)
            say(finished=[get("study", {"rate": rate}).execution.is_finished() for rate in (0.1, 0.2, 0.3)])
        """,
        project="new",
    )
    assert [True, True, True] == restored["finished"]


def test_related_records_each_once(program: Program, store: RecordStore) -> None:
    """Uploads and downloads end on relations that are logged at both ends, and import each record once."""
    said = program("""
        with Project("."), Storage("./storage"):
            studies = [get("study", {"rate": rate}) for rate in (0.1, 0.2)]
            for study in studies:
                study.launch()
            report = get("report", uses=studies)
            report.launch()
            with Stow({"url": url, "directory": "./storage"}) as home:
                home.upload(report, related=2)
            say(report=report.uuid, studies=[study.uuid for study in studies])
    """)
    assert all(store.contains(uuid) for uuid in (said["report"], *said["studies"]))
    new = program(
        f"""
        with Project("."), Stow({{"url": url, "directory": "./storage"}}) as home:
            alone = home.download({said["studies"][0]!r}, related=False)
            found = home.download({said["report"]!r}, related=2)
            again = home.download({said["report"]!r}, related=2)
            index = Index.get()
            try:
                home.download("nothing")
            except FileNotFoundError as error:
                message = str(error)
            say(alone=alone, found=found, again=again, message=message, local=sorted(os.listdir("storage")),
                known=[index.get_by_id(uuid) is not None for uuid in {[said["report"], *said["studies"]]!r}],
                storage=index.get_by_id({said["report"]!r}).storage_id,
                uses=len(Interface.find_by_id({said["report"]!r}).uses))
        """,
        project="new",
    )

    assert [said["studies"][0]] == [Path(path).name for path in new["alone"]]
    assert said["report"] == Path(new["found"][0]).name
    assert sorted([said["report"], *said["studies"]]) == sorted(Path(path).name for path in new["found"])
    assert new["found"] == new["again"]
    assert sorted(Path(path).name for path in new["found"]) == new["local"]
    assert "nothing" in new["message"]
    assert ([True, True, True], "stow", 2) == (new["known"], new["storage"], new["uses"])


def test_verbs_tell_the_truth(program: Program, tmp_path: Path, store: RecordStore) -> None:
    """After a deletion nothing is contained, pulled or found; what is missing is not pushed."""
    said = program("""
        with Project("."), Storage("./storage"), Stow({"url": url, "directory": "./storage"}) as home:
            study = get("study")
            study.launch()
            uuid, directory = study.uuid, study.local_directory()
            before = [home.contains(uuid), home.search_for(study) == [uuid], home.pull(uuid) == home.home_uri(uuid)]
            pulled = home.pull(uuid, os.path.abspath("pulled"))
            deleted = [home.delete(uuid), home.delete(uuid), home.contains(uuid)]
            after = [home.search_for(study), home.pull(uuid), home.retrieve(uuid, os.path.abspath("again"))]
            try:
                home.push(os.path.abspath("missing"), uuid)
            except ValueError as error:
                message = str(error)
            say(before=before, pulled=pulled, deleted=deleted, after=after, message=message,
                pushed=home.push(directory, uuid) == home.home_uri(uuid), contained=home.contains(uuid),
                exists=os.path.exists("again"), entry=home.ensure_materialized().kind, root=home.root())
    """)

    assert [True, True, True] == said["before"]
    assert f"file://{tmp_path}/project/pulled" == said["pulled"]
    assert [True, False, False] == said["deleted"]
    assert [[], None, False] == said["after"]
    assert "is no record" in said["message"]
    assert (True, True, False) == (said["pushed"], said["contained"], said["exists"])
    assert ("Storage", f"{tmp_path}/project/storage") == (said["entry"], said["root"])


def test_machinable_reads_what_we_write(program: Program, tmp_path: Path) -> None:
    """A record made without machinable and retrieved from a store is ingested by its index as it is."""
    record = make(tmp_path / "made", config={"rate": 0.7}, predicate={"seed": 3}, label="ours", module="study")
    fill(record, {"result.json": b'{"x": 7, "steps": 1}'})
    with open_records(f"file://{tmp_path}/store") as records:
        records.commit(record)
        assert records.retrieve(record.uuid, tmp_path / "copy")
    said = program(f"""
        with Project("."):
            uuid = Index.get().ingest_directory({str(tmp_path / "copy")!r})
            entry = Index.get().get_by_id(uuid)
            study = Interface.find_by_id(uuid)
            say(uuid=uuid, key=entry.identity_key, predicate=entry.predicate_key, label=entry.label,
                x=study.load_file("result.json")["x"])
    """)

    assert {
        "uuid": record.uuid,
        "key": record.header.identity_key,
        "predicate": record.header.predicate_key,
        "label": "ours",
        "x": 7,
    } == said


def test_a_mirror_that_cannot_be_reached_is_told(program: Program, tmp_path: Path) -> None:
    """Without a URL there is no storage; the error says what to write."""
    said = program("""
        try:
            with Project("."), Stow():
                pass
        except ValueError as error:
            say(message=str(error))
    """)

    assert "has no url" in said["message"]
