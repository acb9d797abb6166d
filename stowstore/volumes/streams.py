"""Open files of a volume as Python's ``io`` knows them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from datastore.errors import StoreError
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import Caller

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["BUFFER_BYTES", "RawFile", "flags_of", "wrapped"]

#: The buffer of an open file: enough that small reads and writes cost no call each.
BUFFER_BYTES: Final = 256 << 10

#: How much `RawFile.readall` asks for at once.
_STEP: Final = 8 << 20

_ACTIONS: Final = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "a": os.O_CREAT | os.O_APPEND,
    "x": os.O_CREAT | os.O_EXCL,
}


def flags_of(mode: str) -> int:
    """The flags of ``open(2)`` for a mode of `open`.

    Raises:
        ValueError: it is no mode.
    """
    letters = set(mode)
    actions = letters & set("rwax")
    if len(letters) != len(mode) or letters - set("rwaxbt+") or len(actions) != 1 or {"b", "t"} <= letters:
        raise ValueError(f"invalid mode: {mode!r}: give one of r, w, a, x, and beside it + and one of b, t")
    action = actions.pop()
    if "+" in letters:
        access = os.O_RDWR
    else:
        access = os.O_RDONLY if action == "r" else os.O_WRONLY
    return access | _ACTIONS[action]


class RawFile(io.RawIOBase):
    """An unbuffered open file; ``files`` gives the file system as long as the volume is open."""

    def __init__(
        self, files: Callable[[], FileSystem], ino: int, handle: int, flags: int, name: str | bytes, caller: Caller
    ) -> None:
        super().__init__()
        self._files = files
        self._ino = ino
        self._handle = handle
        self._flags = flags
        self._caller = caller
        self._position = 0
        self.name = name
        self.mode = "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "rb+" if self.readable() else "wb"
        if flags & os.O_APPEND:
            self.seek(0, os.SEEK_END)

    def readable(self) -> bool:
        return self._flags & os.O_ACCMODE != os.O_WRONLY

    def writable(self) -> bool:
        return self._flags & os.O_ACCMODE != os.O_RDONLY

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._require_open()
        if not self.readable():
            raise io.UnsupportedOperation("not readable")
        view = memoryview(buffer).cast("B")
        data = self._files().read(self._handle, self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes from an offset, as `os.pread`; many threads may call it at once."""
        self._require_open()
        return self._files().read(self._handle, offset, length)

    def readall(self) -> bytes:
        self._require_open()
        if not self.readable():
            raise io.UnsupportedOperation("not readable")
        parts: list[bytes] = []
        while data := self._files().read(self._handle, self._position, _STEP):
            self._position += len(data)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, data: ReadableBuffer, /) -> int:
        self._require_open()
        if not self.writable():
            raise io.UnsupportedOperation("not writable")
        # The namespace keeps what it is given; the caller may use its buffer again.
        taken = data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))
        files = self._files()
        written = files.write_fitting(self._handle, self._position, taken, self._caller)
        self._position = self._size() if self._flags & os.O_APPEND else self._position + written
        return written

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._require_open()
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            self._position = self._files().lseek(self._handle, offset, whence)
            return self._position
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if whence == os.SEEK_END:
            start = self._size()
        if start is None:
            raise ValueError(f"invalid whence ({whence}): give SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA or SEEK_HOLE")
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        self._require_open()
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        self._require_open()
        if not self.writable():
            raise io.UnsupportedOperation("truncate")
        wanted = self._position if size is None else size
        self._files().setattr(self._ino, AttributeChanges(size=wanted), self._caller, self._handle)
        return wanted

    def fsync(self) -> None:
        """Returns when what was written outlives this process; of a buffered file ``flush`` first."""
        self._files().fsync(self._handle)

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            # A volume that is closed has no handles any more.
            with contextlib.suppress(StoreError):
                self._files().release(self._handle)

    def _size(self) -> int:
        return self._files().getattr(self._ino).size

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __repr__(self) -> str:
        return f"<RawFile {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"


def wrapped(
    raw: RawFile, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> Any:
    """What `open` makes of a raw file.

    Raises:
        ValueError: the arguments do not go together.
    """
    binary = "b" in mode
    if binary and (encoding is not None or errors is not None or newline is not None):
        raise ValueError("binary mode takes no encoding, errors or newline")
    if buffering == 0:
        if not binary:
            raise ValueError("can't have unbuffered text I/O")
        return raw
    size = buffering if buffering > 1 else BUFFER_BYTES
    buffered: Any
    if raw.readable() and raw.writable():
        buffered = io.BufferedRandom(raw, size)
    else:
        buffered = io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)
    if binary:
        return buffered
    text = io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text
