"""A running server, seen from the process that uses it.

The server's own processes belong to a *keeper* (`tests.servers.keeper`): a small process with one thread that starts
them, obeys over a Unix socket and stops everything when the process it watches ends, even by SIGKILL. So a server can
be used from threads, from forked children and from several processes at once, and cannot be left behind.
"""

import contextlib
import json
import os
import select
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.model import Address, Identity, ServerFailed
from tests.servers.processes import clean_environment

__all__ = ["CONTROL", "Server"]

#: The keeper's socket, in the server's directory.
CONTROL = "control"
_PROJECT = Path(__file__).resolve().parents[2]
_READY_WITHIN = 120.0


class Server:
    """A running server; leaving its `with` block stops it. Safe to use from many threads."""

    address: Address
    #: The process id of its keeper.
    keeper: int

    def __init__(self, address: Address, keeper: int) -> None:
        self.address = address
        self.keeper = keeper

    @classmethod
    def start(cls, name: str, *, root: Path | None, port: int | None, watch: int) -> Self:
        """Starts a keeper with one installed server and waits until that is ready; use `Kind.start`."""
        command = [sys.executable, "-P", "-m", "tests.servers.keeper", name, f"--watch={watch}"]
        command += [f"--root={root}"] if root else []
        command += [f"--port={port}"] if port else []
        answer, report = os.pipe()
        try:
            keeper = os.posix_spawn(
                sys.executable,
                command,
                clean_environment(PYTHONPATH=str(_PROJECT)),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, report, 1),
                ],
                setsid=True,  # an interrupt typed at a terminal is for us, not for the server
            )
        finally:
            os.close(report)
        with open(answer, "rb") as pipe:
            line = _read_line(pipe.fileno(), _READY_WITHIN)
        reply: dict[str, Any] = json.loads(line or json.dumps({"error": f"{name}: its keeper said nothing"}))
        if "error" in reply:
            _wait_for_end(keeper, 30)
            raise ServerFailed(reply["error"])
        return cls(Address.from_json(reply["address"]), keeper)

    @property
    def name(self) -> str:
        """The kind of server."""
        return self.address.name

    @property
    def endpoint(self) -> str:
        """The base URL of its API."""
        return self.address.endpoint

    @property
    def url(self) -> str:
        """The URL of a container to try things in."""
        return self.address.url

    @property
    def root(self) -> Path:
        """The directory with its data and logs."""
        return self.address.root

    @property
    def owner(self) -> Identity:
        """Who may do everything."""
        if self.address.owner is None:
            raise LookupError(f"{self.name} knows no users")
        return self.address.owner

    @property
    def stranger(self) -> Identity:
        """Who is known and may do nothing with the owner's data."""
        if self.address.stranger is None:
            raise LookupError(f"{self.name} has no second user")
        return self.address.stranger

    @property
    def access_key(self) -> str:
        """The owner's access key, account or user name."""
        return self.owner.access_key

    @property
    def secret_key(self) -> str:
        """The owner's secret."""
        return self.owner.secret_key

    @property
    def environment(self) -> dict[str, str]:
        """What the usual clients of this kind of server read from the environment."""
        return dict(self.address.environment)

    @property
    def extra(self) -> dict[str, str]:
        """What only this kind of server has."""
        return dict(self.address.extra)

    def stop_gateway(self) -> None:
        """Ends what answers clients, so that they are refused; the data stay."""
        self._ask("stop_gateway")

    def start_gateway(self) -> None:
        """Starts what answers clients again, at the same place and over the same data."""
        self._ask("start_gateway")

    def restart(self) -> None:
        """Stops and starts what answers clients; the data stay."""
        self._ask("stop_gateway")
        self._ask("start_gateway")

    def pause(self) -> None:
        """Freezes what answers clients: connections are accepted by the kernel and nothing is said on them."""
        self._ask("pause")

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        self._ask("resume")

    def stop(self) -> None:
        """Ends every process of the server and removes its sockets, and its directory if it chose that itself.

        Stopping again does nothing. Raises `ServerFailed` when a process will not end.
        """
        with contextlib.suppress(ConnectionError, FileNotFoundError):  # it has gone already
            self._ask("stop")
        _wait_for_end(self.keeper, 30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{self.name} at {self.endpoint}>"

    def _ask(self, what: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_READY_WITHIN)
            control.connect(str(self.root / CONTROL))
            control.sendall(f"{what}\n".encode())
            with control.makefile("rb") as answers:
                reply: dict[str, Any] = json.loads(answers.readline() or b'{"error": "the keeper ended"}')
        if "error" in reply:
            raise ServerFailed(f"{self.name}: {what}: {reply['error']}")


def _read_line(descriptor: int, limit: float) -> bytes:
    """Reads until the other side closes, or nothing when that takes longer than the limit."""
    received = b""
    while select.select([descriptor], [], [], limit)[0]:
        if not (part := os.read(descriptor, 65536)):
            return received
        received += part
    return b""


def _wait_for_end(process: int, limit: float) -> None:
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        if not select.select([watched], [], [], limit)[0]:
            raise ServerFailed(f"the keeper, process {process}, did not end within {limit:g} s")
    finally:
        os.close(watched)
    with contextlib.suppress(ChildProcessError):  # another process started it
        os.waitpid(process, 0)
