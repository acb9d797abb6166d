"""Going on with a stream whose connection broke."""

from __future__ import annotations

import weakref
from typing import Protocol, Self

from datastore.context import under
from datastore.errors import NotFound, PreconditionFailed, StoreError, TransientError
from datastore.metric_names import Operation
from datastore.protocol import Reference, Store
from datastore.stream import Body, ReadStream
from datastore.wrappers.base import as_reference

__all__ = ["ResumingBody"]


class _Backoff(Protocol):
    def wait(self, error: StoreError, /) -> bool: ...


class _Backoffs(Protocol):
    def __call__(self, operation: Operation, reference: Reference, /) -> _Backoff: ...


class ResumingBody:
    """A body that opens the rest of its range again when it breaks, bound to the etag of the first answer.

    Without an etag nothing says that the object is still the same, so the break is raised.
    """

    __slots__ = ("_backoffs", "_body", "_inner", "_position", "_reference", "_size", "_start", "_stream")

    def __init__(self, inner: Store, reference: Reference, start: int, stream: ReadStream, backoffs: _Backoffs) -> None:
        self._inner = inner
        self._reference = reference
        self._start = start
        self._size = stream.size
        # The stream owns this body: a strong reference back would keep an abandoned one from being noticed.
        self._stream = weakref.ref(stream)
        self._backoffs = backoffs
        self._position = 0
        self._body: Body | None = None

    def before(self, body: Body) -> Self:
        """Stands before ``body``; what `ReadStream.replace_body` asks for."""
        self._body = body
        return self

    def read(self, size: int, /) -> bytes:
        try:
            piece = self._body.read(size)  # type: ignore[union-attr]
        except StoreError as error:
            piece = self._resume(error, size)
        if not piece:
            piece = self._resume(self._truncated(), size)
        self._position += len(piece)
        return piece

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _resume(self, error: StoreError, size: int) -> bytes:
        stream = self._stream()
        metadata = stream.metadata if error.retryable and stream is not None else None
        if stream is None or metadata is None or not metadata.etag:
            raise error
        first = self._start if self._start >= 0 else max(0, metadata.size + self._start)
        backoff = self._backoffs(Operation.READ, self._reference)
        self.close()
        with under(stream.limits):
            while backoff.wait(error):
                try:
                    self._body = self._inner.read_raw(
                        self._reference,
                        first + self._position,
                        self._size - self._position,
                        max_bytes=0,
                        if_match=metadata.etag,
                    )
                    if piece := self._body.read(size):
                        return piece
                    error = self._truncated()
                except PreconditionFailed as changed:
                    raise self._gone(PreconditionFailed, "the object changed while it was read") from changed
                except NotFound as removed:
                    raise self._gone(NotFound, "the object was removed while it was read") from removed
                except StoreError as failure:
                    error = failure
                self.close()
        raise error

    def _truncated(self) -> TransientError:
        return TransientError(
            f"the answer ended after {self._position} of {self._size} bytes",
            op="read",
            reference=str(as_reference(self._reference)),
        )

    def _gone(self, kind: type[StoreError], message: str) -> StoreError:
        return kind(
            f"{message}, after {self._position} of {self._size} bytes",
            op="read",
            reference=str(as_reference(self._reference)),
            hint="what was read so far is of the old object: read it again from the start",
        )
