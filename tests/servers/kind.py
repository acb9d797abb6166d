"""What is provided: anything that is installed into the cache, and servers, which are also started and asked."""

import fcntl
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import cache_directory
from tests.servers.model import Address, ServerUnavailable
from tests.servers.processes import Processes
from tests.servers.server import Server

__all__ = ["Installed", "Kind", "Progress", "quiet"]

Progress = Callable[[str], None]


def quiet(message: str) -> None:
    """Shows no progress."""


class Installed(ABC):
    """Something that is unpacked into a folder of the cache, once, whoever needs it."""

    #: The name on the command line and of the folder in the cache.
    name: ClassVar[str]
    #: One line for `list`.
    summary: ClassVar[str]

    @property
    def folder(self) -> Path:
        """The folder it is installed in, once it is."""
        return cache_directory() / self.name / self.key()

    def is_installed(self) -> bool:
        """Whether it is installed and runs on this machine."""
        return self.folder.is_dir() and self.works(self.folder)

    def install(self, progress: Progress = quiet) -> None:
        """Installs it unless it is there already.

        Processes that want the same one at once install it once. The folder appears whole or not at all. Raises
        `ServerUnavailable`.
        """
        if self.is_installed():
            return
        if reason := self.available():
            raise ServerUnavailable(f"{self.name}: {reason}")
        folder = self.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.is_installed():
                return
            unfinished = folder.with_name(f"{folder.name}.new")
            for leftover in (unfinished, folder):
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished.mkdir()
            progress(f"{self.name}: installing into {folder}")
            try:
                self.build(unfinished)
                unfinished.rename(folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            progress(f"{self.name}: installed")

    @abstractmethod
    def available(self) -> str | None:
        """Returns why it cannot be provided here and how to change that, or None when it can."""

    @abstractmethod
    def key(self) -> str:
        """Returns what an installation depends on: versions and the system it is for."""

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Installs into an empty folder, which is renamed afterwards."""

    def works(self, folder: Path) -> bool:
        """Whether an installation found in the cache still runs on this machine."""
        return True


class Kind(Installed):
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
