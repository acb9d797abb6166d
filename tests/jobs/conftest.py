"""Jobs with a registry below a temporary directory, isolated by bubblewrap and by namespaces; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.fuse import device
from stowstore.mounts import table
from tests.jobs.harness import Jobs, eventually, processes_with
from tests.servers.installing import cache_directory
from tests.servers.requiring import are_required


def _refuse(reason: str) -> None:
    if are_required():
        pytest.fail(f"{reason} (required, because CI or STOWSTORE_REQUIRE_SERVERS is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where no namespaces can be made, found out by making them; fails there where that is required."""
    more = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    try:
        made = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", *more, "true"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError as error:
        _refuse(str(error))
    else:
        if made.returncode:
            _refuse(f"no namespaces can be made here: {made.stderr.strip()}")


@pytest.fixture(scope="session")
def fuse() -> None:
    """Skips where volumes cannot be mounted; fails there where that is required."""
    if os.geteuid() != 0 or not os.access(device.FUSE_DEVICE, os.R_OK | os.W_OK):
        _refuse(f"these tests mount as root, by {device.FUSE_DEVICE}")


@pytest.fixture
def hang_ups() -> Iterator[None]:
    """Has children end at SIGHUP, which is ignored by them where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def jobs(
    request: pytest.FixtureRequest,
    hang_ups: None,
    namespaces: None,
    bubblewrap: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Jobs]:
    """Jobs in bubblewrap, or the sandbox a test asks for; what it leaves mounted or running is ended, and fails it."""
    monkeypatch.setenv("STOWSTORE_RUNTIME_DIR", str(tmp_path / "run"))
    # What was installed for the tests stays where it is, though the cache is the test's own.
    monkeypatch.setenv("STOWSTORE_SERVERS", str(cache_directory()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.setenv("STOWSTORE_IDLE_SECONDS", "0.2")
    for name in ("STOWSTORE_ROOT", "STOWSTORE_JOB_SCRATCH", "STOWSTORE_JOB_SYSTEM", "STOWSTORE_SANDBOX"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "run").mkdir(mode=0o700)
    found = Jobs(tmp_path, getattr(request, "param", "bubblewrap"), capfd)
    try:
        yield found
        if not request.session.testsfailed:
            # Daemons end by themselves when no job has a lease.
            assert eventually(lambda: not found.mounts() and not processes_with(str(tmp_path)))
    finally:
        for record in table.known():
            if record.is_alive:
                os.kill(record.pid, 9)
        for path in found.mounts():
            device.unmount(path, patience=0.0)
