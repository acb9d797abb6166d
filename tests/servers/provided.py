"""What is installed once and used by many tests: into a folder of the cache, whole or not at all."""

import fcntl
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import cache_directory
from tests.servers.model import ServerUnavailable

__all__ = ["Progress", "Provided", "quiet"]

Progress = Callable[[str], None]


def quiet(message: str) -> None:
    """Shows no progress."""


class Provided(ABC):
    """Something that the project provides for its tests."""

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
        """Returns why the server cannot be provided here and how to change that, or None when it can."""

    @abstractmethod
    def key(self) -> str:
        """Returns what an installation depends on: versions and the system it is for."""

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Installs into an empty folder, which is renamed afterwards."""

    def works(self, folder: Path) -> bool:
        """Whether an installation found in the cache still runs on this machine."""
        return True
