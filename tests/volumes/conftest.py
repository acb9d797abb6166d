"""Roots to put volumes into, and a process with nothing else open."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.namespace.metastore.base import VARIABLES
from stowstore.volumes.registry import registry


@pytest.fixture(autouse=True)
def fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Directories of the user's own for each test, and volumes that are closed after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home-data"))
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION", "STOWSTORE_VOLUME_ROOT", *VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    yield
    registry.close_all()


@pytest.fixture(params=["file", "mem"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a root that is still to be made."""
    if request.param == "file":
        return f"file://{tmp_path}/store/root"
    return f"mem://test-{uuid.uuid4().hex}/volumes"
