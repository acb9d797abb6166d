"""A Dask cluster of worker processes, and the command line run in this process."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from stowstore.cli.app import main

distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")


@frozen
class Answer:
    """What a command has answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


Stow = Callable[..., Answer]

TASK_FILES = 100


@pytest.fixture
def stow(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stow:
    """Runs ``stowstore`` in this process."""
    for name in os.environ:
        if name.startswith("STOWSTORE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))

    def run(*args: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["stowstore", *args])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(args))
        out, err = capsysbinary.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(left.value.code, out.decode(), err.decode())

    return run


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks so small that little makes many of them."""
    for job in ("transfer.importing", "transfer.exporting", "records.sending"):
        monkeypatch.setattr(f"stowstore.{job}_spread._TASK_FILES", TASK_FILES)
    monkeypatch.setattr("stowstore.transfer.importing_spread._PART_BYTES", 8 << 20)


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Three worker processes that have no credentials, and a client of their scheduler."""
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        with pytest.MonkeyPatch.context() as environment:
            for name in os.environ:
                if name.startswith("AWS_"):
                    environment.delenv(name)
            local = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
                )
            )
            client = stack.enter_context(distributed.Client(local, set_as_default=False))
            client.wait_for_workers(3, timeout=90)
        yield client


@pytest.fixture
def dask(client: Any) -> str:
    """The address of the scheduler."""
    return str(client.scheduler.address)
