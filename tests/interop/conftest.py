"""File systems of this work tree by name, volumes that are closed again, and tests that are coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'stowstore[fsspec]'")

import stowstore.interop.fsspec  # noqa: E402, F401 - makes the protocols known without entry points
from stowstore.namespace.metastore.base import VARIABLES  # noqa: E402
from stowstore.volumes.registry import registry  # noqa: E402
from tests.locations.s3_buckets import fresh_bucket  # noqa: E402
from tests.servers import Server  # noqa: E402


@pytest.fixture(autouse=True)
def fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Directories of the user's own for each test, and volumes that are closed after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home-data"))
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION", "STOWSTORE_VOLUME_ROOT", *VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    yield
    for protocol in ("stow", "stowvol"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()
    registry.close_all()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs the tests of zarr that are coroutines."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


@pytest.fixture
def bucket(radosgw: Server) -> Iterator[str]:
    """A bucket of Ceph, removed with all that is in it."""
    with fresh_bucket(radosgw) as name:
        yield name
