"""A kernel of our own: requests of any form go in by a socket that keeps messages apart, as ``/dev/fuse`` does."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

from stowstore.fuse.options import FuseOptions
from stowstore.fuse.server import FuseServer
from stowstore.fuse.wire import IN_HEADER, OUT_HEADER, Opcode
from stowstore.namespace.filesystem import FileSystem

__all__ = ["Kernel"]

#: How long an answer may take, however busy the machine is, seconds.
_PATIENCE = 20.0


class Kernel:
    """Asks a server that runs in a thread."""

    def __init__(self, files: FileSystem, **options: Any) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(_PATIENCE)
        self._unique = 0
        self.server = FuseServer(files, self._theirs.fileno(), FuseOptions(max_write=65536, **options))
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        self.agreed = self.ask(Opcode.INIT, 0, struct.pack("<5I", 7, 40, 1 << 20, 0xFFFFFFFF, 0))

    def send(self, opcode: int, node: int = 1, body: bytes = b"", *, unique: int | None = None) -> int:
        """Sends a request; its number."""
        if unique is None:
            self._unique += 2
            unique = self._unique
        self._ours.send(IN_HEADER.pack(IN_HEADER.size + len(body), opcode, unique, node, 0, 0, 1, 0) + body)
        return unique

    def receive(self) -> tuple[int, int, bytes]:
        """The next answer: which request it is of, its error number, and what it says."""
        message = self._ours.recv(1 << 20)
        length, error, unique = OUT_HEADER.unpack_from(message)
        assert length == len(message)
        return unique, -error, message[OUT_HEADER.size :]

    def answer(self, opcode: int, node: int = 1, body: bytes = b"") -> tuple[int, bytes]:
        """Sends a request and takes its answer."""
        sent = self.send(opcode, node, body)
        unique, error, payload = self.receive()
        assert sent == unique
        return error, payload

    def ask(self, opcode: int, node: int = 1, body: bytes = b"") -> bytes:
        """The same of a request that has to succeed."""
        error, payload = self.answer(opcode, node, body)
        assert error == 0
        return payload

    def close(self) -> None:
        """Ends the server as an unmounting kernel does."""
        self.answer(Opcode.DESTROY, 0)
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive()
        self._ours.close()
        self._theirs.close()
