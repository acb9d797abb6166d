"""A cache of bytes in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from attrs import frozen

__all__ = ["CacheStats", "MemoryCache"]


@frozen(kw_only=True)
class CacheStats:
    """What a cache holds and did; ``bad_entries`` were not what they should be, ``failures`` could not be written."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bad_entries: int = 0
    failures: int = 0


class MemoryCache:
    """Bytes by key, least recently used first out, bounded by ``max_bytes``; thread-safe.

    What is larger than a quarter of the cache is not kept: it would drive out everything else.
    """

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is at least 0, not {max_bytes}")
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = self._hits = self._misses = self._evictions = 0

    def get(self, key: Hashable) -> bytes | None:
        """What is kept under a key, which becomes the most recently used."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._entries.move_to_end(key)
        return found

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def put(self, key: Hashable, data: bytes) -> None:
        """Keeps bytes under a key, instead of what was there."""
        if len(data) > self.max_bytes // 4:
            return
        with self._lock:
            self._drop(key)
            self._entries[key] = data
            self._bytes += len(data)
            while self._bytes > self.max_bytes:
                self._bytes -= len(self._entries.popitem(last=False)[1])
                self._evictions += 1

    def discard(self, key: Hashable) -> None:
        """Forgets a key, if it is there."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    @property
    def stats(self) -> CacheStats:
        return CacheStats(
            entries=len(self._entries),
            bytes=self._bytes,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
        )

    def _drop(self, key: Hashable) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= len(old)
