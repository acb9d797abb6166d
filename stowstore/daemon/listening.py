"""The control socket: one request a connection, each on a thread of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from datastore.events import get_logger
from stowstore.mounts.control import PROTOCOL, as_failure
from stowstore.namespace.background import make_way
from stowstore.versions.errors import VolumeError

__all__ = ["ControlServer"]

_MAX_REQUEST: Final = 1 << 20

#: How long a client may take to say what it wants, seconds.
_PATIENCE: Final = 10.0

_log = get_logger(part="mount")


class ControlServer:
    """Answers on a unix socket that only its user may open, while the ``with`` lasts."""

    def __init__(self, path: Path, commands: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._path = path
        self._commands = commands
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._answering: set[threading.Thread] = set()
        self._inode = -1

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(before)
        self._socket.listen(64)
        self._inode = self._path.stat().st_ino
        threading.Thread(target=self._accept, name="control", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes no more requests, and returns when those that came have been answered."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            # Where the path was mounted anew before this daemon ended, the socket is the next one's.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        # What was done is also told, before the process ends.
        for thread in list(self._answering):
            thread.join(_PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,), name="control-request", daemon=True)
            self._answering.add(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        make_way()
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_PATIENCE)
                with connection.makefile("rb") as lines:
                    line = lines.readline(_MAX_REQUEST)
                connection.settimeout(None)
                connection.sendall(json.dumps(self._answered(line), default=str).encode() + b"\n")
        finally:
            self._answering.discard(threading.current_thread())

    def _answered(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if request["version"] != PROTOCOL:
                raise VolumeError(
                    f"the daemon speaks version {PROTOCOL} of its protocol, not {request['version']}",
                    hint="unmount, and mount again with the present release",
                )
            return {"done": self._commands(request["do"], dict(request.get("with") or {}))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the client has to be told
            _log.warning("control.failed", error=str(error))
            return {"failed": as_failure(error)}
