"""Registries of named volumes on real mounts, gone with everything in them after each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowstore.mounts import table
from stowstore.named import Holder, NamedVolumes
from stowstore.named.backings.mounting import mount_points
from stowstore.named.errors import NamedError
from stowstore.volumes.registry import registry
from tests.mounts.conftest import fuse  # noqa: F401
from tests.servers.requiring import are_required

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a registry that is still to be made, and a process whose environment knows of no other."""
    base = tmp_path / "volumes"
    for name in [name for name in os.environ if name.startswith("STOWSTORE_") and "REQUIRE" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STOWSTORE_ROOT", str(base))
    monkeypatch.setenv("STOWSTORE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STOWSTORE_IDLE_SECONDS", "1")
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    return base


@pytest.fixture
def plain(alone: Path) -> NamedVolumes:
    """A registry for tests that mount nothing."""
    return NamedVolumes(alone)


@pytest.fixture
def host(fuse: None, alone: Path) -> Iterator[NamedVolumes]:  # noqa: F811
    """A registry whose volumes can be attached; nothing of them is left afterwards."""
    volumes = NamedVolumes(alone)
    try:
        yield volumes
    finally:
        for name in volumes.names():
            with contextlib.suppress(NamedError, OSError):
                volumes.remove(name, force=True)
        left = [record for record in table.known() if record.is_alive]
        for record in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, 9)
        for path in sorted(mount_points()):
            if Path(path).is_relative_to(alone.parent):
                subprocess.run(["umount", "-l", path], check=False, capture_output=True)
        registry.close_all()


@pytest.fixture(scope="session")
def loops() -> None:
    """Skips where no loop device can be mounted; fails there when everything is required."""
    missing = None
    if os.geteuid() != 0:
        missing = "loop mounts need root"
    elif shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        missing = "mkfs.ext4 is missing; on Debian: apt-get install e2fsprogs"
    if missing is not None:
        if are_required() and os.geteuid() == 0:
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture
def stow(alone: Path, tmp_path: Path) -> Run:
    """Runs ``stowstore`` in a process of its own on the registry of this test."""

    def run(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stowstore", *args],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            **more,  # type: ignore[call-overload]
        )

    return run


@pytest.fixture
def job() -> Holder:
    """Who attaches volumes in tests."""
    return Holder(job="job-1", command="sleep 1000")


def mounted_below(directory: Path) -> list[str]:
    """What is mounted below a directory."""
    return [path for path in mount_points() if Path(path).is_relative_to(directory)]


__all__ = ["Run", "mounted_below"]
