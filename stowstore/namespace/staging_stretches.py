"""A stretch: written data that stay in memory until they lie in blocks, or something needs them on the local disk."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from stowstore.chunks.block import BLOCK_BYTES, BlockRef
from stowstore.namespace.staging_segments import Segment

__all__ = ["STRETCH_BYTES", "RetiredStretch", "Stretch"]

#: What a stretch is filled to: a block, so that those of a file written in order become a block each.
STRETCH_BYTES: Final = BLOCK_BYTES


class RetiredStretch(NamedTuple):
    """A stretch of so many bytes that no object refers to any more, that was never written down where its place is."""

    size: int
    has_place: bool


class _Chunks(NamedTuple):
    starts: list[int]
    data: list[bytes]


class Stretch:
    """Data that were written one after the other; extents refer to it as to a segment.  Thread-safe but for `append`.

    ``find_place`` gives it a place in a segment.  It is asked for by the first journal that refers to the stretch, or
    when memory is short; the data are copied there by `write_down`.  What a journal is about to refer to is put into
    ``promised``, so that it outlives its last extent until it is written.
    """

    __slots__ = ("__weakref__", "_chunks", "_find_place", "_promised", "_retired", "_writing", "name", "place", "size")

    def __init__(
        self,
        find_place: Callable[[Stretch], tuple[Segment, int]],
        promised: set[Any],
        retired: deque[RetiredStretch],
    ) -> None:
        #: Tells it from every other stretch and segment, for as long as anybody remembers it.
        self.name = os.urandom(16)
        self.size = 0
        #: The segment it lies in, or is going to, and from where on.
        self.place: tuple[Segment, int] | None = None
        self._find_place = find_place
        self._promised = promised
        self._retired = retired
        self._writing = threading.Lock()
        self._chunks: _Chunks | None = _Chunks([], [])

    @property
    def is_in_memory(self) -> bool:
        return self._chunks is not None

    def append(self, data: bytes) -> int:
        """Takes data behind what it has; their start.  The area's lock is held, and there is no place yet."""
        assert self._chunks is not None
        start = self.size
        self._chunks.starts.append(start)
        self._chunks.data.append(data)
        self.size += len(data)
        return start

    def read(self, start: int, length: int) -> bytes:
        """Bytes that were taken.

        Raises:
            OSError: EIO where they were written down and the file does not have them any more.
        """
        found = self.read_parts(start, length)
        return found[0] if len(found) == 1 else b"".join(found)

    def read_parts(self, start: int, length: int) -> list[bytes]:
        """The same in the pieces they are in; those that are wanted whole are not copied."""
        chunks = self._chunks
        if chunks is None:
            assert self.place is not None
            segment, base = self.place
            return [segment.read(base + start, length)]
        starts, data = chunks
        index = bisect_right(starts, start) - 1
        first = start - starts[index]
        parts = [data[index][first : first + length]]
        missing = length - len(parts[0])
        while missing:
            index += 1
            parts.append(data[index][:missing])
            missing -= len(parts[-1])
        return parts

    def journal_reference(self, start: int, length: int) -> BlockRef:
        """What a journal keeps of a range, in the form of a block reference; the area writes it down in time.

        Raises:
            OSError: there is no place for it.
        """
        segment, base = self.place or self._find_place(self)
        if self.is_in_memory:
            self._promised.add(self)
        return segment.journal_reference(base + start, length)

    def write_down(self) -> int:
        """Copies the data to their place and lets go of them in memory; how many bytes that frees.

        Raises:
            OSError: the disk cannot take them; they stay in memory.
        """
        with self._writing:
            chunks = self._chunks
            if chunks is None:
                return 0
            segment, base = self.place or self._find_place(self)
            for start, data in zip(*chunks, strict=True):
                segment.fill(base + start, data)
            self._chunks = None
            return self.size

    def __del__(self) -> None:
        # No lock may be taken here: this can run anywhere.
        if self._chunks is not None:
            self._retired.append(RetiredStretch(self.size, self.place is not None))
