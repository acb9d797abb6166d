"""Mounts whose daemons are forked from one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stowstore.mounts import nursery, table
from stowstore.mounts.options import Lifetime, MountOptions
from tests.mounts.conftest import Mounting

_OWN = MountOptions(lifetime=Lifetime.OWN, metrics_port=None)


def _session(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[3])


def _arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_daemons_of_one_block_are_forks_and_outlive_it(mounting: Mounting) -> None:
    """Each serves its own volume, in a session of its own, with a log of its own, after the block has ended."""
    with nursery.nursery():
        paths = [mounting.mount(mounting.volume(name), name, options=_OWN) for name in ("one", "two")]
    for path in paths:
        (path / "file").write_text(path.name)
    records = [table.find(path) for path in paths]
    assert ["one", "two"] == [(path / "file").read_text() for path in paths]
    for record in records:
        assert record is not None
        assert b"--nursery" in _arguments(record.pid)
        assert record.pid == _session(record.pid)
        assert "mount.ready" in Path(record.log).read_text()


def test_a_nursery_that_dies_is_done_without(mounting: Mounting) -> None:
    """Mounts are then started as they are outside of a block."""
    with nursery.nursery():
        first = mounting.mount(mounting.volume("one"), "one", options=_OWN)
        found = nursery.current()
        assert found is not None
        assert found._process is not None
        os.kill(found._process.pid, signal.SIGKILL)
        second = mounting.mount(mounting.volume("two"), "two", options=_OWN)
    for path, forked in ((first, True), (second, False)):
        record = table.find(path)
        assert record is not None
        assert forked == (b"--nursery" in _arguments(record.pid))


def test_mounts_that_end_with_their_parent_are_not_forked(mounting: Mounting) -> None:
    """Their daemons watch this process, by a pipe that only it holds."""
    with nursery.nursery():
        path = mounting.mount(mounting.volume("one"), "one")
    record = table.find(path)
    assert record is not None
    assert b"--lifeline" in _arguments(record.pid)


def test_an_error_of_a_forked_daemon_arrives(mounting: Mounting) -> None:
    """What keeps it from serving is raised here, in its own words, and nothing of it is left."""
    wrong = mounting.directory / "file"
    wrong.write_text("")
    with nursery.nursery(), pytest.raises(NotADirectoryError):
        mounting.mount(mounting.volume("one"), "one", options=_OWN, meta_dir=wrong / "meta")
    assert [] == table.known()


def test_a_nursery_loads_what_a_daemon_needs_and_no_more() -> None:
    """A job waits for it: web servers and clients, event loops and metrics that nobody asked for are not in it."""
    script = "import sys, stowstore.daemon.nursery; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded >= {"stowstore.daemon.process", "stowstore.locations.local", "sqlite3"}
    assert loaded.isdisjoint({"prometheus_client", "structlog", "asyncio", "ssl", "http.server"})
