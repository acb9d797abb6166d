"""What one kind of server is: how to provide it, start it, and ask it something real."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.servers.model import Address
from tests.servers.processes import Processes
from tests.servers.provided import Progress, Provided, quiet
from tests.servers.server import Server

__all__ = ["Kind", "Progress", "quiet"]


class Kind(Provided):
    """One kind of server.

    `available`, `install` and `start` are for everybody. The rest runs in the keeper, a process of its own that has
    one server and ends with it.
    """

    #: The ports it takes, counted from the first.
    port_offsets: ClassVar[tuple[int, ...]] = (0,)
    #: Seconds a process gets between being asked to end and being killed.
    patience: ClassVar[float] = 5

    def start(self, root: Path | None = None, port: int | None = None, *, watch: int | None = None) -> Server:
        """Starts a server, installed first if need be, and returns when it is ready.

        Without a root it gets a fresh directory that goes with it; a root given is erased first if an earlier server
        left its mark in it, and stays. The server ends with the process `watch`, by default this one, however that
        one ends. Raises `ServerUnavailable` or `ServerFailed`.
        """
        self.install()
        return Server.start(self.name, root=root, port=port, watch=watch or os.getpid())

    def prepare(self, processes: Processes) -> None:
        """Makes files and starts what `serve` needs behind it; runs once."""

    @abstractmethod
    def serve(self, processes: Processes) -> None:
        """Starts what answers clients, over the data already there, and returns when it does."""

    def halt(self, processes: Processes) -> None:
        """Ends what answers clients and keeps the data."""
        processes.end_serving(self.patience)

    @abstractmethod
    def address(self, processes: Processes) -> Address:
        """Returns where the server is to be found."""

    @abstractmethod
    def probe(self, address: Address) -> str:
        """Does something real with the server and returns, in words, what; its `url` is usable afterwards.

        Clients are imported here and not above: the keeper needs none of them and starts the sooner.
        """
