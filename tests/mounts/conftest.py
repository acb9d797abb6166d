"""Real mounts for tests: below temporary directories, by daemons of their own, and always gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowstore import RWVolume, Volume
from stowstore.fuse import device
from stowstore.mounts import table, unmounting
from stowstore.mounts.options import MountOptions
from stowstore.volumes.registry import registry
from tests.servers.requiring import are_required

__all__ = ["Mounting", "Pair"]

#: How long a mount may be used by one test, seconds; pytest's own limit is a little longer.
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
        self._watchdog = threading.Timer(0, lambda: None)

    def volume(self, name: str = "data") -> RWVolume:
        """A volume that is still to be made."""
        return Volume.new(name, self.root)

    def mount(self, volume: Any, name: str = "mnt", **how: Any) -> Path:
        """Mounts a volume; its journal and cache lie below the directory."""
        path = self.directory / name
        self._paths.append(path)
        found: Path = volume.blocking.mount(path, timeout=60, **how)
        self.watch()
        return found

    def watch(self) -> None:
        """Begins anew to wait for the end: a mount that is still there when time is up is cut off by the kernel.

        Whoever hangs in a call on it gets ENOTCONN then, and the test fails instead of standing still for ever.
        """
        self._watchdog.cancel()
        self._watchdog = threading.Timer(_LIMIT, self._cut_off)
        self._watchdog.daemon = True
        self._watchdog.start()

    def end(self) -> None:
        """Unmounts whatever is left, however it is."""
        self._watchdog.cancel()
        for path in self._paths:
            with contextlib.suppress(Exception):
                unmounting.unmount(path, timeout=10)
            with contextlib.suppress(Exception):
                device.unmount(path, patience=0.1)
        registry.close_all()

    def _cut_off(self) -> None:
        for one in device.mounts():
            if self.directory in one.path.parents:
                device.abort(device.connection_of(one.path))


@pytest.fixture
def mounting(fuse: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounting]:
    """Mounts of one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STOWSTORE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    found = Mounting(tmp_path)
    try:
        yield found
    finally:
        found.end()
        assert [one for one in device.mounts() if tmp_path in one.path.parents] == []
        assert [record for record in table.known() if record.is_alive] == []


class Pair:
    """A directory of the local disk and one of a mount, where the same is done."""

    def __init__(self, mounting: Mounting, mode: str) -> None:
        self.mode = mode
        self._mounting = mounting
        self._local = mounting.directory / "local"
        self.volume = mounting.volume()
        self.mount = mounting.mount(self.volume, options=MountOptions(kernel_cache=mode))
        self._local.mkdir()
        self._open()

    def fresh(self, name: str) -> tuple[Path, Path]:
        """Two empty directories that everybody may write to."""
        self._mounting.watch()
        sides = (self._local / name, self.mount / name)
        for side in sides:
            side.mkdir()
            side.chmod(0o777)
        return sides

    def again(self) -> tuple[Path, Path]:
        """Unmounts and mounts again; both sides as a whole."""
        self.volume.blocking.unmount()
        self._mounting.mount(self.volume, options=MountOptions(kernel_cache=self.mode))
        self._open()
        return self._local, self.mount

    def _open(self) -> None:
        # Other users pass through on their way.
        for above in (self._mounting.directory, *self._mounting.directory.parents):
            if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that the tests of a module share, with the kernel cache that the parameter names."""
    directory = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        patch.setenv("STOWSTORE_RUNTIME_DIR", str(directory / "run"))
        found = Mounting(directory)
        try:
            yield Pair(found, getattr(request, "param", "writethrough"))
        finally:
            found.end()
