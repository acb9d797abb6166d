"""``--dask ADDRESS``: running the pieces of a bulk command on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click

from stowstore.cli.transfers import status_line
from stowstore.runners import Cluster

__all__ = ["cluster_at", "dask_option"]

dask_option = click.option(
    "--dask",
    metavar="ADDRESS",
    help="Run on the Dask cluster at tcp://HOST:PORT, or on local:N processes of this machine.",
)


@contextmanager
def cluster_at(address: str | None) -> Iterator[Cluster | None]:
    """The cluster at an address; None where the work is to be done here."""
    if address is None:
        yield None
        return
    from stowstore.interop.dask import connect

    with ExitStack() as stack:
        with status_line(f"connecting to {address}"):
            cluster = stack.enter_context(connect(address))
        yield cluster
