"""redis-server on a Unix socket alone; a restart keeps the data through a snapshot.

`endpoint` and `url` are the `unix://` URL; `extra` has `socket`. There are no users.
"""

import shutil
import socket
import uuid
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_debian, put_on_path, runs, system_key, unpack_debian
from tests.servers.kind import Kind
from tests.servers.model import Address, ServerFailed
from tests.servers.processes import Processes, unpacked_environment

__all__ = ["RedisServer"]

_PROGRAM = "usr/bin/redis-server"


class RedisServer(Kind):
    """One redis-server without TCP."""

    name: ClassVar[str] = "redis"
    summary: ClassVar[str] = "Redis: redis-server on a Unix socket"
    port_offsets: ClassVar[tuple[int, ...]] = ()

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        unpack_debian(["redis-server"], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / _PROGRAM, "--version"], unpacked_environment(folder))

    def put_on_path(self) -> None:
        """Lets this process and its children find a `redis-server` on their PATH, the unpacked one if need be.

        Raises `ServerUnavailable`.
        """
        if shutil.which("redis-server") is not None:
            return
        self.install()
        put_on_path("redis-server", self.folder / _PROGRAM, unpacked_environment(self.folder))

    def serve(self, processes: Processes) -> None:
        path = _socket(processes.root)
        command: list[str | Path] = [self.folder / _PROGRAM, "--port", "0", "--dir", processes.root]
        command += ["--unixsocket", path, "--unixsocketperm", "600", "--save", "", "--appendonly", "no"]
        processes.serving.append(processes.spawn("redis", command, unpacked_environment(self.folder)))
        processes.wait_until(lambda: _is_ready(path), "redis-server answers")

    def halt(self, processes: Processes) -> None:
        for child in processes.serving:
            if child.process.poll() is None:
                _call(_socket(processes.root), "SHUTDOWN SAVE")
                child.process.wait(30)
        processes.end_serving(self.patience)

    def address(self, processes: Processes) -> Address:
        path = _socket(processes.root)
        url = f"unix://{path}"
        return Address(
            name=self.name,
            endpoint=url,
            url=url,
            root=processes.root,
            environment={"REDIS_URL": url},
            extra={"socket": str(path)},
        )

    def probe(self, address: Address) -> str:
        path = Path(address.extra["socket"])
        sent = uuid.uuid4().hex
        _call(path, f"SET probe {sent}")
        received = _call(path, "GET probe")
        _call(path, "DEL probe")
        if sent not in received:
            raise ServerFailed(f"redis: sent {sent!r}, received {received!r}")
        return "set, got and deleted a value"


def _socket(root: Path) -> Path:
    return root / "redis.sock"


def _is_ready(path: Path) -> bool:
    try:
        return _call(path, "PING") == "+PONG\r\n"
    except OSError:
        return False


def _call(path: Path, command: str) -> str:
    """Sends one inline command and returns what comes back at once."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(65536).decode()
