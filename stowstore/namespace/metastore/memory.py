"""A journal in memory, for sessions that need not survive a crash."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

__all__ = ["MemoryMetaStore"]


class MemoryMetaStore:
    """Keeps everything in dictionaries, and nothing once it is closed; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[bytes, bytes | None] = {}
        self._meta: dict[str, bytes] = {}

    def load(self) -> Iterator[tuple[bytes, bytes | None]]:
        with self._lock:
            return iter(sorted(self._records.items()))

    def apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        with self._lock:
            self._records.update(batch)

    def replace(self, batch: Mapping[bytes, bytes | None], meta: Mapping[str, bytes]) -> None:
        with self._lock:
            self._records = dict(batch)
            self._meta.update(meta)

    def sync(self) -> None:
        pass

    def clear(self) -> None:
        with self._lock:
            self._records.clear()

    def get_meta(self, name: str) -> bytes | None:
        return self._meta.get(name)

    def set_meta(self, name: str, value: bytes) -> None:
        with self._lock:
            self._meta[name] = value

    def close(self) -> None:
        pass

    def destroy(self) -> None:
        with self._lock:
            self._records.clear()
            self._meta.clear()
