"""Open files that are read: ranges of what is stored, with what comes next fetched meanwhile."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from typing import Any, Final

from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile

from stowstore.interop.fsspec.threads import executor

__all__ = ["CACHE", "RangedFile"]

#: The name of the cache among fsspec's, for ``cache_type``.
CACHE: Final = "stow"

#: What a small read in order brings along, and has fetched ahead of it; one out of order brings less.
BLOCK_BYTES: Final = 4 << 20
_ELSEWHERE_BYTES: Final = 256 << 10

#: How many reads have to follow each other before what comes next is fetched ahead.
_IN_ORDER: Final = 3

#: What one request brings at most where more is read at once; the rest is fetched beside it.
_PART_BYTES: Final = 8 << 20


class ReadAhead(BaseCache):
    """Small reads are served from one block, large ones go to the store in parts side by side.

    Whoever reads on where the last read ended has the next block fetched in the background.  Not thread-safe, as a file
    is not.
    """

    name = CACHE

    def __init__(
        self, blocksize: int, fetcher: Callable[[int, int], bytes], size: int, *, part_bytes: int = _PART_BYTES
    ) -> None:
        super().__init__(blocksize, fetcher, size)
        self._part_bytes = part_bytes
        self._start = 0
        self._data = b""
        self._next: tuple[int, int, Future[bytes]] | None = None
        self._read_end = 0
        self._in_order = 0

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        begin = start or 0
        end = self.size if stop is None else min(stop, self.size)
        if begin >= end:
            return b""
        self._in_order = self._in_order + 1 if begin == self._read_end else 0
        self._read_end = end
        found = self._held(begin, end)
        if found is not None:
            self.hit_count += 1
            return found
        self.miss_count += 1
        if end - begin >= self.blocksize:
            return self._large(begin, end)
        self._fill(begin, end)
        return self._held(begin, end) or b""

    def close(self) -> None:
        """Forgets what was fetched; what is on its way is not waited for."""
        if self._next is not None:
            self._next[2].cancel()
        self._next, self._data = None, b""

    def _held(self, start: int, end: int) -> bytes | None:
        if self._start <= start and end <= self._start + len(self._data):
            return self._data[start - self._start : end - self._start]
        return None

    def _fill(self, start: int, end: int) -> None:
        """Makes a range the one that is held; what is held or on its way of its beginning is used."""
        kept = b""
        held_end = self._start + len(self._data)
        if self._start <= start < held_end:
            kept = self._data[start - self._start :]
        position = start + len(kept)
        ahead, self._next = self._next, None
        if ahead is not None and ahead[0] <= position < ahead[1]:
            data = ahead[2].result()[position - ahead[0] :]
        else:
            if ahead is not None:
                ahead[2].cancel()
            data = b""
        self._data, self._start = kept + data if kept else data, start
        if start + len(self._data) < end:
            position = start + len(self._data)
            block = self.blocksize if self._in_order >= _IN_ORDER else min(self.blocksize, _ELSEWHERE_BYTES)
            more = self._asked(position, min(self.size, max(end, position + block)))
            self._data = self._data + more if self._data else more
        position = start + len(self._data)
        if self._in_order >= _IN_ORDER and position < self.size:
            stop = min(self.size, position + self.blocksize)
            self._next = position, stop, _submit(self._asked, position, stop)

    def _large(self, start: int, end: int) -> bytes:
        cuts = [*range(start, end, self._part_bytes), end]
        others = [_submit(self._asked, *part) for part in pairwise(cuts[1:])]
        try:
            first = self._asked(cuts[0], cuts[1])
            return b"".join([first, *(other.result() for other in others)]) if others else first
        except BaseException:
            for other in others:
                other.cancel()
            raise

    def _asked(self, start: int, end: int) -> bytes:
        self.total_requested_bytes += end - start
        found: bytes = self.fetcher(start, end)
        return found


register_cache(ReadAhead, clobber=True)


class RangedFile(AbstractBufferedFile):
    """An object or file open for reading; ``fetch`` gives a range, ``release`` frees what that needs.

    Threads may share one: whoever seeks and then reads gets what is there, whatever others do between the two, as
    DuckDB needs.  A thread that reads without seeking goes on where the last read ended.
    """

    DEFAULT_BLOCK_SIZE = BLOCK_BYTES

    def __init__(
        self,
        fs: Any,
        path: str,
        fetch: Callable[[int, int], bytes],
        details: Callable[[], dict[str, Any]],
        *,
        size: int,
        block_size: int | None = None,
        cache_type: str = CACHE,
        cache_options: dict[str, Any] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self._fetch = fetch
        self._look = details
        self._known: dict[str, Any] | None = None
        self._reading = threading.RLock()
        #: Where threads have sought that have not read since.
        self._sought: dict[int, int] = {}
        self._release = release
        super().__init__(
            fs,
            path,
            "rb",
            block_size or self.DEFAULT_BLOCK_SIZE,
            cache_type=cache_type,
            cache_options=cache_options,
            size=size,
        )

    @property
    def details(self) -> dict[str, Any]:
        """What `info` says of the file."""
        if self._known is None:
            self._known = self._look()
        return self._known

    def seek(self, loc: int, whence: int = 0) -> int:
        with self._reading:
            found: int = super().seek(loc, whence)
            self._sought[threading.get_ident()] = found
            return found

    def tell(self) -> int:
        found: int = self._sought.get(threading.get_ident(), self.loc)
        return found

    def read(self, length: int | None = -1) -> bytes:
        with self._reading:
            position = self._sought.pop(threading.get_ident(), None)
            if position is None:
                # Handed on from thread to thread it is one file with one position.
                self._sought.clear()
            else:
                self.loc = position
            found: bytes = super().read(length)
            return found

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._fetch(start, end)

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            release, self._release = self._release, None
            if release is not None:
                release()


def _submit(call: Callable[[int, int], bytes], start: int, end: int) -> Future[bytes]:
    # Deadlines and cancellation of whoever reads hold for what is read on its behalf.
    return executor().submit(contextvars.copy_context().run, call, start, end)
