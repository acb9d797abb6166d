"""The answers of a mount whose files may be passed through."""

from __future__ import annotations

from stowstore.fuse import wire
from stowstore.fuse.operations import Body, Handler, Operations, Payload
from stowstore.fuse.passthrough import Passthrough
from stowstore.fuse.wire import Opcode
from stowstore.namespace.permissions import ROOT

__all__ = ["PassingOperations"]


class PassingOperations:
    """The answers that differ where files may be passed through."""

    def __init__(self, operations: Operations, passthrough: Passthrough) -> None:
        self._operations = operations
        self._passthrough = passthrough

    def replace_in(self, handlers: list[Handler | None]) -> None:
        """Puts these answers in the place of those that know nothing of it."""
        handlers[Opcode.OPEN] = self.open
        handlers[Opcode.RELEASE] = self.release
        handlers[Opcode.READ] = self.read

    def open(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle = self._operations.files.open(node, wire.OPEN.unpack_from(body)[0], ROOT)
        flags, backing = self._passthrough.opened(node, handle)
        return wire.OPEN_OUT.pack(handle, flags, backing)

    def release(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        # While it is open, its size is known without fetching anything.
        self._passthrough.released(self._operations.files, node, wire.RELEASE.unpack_from(body)[0])
        return self._operations.release(node, body, uid, gid)

    def read(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        self._passthrough.was_read(node, wire.READ_WRITE.unpack_from(body)[2])
        return self._operations.read(node, body, uid, gid)
