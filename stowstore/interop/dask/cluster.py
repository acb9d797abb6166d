"""Connecting to a Dask cluster, or starting one of this machine's own."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from datastore.errors import ConfigError
from stowstore.interop.dask.errors import ClusterFailed
from stowstore.interop.dask.runner import DaskRunner
from stowstore.runners import Opened, Place

__all__ = ["DaskCluster", "connect"]

_CONNECT_SECONDS: Final = 15.0
_WORKER_SECONDS: Final = 60.0
_LOCAL = re.compile(r"local(?::([1-9]\d{0,3}))?")


class DaskCluster:
    """A cluster that a `distributed.Client` is connected to."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def at(self, place: Place[Opened]) -> DaskRunner[Opened]:
        """A runner on the workers, each of which opens the place once, with credentials of its own."""
        return DaskRunner(self._client, place)


@contextmanager
def connect(address: str) -> Iterator[DaskCluster]:
    """Connects to the scheduler at ``tcp://HOST:PORT``; ``local`` and ``local:4`` start workers on this machine.

    Raises:
        ConfigError: the address is none, or dask is not installed.
        ClusterFailed: nothing answers there, or it has no workers.
    """
    local = _LOCAL.fullmatch(address)
    if local is None and "://" not in address:
        raise ConfigError(
            f"{address!r} is no Dask scheduler", hint="write tcp://HOST:PORT, or local:4 for four processes here"
        )
    distributed = _distributed()
    with ExitStack() as stack:
        if local is not None:
            address = stack.enter_context(_local_cluster(distributed, int(local[1] or os.cpu_count() or 1)))
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterFailed(
                f"no Dask scheduler answers at {address}: {error}", hint="is it running, and is this its address?"
            ) from error
        stack.callback(client.close)
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError as error:
            raise ClusterFailed(
                f"the Dask scheduler at {address} has no workers", hint=f"start some: dask worker {address}"
            ) from error
        yield DaskCluster(client)


@contextmanager
def _local_cluster(distributed: Any, workers: int) -> Iterator[str]:
    """The scheduler of a cluster of processes, which ends with this."""
    with (
        tempfile.TemporaryDirectory(prefix="stow-dask-", ignore_cleanup_errors=True) as directory,
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=0,
            local_directory=directory,
            silence_logs=logging.ERROR,
        ) as cluster,
    ):
        yield cluster.scheduler_address


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise ConfigError(f"the package {error.name} is not installed", hint="pip install 'stowstore[dask]'") from error
    return distributed
