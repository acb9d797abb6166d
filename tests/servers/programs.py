"""Programs that tests run or that are run by what is tested, from Debian packages unpacked without root.

What the machine has already is used from there: apt does not fetch it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from tests.servers.installing import missing_debian, put_on_path, runs, system_key, unpack_debian
from tests.servers.model import ServerUnavailable
from tests.servers.processes import unpacked_environment
from tests.servers.provided import Provided

__all__ = ["Bubblewrap", "PostgreSQL", "Tools"]

#: The Debian package of each program.
_PACKAGES: Final[Mapping[str, str]] = {
    "bonnie++": "bonnie++",
    "dbench": "dbench",
    "fio": "fio",
    "fs_mark": "fsmark",
    "initdb": "postgresql",
    "rsync": "rsync",
    "stress-ng": "stress-ng",
}
#: Programs that tell their version, which shows that they run.
_TELLING: Final = ("fio", "initdb", "rsync", "stress-ng")
#: Where programs are, below an unpacked tree or the system's root.
_BESIDE: Final = ("usr/bin", "usr/sbin", "usr/lib/postgresql/*/bin", "usr/local/bin")


class Tools(Provided):
    """Programs by name, each with what it needs to run."""

    name: ClassVar[str] = "tools"
    summary: ClassVar[str] = f"Programs that load file systems: {', '.join(_PACKAGES)}"

    @property
    def environment(self) -> dict[str, str]:
        """What unpacked programs find each other and their libraries by."""
        return unpacked_environment(self.folder)

    def path(self, program: str) -> Path:
        """Returns where a program is; raises `ServerUnavailable` when it is nowhere."""
        return _found(program, self.folder)

    def data(self, path: str) -> Path:
        """Returns where a file is that comes with a program, by its path below the root."""
        unpacked = self.folder / path
        return unpacked if unpacked.exists() else Path("/", path)

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        unpack_debian(list(_PACKAGES.values()), folder)
        if not self.works(folder):
            raise ServerUnavailable(f"{self.name}: not every program of {', '.join(_PACKAGES)} runs from {folder}")

    def works(self, folder: Path) -> bool:
        try:
            found = {program: _found(program, folder) for program in _PACKAGES}
        except ServerUnavailable:
            return False
        environment = unpacked_environment(folder)
        return all(runs([found[program], "--version"], environment) for program in _TELLING)


class Bubblewrap(Provided):
    """bwrap, which isolates jobs."""

    name: ClassVar[str] = "bubblewrap"
    summary: ClassVar[str] = "Bubblewrap: isolation of jobs"

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        unpack_debian(["bubblewrap"], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / "usr/bin/bwrap", "--version"], unpacked_environment(folder))

    def put_on_path(self) -> None:
        """Lets this process and its children find a `bwrap` on their PATH, the unpacked one if need be.

        Raises `ServerUnavailable`.
        """
        if shutil.which("bwrap") is None:
            self.install()
            put_on_path("bwrap", self.folder / "usr/bin/bwrap", unpacked_environment(self.folder))


class PostgreSQL(Provided):
    """The programs of a PostgreSQL server, in `programs`; `environment` lets them find their libraries."""

    name: ClassVar[str] = "postgresql"
    summary: ClassVar[str] = "PostgreSQL: initdb, postgres and psql"

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        # The package without a number says which version the system has; apt leaves out what is installed already.
        unpack_debian(["postgresql"], folder)
        found = re.search(r"^postgresql_(\d+)", (folder / "packages.txt").read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise ServerUnavailable("apt knows no package postgresql of one version")
        unpack_debian([f"postgresql-{found[1]}", f"postgresql-client-{found[1]}"], folder)

    def works(self, folder: Path) -> bool:
        found = list(folder.glob("usr/lib/postgresql/*/bin/postgres"))
        return len(found) == 1 and runs([found[0], "--version"], unpacked_environment(folder))

    @property
    def programs(self) -> Path:
        """The directory with `initdb`, `postgres` and `psql`."""
        return next(self.folder.glob("usr/lib/postgresql/*/bin"))

    @property
    def environment(self) -> dict[str, str]:
        """What the programs need to find their libraries."""
        return {"LD_LIBRARY_PATH": unpacked_environment(self.folder)["LD_LIBRARY_PATH"]}


def _found(program: str, folder: Path) -> Path:
    for root in (folder, Path("/")):
        for where in _BESIDE:
            if candidates := sorted(root.glob(f"{where}/{program}")):
                return candidates[-1]
    if on_path := shutil.which(program, path=os.environ.get("PATH")):
        return Path(on_path)
    raise ServerUnavailable(f"{program} is not here; on Debian: apt-get install {_PACKAGES[program]}")
