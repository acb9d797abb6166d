"""How servers are installed, listed, shared and missed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import KINDS, PROGRAMS, Address, Kind, ServerUnavailable
from tests.servers.processes import Processes
from tests.servers.requiring import are_required
from tests.servers_test.conftest import wait_for_end

PROJECT = Path(__file__).resolve().parents[2]


class Pretended(Kind):
    """A kind with nothing to download, to look at how installing goes about it."""

    name = "pretended"
    summary = "nothing"

    def __init__(self) -> None:
        self.builds = 0
        self.failure: Exception | None = None

    def available(self) -> str | None:
        return None

    def key(self) -> str:
        return "1"

    def build(self, folder: Path) -> None:
        self.builds += 1
        (folder / "part").touch()
        assert not self.folder.exists()
        time.sleep(0.05)
        if self.failure:
            raise self.failure

    def works(self, folder: Path) -> bool:
        return not (folder / "broken").exists()

    def serve(self, processes: Processes) -> None:
        raise AssertionError("never started")

    def address(self, processes: Processes) -> Address:
        raise AssertionError("never started")

    def probe(self, address: Address) -> str:
        raise AssertionError("never started")


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """A kind that is not installed yet, in a cache of its own."""
    monkeypatch.setenv("STOWSTORE_SERVERS", str(tmp_path / "cache"))
    return Pretended()


def test_many_who_want_a_server_install_it_once(kind: Pretended) -> None:
    """Of eight that ask at the same time one installs, and all return when it is done."""
    together = threading.Barrier(8)

    def install(_number: int) -> bool:
        together.wait()
        kind.install()
        return (kind.folder / "part").exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(install, range(8)))
    assert kind.builds == 1


def test_a_failed_installation_leaves_nothing_and_may_be_tried_again(kind: Pretended) -> None:
    """Nothing half-made is ever taken for an installation."""
    kind.failure = ServerUnavailable("no network")
    with pytest.raises(ServerUnavailable, match="no network"):
        kind.install()
    assert not kind.is_installed()
    assert [path.name for path in kind.folder.parent.iterdir()] == ["1.lock"]
    kind.failure = None
    kind.install()
    assert kind.is_installed()


def test_an_installation_that_no_longer_works_is_made_anew(kind: Pretended) -> None:
    """A cached tree that stopped running, after an upgrade of the system say, is replaced."""
    kind.install()
    (kind.folder / "broken").touch()
    kind.install()
    assert kind.builds == 2
    assert kind.is_installed()


@pytest.mark.parametrize(
    ("environment", "required"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "1"}, True),
        ({"CI": ""}, False),
        ({"CI": "false"}, False),
        ({"STOWSTORE_REQUIRE_SERVERS": "1"}, True),
        ({"CI": "false", "STOWSTORE_REQUIRE_SERVERS": "yes"}, True),
    ],
)
def test_servers_are_required_by_the_environment(
    environment: dict[str, str], required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CI` and `STOWSTORE_REQUIRE_SERVERS` require servers unless they say no."""
    for name in ("CI", "STOWSTORE_REQUIRE_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert are_required() is required


def _pytest(folder: Path, text: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs tests of their own with the project's fixtures."""
    (folder / "test_of_its_own.py").write_text(text)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI", "STOWSTORE_R"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-rA", "--rootdir", folder, *options, folder],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_missing_server_skips_on_a_laptop_and_fails_where_required(tmp_path: Path) -> None:
    """Where neither apt nor npm is to be had, the reason is shown; with `CI` set the run fails."""
    fixtures = ["radosgw", "azurite", "redis_server", "prometheus_server", "promtool"]
    text = "".join(f"def test_{name}({name}): raise AssertionError('ran without')\n" for name in fixtures)
    nowhere = {"PATH": "/nonexistent", "STOWSTORE_SERVERS": str(tmp_path / "cache")}
    laptop = _pytest(tmp_path, text, **nowhere)
    assert laptop.returncode == 0, laptop.stdout
    assert "5 skipped" in laptop.stdout
    for reason in ("radosgw: it comes from Debian", "azurite: there is no node or npm here", "redis: it comes from"):
        assert reason in laptop.stdout

    required = _pytest(tmp_path, text, **nowhere, CI="true")
    assert required.returncode == 1, required.stdout
    assert "5 errors" in required.stdout
    assert "required, because CI or STOWSTORE_REQUIRE_SERVERS is set" in required.stdout


def test_workers_share_one_server_which_ends_with_the_run(redis_server: object, tmp_path: Path) -> None:
    """Two processes of one run see the same server, and it is gone when the run is over."""
    text = f"""
import os, pathlib, time, pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number, redis_server, worker_id):
    notes = pathlib.Path({str(tmp_path / "notes")!r})
    notes.mkdir(exist_ok=True)
    (notes / worker_id).write_text(f"{{redis_server.root}} {{redis_server.keeper}}")
    while len(list(notes.iterdir())) < 2:
        time.sleep(0.05)
"""
    done = _pytest(tmp_path, text, "-n2", "--maxschedchunk=1")
    assert done.returncode == 0, done.stdout + done.stderr
    notes = {path.name: path.read_text() for path in (tmp_path / "notes").iterdir()}
    assert sorted(notes) == ["gw0", "gw1"]
    assert len(set(notes.values())) == 1
    root, keeper = notes["gw0"].split()
    assert not Path(root).exists()
    wait_for_end([int(keeper)], seconds=0)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.servers", *arguments]


def test_list_says_everything_as_json() -> None:
    """`list --json` has a row a server and program, with where it is installed or why it cannot be."""
    done = subprocess.run(_command("list", "--json"), cwd=PROJECT, capture_output=True, timeout=60, check=True)
    rows = json.loads(done.stdout)
    assert {row["name"] for row in rows} == {*KINDS, *PROGRAMS}
    assert all(set(row) == {"name", "summary", "installed", "unavailable"} for row in rows)


def test_run_prints_what_clients_need_until_interrupted(redis_server: object) -> None:
    """`run` prints an environment that a shell can read, and an interrupt ends it well."""
    with subprocess.Popen(
        _command("run", "redis"), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline(), running.stdout.readline()]
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    url = lines[0].strip().removeprefix("export REDIS_URL=")
    assert url.startswith("unix:///")
    assert lines[1] == f"# {url}\n"
    assert running.returncode == 0, errors
    assert "stopped" in errors
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_an_unknown_server_is_named_with_the_known_ones() -> None:
    """`run` of what there is not lists what there is."""
    done = subprocess.run(
        _command("run", "floppy"), cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "floppy" in done.stderr
    assert "radosgw" in done.stderr
