"""Runs jobs for tests: in this process, or by the command line in one of its own, on a registry of the test's own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from stowstore.fuse import device
from stowstore.jobs import Job, JobResult, Settings, parse_volume, run_job
from stowstore.named import NamedVolumes

__all__ = ["IN_BOTH", "REPOSITORY", "Jobs", "eventually", "processes_of", "processes_with", "session_of"]

REPOSITORY = Path(__file__).parents[2]

#: Runs a test in each of the sandboxes.
IN_BOTH = pytest.mark.parametrize("jobs", ["bubblewrap", "namespaces"], indirect=True)

#: How long anything may take that happens by itself, seconds, however busy the machine is.
_PATIENCE = 60.0

_MAIN = "from stowstore.cli import main; main()"


@frozen
class Jobs:
    """Jobs over one registry, isolated in one way."""

    directory: Path
    sandbox: str
    capture: pytest.CaptureFixture[str] = field(repr=False)

    @property
    def volumes(self) -> NamedVolumes:
        """The registry."""
        return NamedVolumes(self.directory / "volumes")

    def create(self, name: str, size: str = "50MB", **more: Any) -> None:
        """Makes a volume."""
        self.volumes.create(name, size=size, **more)

    def run(self, *command: str, volumes: tuple[str, ...] = (), **more: Any) -> JobResult:
        """Runs a job in this process; what it prints is in `output` afterwards."""
        notice = more.pop("notice", lambda text: None)
        job = Job(command=command, volumes=tuple(map(parse_volume, volumes)), **more)
        return run_job(job, self.volumes, settings=Settings(sandbox=self.sandbox), notice=notice)

    def says(self, script: str, *, volumes: tuple[str, ...] = (), expected: int = 0, **more: Any) -> str:
        """Runs a shell script as a job and returns what it prints, errors included; it ends with a status."""
        self.capture.readouterr()
        result = self.run("sh", "-c", f"exec 2>&1\n{script}", volumes=volumes, **more)
        said = self.capture.readouterr().out
        assert expected == result.exit_code, said
        return said

    def command(self, *arguments: str) -> list[str]:
        """The command line of this project."""
        return [sys.executable, "-c", _MAIN, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """What the command line needs to use this registry and sandbox."""
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "STOWSTORE_ROOT": str(self.directory / "volumes"),
            "STOWSTORE_SANDBOX": self.sandbox,
            **more,
        }

    def cli(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs the command line to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    @contextmanager
    def started(self, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """Starts the command line, waits for the first line it prints, and kills it in the end."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.environment(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                line = process.stdout.readline()
                assert line, process.stderr.read()
                yield process
            finally:
                process.kill()

    def is_leased(self, name: str) -> bool:
        """Whether anybody holds a lease on a volume, as the kernel says."""
        descriptor = os.open(self.volumes.base / name / ".lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def mounts(self) -> list[Path]:
        """What is mounted below the test's directory."""
        return [found.path for found in device.mounts() if found.path.is_relative_to(self.directory)]


def eventually(condition: Callable[[], object], seconds: float = _PATIENCE) -> bool:
    """Whether something becomes true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def processes_with(mark: str) -> list[int]:
    """The processes that have a text in their arguments or their environment, this one aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            said = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in said and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def session_of(supervisor: int) -> int:
    """The session of the job that a `stowstore run` has started; its mounts' daemons have sessions of their own."""
    (found,) = (
        pid
        for pid, fields in _stats()
        if int(fields[1]) == supervisor and b"stowstore.daemon" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return found


def processes_of(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    return [pid for pid, fields in _stats() if int(fields[3]) == session and fields[0] != b"Z"]


def _stats() -> Iterator[tuple[int, list[bytes]]]:
    """Every process, and what proc(5) says of it from its state on."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(path.parent.name), path.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
