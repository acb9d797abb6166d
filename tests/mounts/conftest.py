"""Real mounts for tests: below temporary directories, by daemons of their own, and always gone afterwards."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stowstore import RWVolume, Volume
from stowstore.fuse import device
from stowstore.mounts import table, unmounting
from stowstore.volumes.registry import registry
from tests import servers
from tests.mounts.pairs import Pair, paired
from tests.servers.requiring import are_required

__all__ = ["Mounting"]

#: How long mounts of a test may be there, seconds: less than pytest gives a test, which it cannot end in the kernel.
_LIMIT = 110.0


def _missing() -> str | None:
    if not os.access(device.FUSE_DEVICE, os.R_OK | os.W_OK):
        return f"{device.FUSE_DEVICE} is not here, or not open to this user"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "mounting needs root or fusermount3; on Debian: apt-get install fuse3"
    return None


@pytest.fixture(scope="session")
def fuse() -> None:
    """Skips where nothing can be mounted; fails there when everything is required."""
    missing = _missing()
    if missing is not None:
        if are_required():
            pytest.fail(missing)
        pytest.skip(missing)


class Mounting:
    """Mounts volumes below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = f"file://{directory}/root"
        self._paths: list[Path] = []

    def volume(self, name: str = "data") -> RWVolume:
        """A volume that is still to be made."""
        return Volume.new(name, self.root)

    def mount(self, volume: Any, name: str = "mnt", **how: Any) -> Path:
        """Mounts a volume; its journal and cache lie below the directory."""
        path = self.directory / name
        self._paths.append(path)
        found: Path = volume.blocking.mount(path, timeout=60, **how)
        return found

    def cut_off(self) -> None:
        """Has every call on the mounts fail that hangs there."""
        for one in device.mounts():
            if one.path.is_relative_to(self.directory):
                with contextlib.suppress(OSError):
                    device.cut_off(one.path)

    def end(self) -> None:
        """Unmounts whatever is left, however it is."""
        for path in self._paths:
            with contextlib.suppress(Exception):
                unmounting.unmount(path, timeout=10)
            with contextlib.suppress(Exception):
                device.unmount(path, patience=0.1)
        registry.close_all()


@pytest.fixture
def mounting(fuse: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounting]:
    """Mounts of one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STOWSTORE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    found = Mounting(tmp_path)
    watchdog = threading.Timer(_LIMIT, found.cut_off)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield found
    finally:
        watchdog.cancel()
        found.end()
        assert [one for one in device.mounts() if tmp_path in one.path.parents] == []
        assert [record for record in table.known() if record.is_alive] == []


@pytest.fixture(scope="module")
def pausable_gateway() -> Iterator[servers.Server]:
    """A gateway of S3 that the tests of a module may pause and stop."""
    try:
        server = servers.radosgw.start()
    except servers.ServerUnavailable as error:
        if are_required():
            pytest.fail(str(error))
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def pair(fuse: None) -> Iterator[Callable[[str], Pair]]:
    """Gives a pair with a mode of the kernel's cache: one a worker, made when it is first asked for."""
    with contextlib.ExitStack() as ends:
        yield functools.cache(lambda mode: ends.enter_context(paired(mode)))
