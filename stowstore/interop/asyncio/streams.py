"""Bytes between coroutines and stores, at the pace of whoever takes them."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from types import TracebackType
from typing import Final, Self

from datastore.context import CancelToken
from datastore.errors import Cancelled
from datastore.model import Metadata
from datastore.stream import ReadStream
from stowstore.interop.asyncio.gate import Gate

__all__ = ["AsyncReadStream", "PulledSource"]

#: How much one step of iteration yields.
_STEP: Final = 1 << 20


class AsyncReadStream:
    """An object, or a range of one, in order and once; `datastore.stream.ReadStream` for coroutines.

    Nothing is read before it is asked for.  A read that is cancelled ends the stream, since nobody can say how far it
    came.  One task reads at a time.
    """

    def __init__(self, gate: Gate, stream: ReadStream, token: CancelToken) -> None:
        self._gate = gate
        self._stream = stream
        # A stream holds to the limits of the context it was opened in.
        self._token = token

    @property
    def size(self) -> int:
        """Bytes this stream yields in all."""
        return self._stream.size

    @property
    def metadata(self) -> Metadata:
        """What the backend said of the whole object when it opened it."""
        return self._stream.metadata

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._stream.position

    @property
    def closed(self) -> bool:
        return self._stream.closed

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, all that are left by default, b"" at the end.

        Raises:
            TransientError: the connection broke or ended early.
        """
        if self._stream.in_memory:
            return self._stream.read(size)
        try:
            return await self._gate.run(lambda: self._stream.read(size), token=self._token)
        except asyncio.CancelledError:
            self._stream.close()
            raise

    async def close(self) -> None:
        """Releases the connection; closing again does nothing."""
        if not self._stream.closed:
            await asyncio.to_thread(self._stream.close)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(_STEP):
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # At once: a task that is cancelled must not wait again.
        self._stream.close()

    def __repr__(self) -> str:
        return f"<AsyncReadStream {self.position} of {self.size} bytes>"


class PulledSource(Iterator[bytes]):
    """The pieces of an asynchronous iterable for a store's thread, each made when the store wants it."""

    def __init__(self, source: AsyncIterable[bytes], token: CancelToken) -> None:
        self._pieces = aiter(source)
        self._loop = asyncio.get_running_loop()
        self._token = token

    def __next__(self) -> bytes:
        coming = asyncio.run_coroutine_threadsafe(self._piece(), self._loop)
        forget = self._token.on_cancel(lambda: _cancel(coming))
        try:
            piece = coming.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("the operation was cancelled while its source was read") from None
        finally:
            forget()
        if piece is None:
            raise StopIteration
        return piece

    async def _piece(self) -> bytes | None:
        async for piece in self._pieces:
            if piece:
                return piece
        return None


def _cancel(coming: concurrent.futures.Future[bytes | None]) -> None:
    coming.cancel()
