"""Open files that are written: nothing is to be seen of one until it is closed, and nothing ever if that fails."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Any, Final, Protocol

from fsspec.compression import compr
from fsspec.core import get_compression

__all__ = ["AtomicCompressed", "AtomicFile", "AtomicText", "Sink", "SpooledSink", "opened_for_writing"]

#: What is kept in memory of an object that is written; more goes to a temporary file.
_SPOOL_BYTES: Final = 16 << 20


class Sink(Protocol):
    """Where what is written goes until it is published."""

    def write(self, data: bytes) -> None: ...

    def publish(self) -> None:
        """Makes it appear, whole; afterwards the sink is gone, whether that succeeded or not."""
        ...

    def abandon(self) -> None:
        """Forgets it; doing it again does nothing."""
        ...


class AtomicFile(io.BufferedIOBase):
    """A file that appears when it is closed, or inside a transaction when that ends.

    It does not appear when its ``with`` block is left by an exception, nor when it is collected without being closed.
    Not thread-safe.
    """

    def __init__(self, fs: Any, path: str, sink: Sink, *, mode: str, autocommit: bool, begins_at: int = 0) -> None:
        super().__init__()
        self.fs = fs
        self.path = path
        self.mode = mode
        self.autocommit = autocommit
        self._sink = sink
        self._position = begins_at

    def write(self, data: Any, /) -> int:
        self._require_open()
        taken = data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))
        self._sink.write(taken)
        self._position += len(taken)
        return len(taken)

    def tell(self) -> int:
        self._require_open()
        return self._position

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """Does nothing: what is flushed is no more visible than the rest."""

    def close(self) -> None:
        """Publishes the file, unless a transaction is to.

        Raises:
            FileExistsError: it was to be made and somebody else has made it.
            StoreError, OSError: it could not be stored; nothing of it is there.
        """
        if self.closed:
            return
        super().close()
        if self.autocommit:
            self._sink.publish()

    def commit(self) -> None:
        """Publishes a file of a transaction."""
        self.close()
        self._sink.publish()

    def discard(self) -> None:
        """Forgets what was written."""
        super().close()
        self._sink.abandon()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # What nobody has closed was not finished; io would close it, and so publish it.
        if not self.closed:
            warnings.warn(
                f"{self.path} was never closed, so it is not written", ResourceWarning, source=self, stacklevel=2
            )
            self.discard()

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __repr__(self) -> str:
        return f"<AtomicFile {self.path!r} mode={self.mode!r}{' closed' if self.closed else ''}>"


def opened_for_writing(
    file: AtomicFile, mode: str, compression: str | None, text: Mapping[str, Any]
) -> AtomicFile | AtomicCompressed | AtomicText:
    """What `open` makes of a file: compressed and of text where that was asked for."""
    made: AtomicFile | AtomicCompressed = file
    if compression is not None and (name := get_compression(file.path, compression)) is not None:
        made = AtomicCompressed(file, compr[name](file, mode=mode[0]))
    return made if "b" in mode else AtomicText(made, **text)


class AtomicCompressed(io.BufferedIOBase):
    """An `AtomicFile` behind a compressor, closed with it."""

    def __init__(self, file: AtomicFile, compressor: Any) -> None:
        super().__init__()
        self._file = file
        self._compressor = compressor

    def write(self, data: Any, /) -> int:
        written: int = self._compressor.write(data)
        return written

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            try:
                self._compressor.close()
            except BaseException:
                self._file.discard()
                raise
            self._file.close()

    def discard(self) -> None:
        """Forgets what was written."""
        self._file.discard()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            # The file itself says that it was not closed.
            super().close()


class AtomicText(io.TextIOWrapper):
    """An `AtomicFile` of text, which does not appear either when its block is left by an exception."""

    def __init__(self, file: AtomicFile | AtomicCompressed, **text: Any) -> None:
        super().__init__(file, **text)  # type: ignore[arg-type]
        self._file = file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._file.discard()
            return
        self.close()

    def __del__(self) -> None:
        """Does not close: the file says that it was not closed, and is not written."""


class SpooledSink:
    """Keeps what is written, in memory or a temporary file, until ``store`` is given all of it."""

    def __init__(self, store: Callable[[IO[bytes], int], object], begin: bytes = b"") -> None:
        self._store = store
        self._file: Any = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - lives as long as we
        self._file.write(begin)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def publish(self) -> None:
        size = self._file.tell()
        self._file.seek(0)
        try:
            self._store(self._file, size)
        finally:
            self._file.close()

    def abandon(self) -> None:
        self._file.close()
