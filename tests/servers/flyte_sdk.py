"""The SDK of Flyte 2 with what volumes need, in an environment of its own: it brings sixty packages."""

import configparser
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_venv, python_key, runs, venv_install
from tests.servers.processes import clean_environment
from tests.servers.provided import Provided

__all__ = ["FlyteSdk"]

_VERSION = "2.12.1"
_SETUP = Path(__file__).parents[2] / "setup.cfg"


class FlyteSdk(Provided):
    """A virtual environment that runs workflows of Flyte; stowstore itself is not in it."""

    name: ClassVar[str] = "flyte"
    summary: ClassVar[str] = "The SDK of Flyte 2, which runs tasks in its own process"

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.folder / "bin/python"

    def available(self) -> str | None:
        return missing_venv()

    def key(self) -> str:
        return f"{_VERSION}-{python_key()}"

    def build(self, folder: Path) -> None:
        venv_install([f"flyte=={_VERSION}", *_requirements()], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / "bin/python", "-c", "import flyte, cattrs, msgspec, obstore"], clean_environment())


def _requirements() -> list[str]:
    """What stowstore needs for volumes between tasks."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(_SETUP, encoding="utf-8")
    extras = setup["options.extras_require"]
    lines = [setup["options"]["install_requires"], extras["volumes"], extras["tasks"]]
    return [line for text in lines for line in text.split("\n") if line and not line.startswith("%")]
