"""Looking at a server from outside: its processes and what it listens on."""

import os
import select
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.servers import Kind, ServerUnavailable
from tests.servers.requiring import are_required


def descendants(process: int) -> list[int]:
    """Returns the processes that a process started and they in turn; all of a server's are its keeper's."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            # the name, in parentheses, may hold anything; then come the state and the parent
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
    found = [process]
    for known in found:  # grows as it goes
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def wait_for_end(processes: Sequence[int], seconds: float = 20) -> None:
    """Returns when all have ended."""
    for process in processes:
        try:
            watched = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        try:
            assert select.select([watched], [], [], seconds)[0], f"process {process} is still there"
        finally:
            os.close(watched)


def sockets_of(root: Path, ports: Sequence[int]) -> list[str]:
    """Returns what is still open: Unix sockets below the root, reservations of the ports."""
    names = [str(root), *(f"@stowstore-test-server-{port}" for port in ports)]
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line for line in lines if any(name in line for name in names)]


@pytest.fixture
def provided() -> Callable[[Kind], Kind]:
    """Returns a kind that a test starts servers of its own from, or skips as the shared fixtures do."""

    def provide(kind: Kind) -> Kind:
        try:
            kind.install()
        except ServerUnavailable as error:
            if are_required():
                raise
            pytest.skip(str(error))
        return kind

    return provide


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the names of Unix sockets, which `tmp_path` may not."""
    with tempfile.TemporaryDirectory(prefix="stow-", dir="/tmp") as name:
        yield Path(name)
