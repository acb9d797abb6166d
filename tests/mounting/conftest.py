"""Real mounts below a temporary directory, each served by a daemon of its own, and nothing left of them afterwards.

A test that hangs in a mount cannot be interrupted, so a watchdog cuts every mount off that outlives its test's time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.fuse import device
from stowstore.mounts import table
from stowstore.volumes.registry import registry
from tests.mounting.places import Place, eventually
from tests.servers.requiring import are_required

#: Seconds; less than the time limit of a test, which could not end one that hangs in the kernel.
_PATIENCE = 110.0


def _why_not() -> str | None:
    if not os.path.exists(device.FUSE_DEVICE):
        return f"there is no {device.FUSE_DEVICE}"
    if os.geteuid() != 0:
        return "these tests mount as root"
    return None


@pytest.fixture(autouse=True)
def needs_fuse() -> None:
    """Skips on a machine that cannot mount; fails there where that is required."""
    reason = _why_not()
    if reason is not None and are_required():
        pytest.fail(f"{reason} (required, because CI or STOWSTORE_REQUIRE_SERVERS is set)", pytrace=False)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A directory for roots, journals and mounts; whatever a test leaves mounted or running is ended, and fails it."""
    monkeypatch.setenv("STOWSTORE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    limit = request.node.get_closest_marker("timeout")
    seconds = _PATIENCE if limit is None else limit.args[0] - 10.0
    watchdog = threading.Timer(seconds, _end_everything, (tmp_path,))
    watchdog.start()
    place = Place(tmp_path)
    try:
        yield place
    finally:
        watchdog.cancel()
        _end_everything(tmp_path)
        registry.close_all()
        registry.start_over()
    assert eventually(lambda: not place.mounts() and not place.daemons())


def _end_everything(directory: Path) -> None:
    """Cuts off and detaches every mount below a directory, and kills its daemons."""
    for record in table.known():
        if record.is_alive:
            os.kill(record.pid, signal.SIGKILL)
    for found in device.mounts():
        if found.path.is_relative_to(directory):
            try:
                device.cut_off(found.path)
            except OSError:
                # Already cut off, with the daemon.
                pass
            if device.find_mount(found.path) is not None:
                device.unmount(found.path, patience=0.0)
