"""Streams: what ``read_raw`` hands out."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from datastore.context import Limits, current_limits
from datastore.errors import TransientError
from datastore.model import Metadata

__all__ = ["Body", "ReadStream"]

#: How much one step of iteration yields.
_STEP = 1 << 20


class Body(Protocol):
    """What a driver reads an object's bytes through.

    ``read(n)`` returns at most ``n`` bytes (n >= 1), b"" at the end, and raises errors of the taxonomy; ``close`` frees
    the connection and may be called early, once.
    """

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class ReadStream:
    """A readable binary stream over an object, or a range of one, in order and once.

    It is a context manager and an iterator of pieces, and works wherever a binary file opened for reading does.
    Reaching the end releases the connection like closing does.  Fewer bytes than announced raise
    `TransientError`: a truncated answer is never taken for the end.  Not thread-safe.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_data",
        "_finishers",
        "_limits",
        "_metadata",
        "_position",
        "closed",
        "size",
    )

    def __init__(
        self, content: bytes | memoryview | Body, size: int, metadata: Metadata | Callable[[], Metadata]
    ) -> None:
        #: Bytes this stream yields in all: the length of the range, not of the object.
        self.size = size
        self.closed = False
        self._metadata = metadata
        self._position = 0
        self._finishers: list[Callable[[ReadStream, BaseException | None], None]] | None = None
        self._limits = current_limits()
        self._data: bytes | memoryview | None
        self._body: Body | None
        if isinstance(content, (bytes, memoryview)):
            self._data, self._body = content, None
        else:
            self._data, self._body = None, content

    @property
    def metadata(self) -> Metadata:
        """What the backend said of the whole object when it opened it."""
        if not isinstance(self._metadata, Metadata):
            self._metadata = self._metadata()
        return self._metadata

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._position

    @property
    def limits(self) -> Limits | None:
        """The limits of the context the stream was opened in, which hold wherever it is read."""
        return self._limits

    @property
    def in_memory(self) -> bool:
        """Whether the content is here already, so that reading it cannot fail."""
        return self._body is None

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes, all that are left by default, b"" at the end.

        Raises:
            TransientError: the connection broke or ended early.
            DeadlineExceeded, Cancelled: the context the stream was opened in is over.
        """
        if self.closed:
            raise ValueError("read of a closed stream")
        wanted = self.size - self._position
        if size is not None and 0 <= size < wanted:
            wanted = size
        data = self._data
        if data is not None:
            start = self._position
            if start == 0 and wanted == len(data):
                piece = data if data.__class__ is bytes else bytes(data)
            else:
                piece = bytes(data[start : start + wanted])
            self._position = start + wanted
            if self._position == self.size:
                self._finish(None)
            return piece
        if wanted == 0:
            if self._position == self.size:
                self._finish(None)
            return b""
        return self._read_body(wanted, whole=size is None or size < 0)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Reads into a writable buffer and says how many bytes, 0 at the end."""
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        return self.read()

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_STEP), b"")

    def buffered(self, buffer_size: int = 1 << 16) -> io.BufferedReader:
        """The same bytes as an `io.BufferedReader`, for code that wants lines or ``peek``."""
        return io.BufferedReader(self, buffer_size)  # type: ignore[arg-type]

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Does nothing: there is nothing to flush in a stream that is only read."""

    def close(self) -> None:
        """Releases the connection; closing again does nothing."""
        if not self.closed:
            self.closed = True
            if self._body is not None or self._finishers is not None:
                self._finish(None)

    def add_finisher(self, finisher: Callable[[ReadStream, BaseException | None], None]) -> None:
        """Calls back once, when the stream reached its end, failed (with the error) or was closed."""
        if self._finishers is None:
            self._finishers = [finisher]
        else:
            self._finishers.append(finisher)

    def replace_body(self, wrap: Callable[[Body], Body]) -> None:
        """Lets a wrapper stand between the stream and its connection; content in memory needs none."""
        if self._body is not None:
            self._body = wrap(self._body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._body is not None and not self.closed:
            warnings.warn(
                f"unclosed {self!r}: use 'with store.read_raw(...)'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self.close()
        elif self._finishers is not None:
            self._finish(None)

    def __repr__(self) -> str:
        return f"<ReadStream {self._position} of {self.size} bytes>"

    def _read_body(self, wanted: int, *, whole: bool) -> bytes:
        pieces: list[bytes] = []
        try:
            while wanted:
                if self._limits is not None:
                    self._limits.check()
                piece = self._body.read(wanted)  # type: ignore[union-attr]
                if not piece:
                    raise TransientError(f"the answer ended after {self._position} of {self.size} bytes")
                self._position += len(piece)
                wanted -= len(piece)
                pieces.append(piece)
                if not whole:
                    break
        except BaseException as error:
            self._finish(error)
            raise
        if self._position == self.size:
            self._finish(None)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _finish(self, error: BaseException | None) -> None:
        body, self._body = self._body, None
        try:
            if body is not None:
                if self._data is None:
                    self._data = b""
                body.close()
        except BaseException as failure:
            error = error or failure
            raise
        finally:
            # Whoever counts what is open must hear of the end even where closing fails.
            finishers, self._finishers = self._finishers, None
            if finishers is not None:
                for finisher in finishers:
                    finisher(self, error)
