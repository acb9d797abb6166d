"""Real mounts for tests: below temporary directories, by daemons of their own, and always gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stowstore import RWVolume, Volume
from stowstore.fuse import device
from stowstore.mounts import table, unmounting
from stowstore.volumes.registry import registry
from tests.servers.requiring import are_required

__all__ = ["Mounting"]


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
    try:
        yield found
    finally:
        found.end()
        assert [one for one in device.mounts() if tmp_path in one.path.parents] == []
        assert [record for record in table.known() if record.is_alive] == []


@pytest.fixture(scope="module", params=["writethrough", "writeback"])
def pair(
    request: pytest.FixtureRequest, fuse: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Path, Path]]]:
    """Two fresh directories by name, one on the local disk and one on a mount that the whole module shares."""
    from stowstore.mounts.options import MountOptions

    directory = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        patch.setenv("STOWSTORE_RUNTIME_DIR", str(directory / "run"))
        found = Mounting(directory)
        try:
            # Other users pass through on their way.
            for above in (directory, *directory.parents):
                if above.owner() == Path("/tmp").owner() and not above.stat().st_mode & 0o001:
                    above.chmod(above.stat().st_mode | 0o011)
            mount = found.mount(found.volume(), options=MountOptions(kernel_cache=request.param))
            mount.chmod(0o777)

            def fresh(name: str) -> tuple[Path, Path]:
                sides = (directory / "local" / name, mount / name)
                for side in sides:
                    side.mkdir(parents=True)
                    side.parent.chmod(0o777)
                    side.chmod(0o777)
                return sides

            yield fresh
        finally:
            found.end()
