"""Programs from Debian packages that are no servers of the tests, but run by what is tested."""

import re
import shutil
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_debian, put_on_path, runs, system_key, unpack_debian
from tests.servers.kind import Installed
from tests.servers.model import ServerUnavailable
from tests.servers.processes import unpacked_environment

__all__ = ["Bubblewrap", "PostgreSQL"]


class Bubblewrap(Installed):
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


class PostgreSQL(Installed):
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
