"""Sources: what ``write_raw`` reads from, made countable, checkable and, where possible, rewindable.

A `Source` hides whether the caller gave bytes, a file or an iterator.  It never yields more or less than the
declared size without raising, so a driver that fails when its source fails can never publish a wrong object.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from datastore.context import current_limits
from datastore.errors import DigestMismatch, SizeMismatch

__all__ = ["Readable", "Source", "SourceLike"]

#: How much of an unseekable source is read at once when its end has to be found.
_PROBE = 1 << 20

#: Up to which size pieces are taken for one content in memory; more is read from them one after the other.
_MAX_JOINED = 16 << 20


@runtime_checkable
class Readable(Protocol):
    """Anything with a ``read`` that returns bytes, b"" at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


SourceLike = bytes | bytearray | memoryview | Readable | Iterable[bytes]


class Source:
    """The bytes of one write.

    ``size`` is the declared size, or None until the end is reached.  Errors raised by the caller's own stream pass
    through unchanged.  Not thread-safe: one driver reads it at a time.
    """

    __slots__ = (
        "_data",
        "_digest",
        "_expected_md5",
        "_head",
        "_limits",
        "_parts",
        "_position",
        "_raw",
        "_restart",
        "size",
    )

    def __init__(self, data: SourceLike, size: int | None = None, *, content_md5: str | None = None) -> None:
        if size is not None and size < 0:
            size = None
        self.size = size
        self._position = 0
        self._head = b""
        self._expected_md5 = content_md5
        self._limits = current_limits()
        self._restart: int | None = None
        self._raw: Readable | None = None
        self._digest: Any = None
        self._data: bytes | memoryview | None = None
        self._parts: Sequence[bytes] | None = None
        if data.__class__ is bytes and content_md5 is None and size == len(data):
            # What nearly every small write is: nothing to check.
            self._data = data
        elif isinstance(data, (bytes, bytearray, memoryview)):
            # A view of what the caller may change later would tear a retried write.
            self._hold(data if isinstance(data, bytes) else bytes(data))
        elif _are_parts(data):
            self._hold_parts(tuple(data))
        else:
            if content_md5 is not None:
                self._digest = hashlib.md5(usedforsecurity=False)
            self._raw = data if isinstance(data, Readable) else _Joined(_iterate(data))
            self._restart = _position_of(self._raw)

    @property
    def data(self) -> bytes | memoryview | None:
        """The whole content, checked, if it lies in memory; else None.  For reading only."""
        if self._data is None and self._parts is not None:
            self._data, self._parts = b"".join(self._parts), None
        return self._data

    @property
    def parts(self) -> Sequence[bytes | memoryview] | None:
        """The same in pieces, for who need not have it in one: those of a tuple or list of bytes are never joined."""
        if self._parts is not None:
            return self._parts
        return None if self._data is None else (self._data,)

    def buffered(self, limit: int) -> bytes | memoryview | None:
        """The whole content, checked, if it is no larger than ``limit`` bytes; else None and nothing is lost.

        A source that fits stays in memory and can be rewound from then on.

        Raises:
            SizeMismatch, DigestMismatch: the content is not as declared.
        """
        if self.size is not None and self._parts is not None and self.size > limit:
            return None
        if self.data is not None:
            return self.data if len(self.data) <= limit else None
        if self._position or (self.size is not None and self.size > limit):
            return None
        # Pieces are joined once: a stream may come in very many small ones.
        pieces = [self._head] if self._head else []
        length = len(self._head)
        try:
            while length <= limit:
                piece = self._pull(limit + 1 - length)
                if not piece:
                    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    pieces = []
                    self._hold(whole)
                    return self.data
                pieces.append(piece)
                length += len(piece)
                if self.size is not None and length > self.size:
                    raise self._too_long()
        finally:
            self._head = b"".join(pieces)
        return None

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most ``size`` of them, b"" at the end.

        Raises:
            SizeMismatch: the content ended early, or goes on after the declared size.
            DigestMismatch: the content does not have the declared MD5.
        """
        if self.data is not None:
            end = None if size < 0 else self._position + size
            piece = bytes(self.data[self._position : end])
            self._position += len(piece)
            return piece
        if size < 0:
            return b"".join(iter(lambda: self.read(_PROBE), b""))
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
        else:
            piece = self._pull(size)
        self._position += len(piece)
        if self.size is not None and self._position > self.size:
            raise self._too_long()
        if not piece and size:
            self._finish(self._position)
            return b""
        if self.size is not None and self._position == self.size and not self._head:
            # The end is looked for before the last piece goes out: afterwards the object could be visible.
            if self._pull(1):
                raise self._too_long()
            self._check_digest()
        return piece

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_PROBE), b"")

    @property
    def position(self) -> int:
        """How many bytes were handed out."""
        return self._position

    def rewind(self) -> bool:
        """Goes back to the start, if the source can; False leaves it where it is."""
        if self._data is not None or self._parts is not None or self._position == 0:
            self._position = 0
            return True
        if self._restart is None or self._raw is None:
            return False
        self._raw.seek(self._restart)  # type: ignore[attr-defined]
        self._position = 0
        self._head = b""
        if self._expected_md5 is not None:
            self._digest = hashlib.md5(usedforsecurity=False)
        return True

    @property
    def rewindable(self) -> bool:
        """Whether `rewind` would succeed at any position."""
        return self._data is not None or self._parts is not None or self._restart is not None

    def _hold(self, content: bytes | memoryview) -> None:
        if self._digest is None and self._expected_md5 is not None:
            self._digest = hashlib.md5(content, usedforsecurity=False)
        self._finish(len(content))
        self._data = content
        self._raw = None

    def _hold_parts(self, parts: Sequence[bytes]) -> None:
        if self._expected_md5 is not None:
            self._digest = hashlib.md5(usedforsecurity=False)
            for part in parts:
                self._digest.update(part)
        self._finish(sum(map(len, parts)))
        self._parts = parts

    def _finish(self, length: int) -> None:
        if self.size is not None and length != self.size:
            raise SizeMismatch(f"the size is declared as {self.size} bytes, the source has {length}", hint=_SIZE_HINT)
        self.size = length
        self._check_digest()

    def _check_digest(self) -> None:
        if self._digest is None:
            return
        found = base64.b64encode(self._digest.digest()).decode()
        if found != self._expected_md5:
            raise DigestMismatch(
                f"the MD5 is declared as {self._expected_md5}, the data have {found}",
                hint="the data changed on the way, or the digest belongs to other data",
            )

    def _pull(self, size: int) -> bytes:
        if self._limits is not None:
            self._limits.check()
        assert self._raw is not None
        piece = self._raw.read(size)
        if piece.__class__ is not bytes:
            piece = _as_bytes(piece)
        if self._digest is not None:
            self._digest.update(piece)
        return piece

    def _too_long(self) -> SizeMismatch:
        return SizeMismatch(f"the size is declared as {self.size} bytes, the source goes on", hint=_SIZE_HINT)


def _are_parts(data: object) -> TypeGuard[Sequence[bytes]]:
    """Whether this is a content in pieces, small enough to be joined by who needs it in one."""
    return (
        isinstance(data, (tuple, list))
        and all(part.__class__ is bytes for part in data)
        and sum(map(len, data)) <= _MAX_JOINED
    )


_SIZE_HINT = "declare the true size, or None when it is not known; nothing was written"


def _iterate(data: object) -> Iterator[bytes]:
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(f"a source is bytes, a binary file or an iterable of bytes, not {type(data).__name__}")
    return iter(data)


def _as_bytes(piece: object) -> bytes:
    """What a caller's stream returned, as bytes: some return views, None at the end, or by mistake text."""
    if isinstance(piece, str):
        raise TypeError("the source yields text: open it in binary mode, or encode it")
    return b"" if piece is None else bytes(piece)  # type: ignore[call-overload]


def _position_of(raw: object) -> int | None:
    """Where a seekable stream stands, or None when it cannot go back there."""
    try:
        if raw.seekable():  # type: ignore[attr-defined]
            return int(raw.tell())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        pass
    return None


class _Joined:
    """An iterator of bytes as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest: bytes | memoryview = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest:
            try:
                piece = next(self._pieces)
            except StopIteration:
                return b""
            self._rest = memoryview(_as_bytes(piece))
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)
