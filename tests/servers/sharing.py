"""One server of each kind for a whole test run, however many processes share the run."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers.kind import Kind
from tests.servers.model import Address
from tests.servers.server import Server

__all__ = ["Run"]


class Run:
    """The servers of one test run, started when first asked for.

    The process that owns the run makes it with `Run.begin` and ends it; others construct it from the owner's
    `directory` and process id. Should the owner be killed, its servers' keepers notice and stop them.
    """

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory = directory
        self.owner = owner

    @classmethod
    def begin(cls) -> "Run":
        """Begins a run that this process owns."""
        return cls(Path(tempfile.mkdtemp(prefix="stow-run-")), os.getpid())

    def server(self, kind: Kind) -> Server:
        """Returns the run's server of a kind; raises `ServerUnavailable` or `ServerFailed`."""
        note = self.directory / f"{kind.name}.json"
        with self._locked(kind.name):
            if not note.exists():
                server = kind.start(watch=self.owner)
                note.write_text(json.dumps({"address": server.address.to_json(), "keeper": server.keeper}))
            return _read(note)

    def end(self) -> None:
        """Stops every server of the run, whichever process started it."""
        with contextlib.ExitStack() as ending:
            ending.callback(shutil.rmtree, self.directory, ignore_errors=True)
            for note in self.directory.glob("*.json"):
                ending.callback(_read(note).stop)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.directory / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(note: Path) -> Server:
    data = json.loads(note.read_text())
    return Server(Address.from_json(data["address"]), data["keeper"])
