"""A home of its own for each document, with nothing left mounted or running below it afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.fuse import device
from stowstore.mounts import table
from tests.documents.blocks import ROOT
from tests.jobs.conftest import fuse, namespaces  # noqa: F401
from tests.servers.installing import cache_directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with everything in it: ``work`` to stand in, ``mnt`` to mount on, and `stowstore` on the PATH."""
    for name in [
        name for name in os.environ if name.startswith(("STOWSTORE_", "AWS_", "XDG_")) and "SERVERS" not in name
    ]:
        monkeypatch.delenv(name)
    programs = tmp_path / "bin"
    for name in ("bin", "work", "home", "run", "tmp", "mnt"):
        (tmp_path / name).mkdir(mode=0o700)
    for name, arguments in {"stowstore": "-m stowstore", "python": "", "python3": ""}.items():
        command = programs / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        command.chmod(0o755)
    for name, value in {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache"),
        "STOWSTORE_RUNTIME_DIR": str(tmp_path / "run"),
        "STOWSTORE_IDLE_SECONDS": "0.2",
        # What was installed for the tests stays where it is.
        "STOWSTORE_SERVERS": str(cache_directory()),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    # A document is a dozen processes that import the same modules: compiled once, they take half the time.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for name in ("reports/2026.pdf", "dataset/train.csv", "labels.csv", "src/main.py"):
        path = tmp_path / "work" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"what a reader has at hand as {name}\n")
    try:
        yield tmp_path
    finally:
        for record in table.known():
            if record.is_alive:
                os.kill(record.pid, 9)
        for found in device.mounts():
            if found.path.is_relative_to(tmp_path):
                device.unmount(found.path, patience=0.0)
