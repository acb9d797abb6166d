"""Runs the installed command in a process of its own, as its users do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory the store's containers lie in."""
    return tmp_path / "root"


@pytest.fixture
def stow(tmp_path: Path, root: Path) -> Run:
    """Runs ``stowstore`` on a store of local disk whose base container exists."""
    (root / "main").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOWSTORE_")}

    def run(*args: str, store: str | None = f"file://{root}/main", **more: object) -> subprocess.CompletedProcess[str]:
        where = ["--store", store] if store else []
        return subprocess.run(
            [sys.executable, "-m", "stowstore", *where, *args],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            **more,  # type: ignore[call-overload]
        )

    return run
