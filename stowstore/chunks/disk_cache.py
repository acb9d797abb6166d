"""A cache of bytes in a directory, which may be lost, damaged or full at any time without harm.

It keeps stretches of packs just as they lie in the store: compressed, and sealed when the root is encrypted.  It proves
nothing; readers prove every block they take from it, so what went bad on the disk is fetched again.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from stowstore.chunks.memory_cache import CacheStats
from stowstore.disk_writes import write_all

__all__ = ["DiskCache"]

#: How much is written between two looks at the free space, bytes.
_LOOK_EVERY: Final = 16 << 20

#: How long nothing is written after a failure, seconds.
_PAUSE: Final = 30.0

_LOCK_NAME = "lock"
_KEY = re.compile(r"[0-9a-z-]{3,100}")


class DiskCache:
    """Bytes by key in files, least recently used first out; thread-safe.

    It holds at most ``max_bytes``, and less when the file system has less than ``min_free_ratio`` of its space free.  A
    failure to write turns writing off for half a minute and is counted, never raised.  The first process to use a
    directory owns it; others, forked children included, read what is there but neither write nor remove.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        max_bytes: int = 10 << 30,
        *,
        min_free_ratio: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < 0 or not 0 <= min_free_ratio < 1:
            raise ValueError(
                f"max_bytes is at least 0 and min_free_ratio below 1, not {max_bytes} and {min_free_ratio}"
            )
        self._directory = Path(directory)
        self._max_bytes = max_bytes
        self._min_free_ratio = min_free_ratio
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, int] = OrderedDict()
        self._bytes = self._hits = self._misses = self._evictions = self._bad = self._failures = 0
        self._unlooked = _LOOK_EVERY
        self._paused_until = -inf
        self._drafts = itertools.count()
        self._owner = 0
        self._fd = -1
        self._scan: threading.Thread | None = None
        self._open()

    @property
    def is_owner(self) -> bool:
        """Whether this process may write here."""
        return self._owner == os.getpid()

    def get(self, key: str) -> bytes | None:
        """The bytes kept under a key; None when there are none, or they cannot be read."""
        try:
            with open(self._path(key), "rb", buffering=0) as file:
                data = file.readall()
        except OSError:
            data = None
        with self._lock:
            if data is None:
                self._misses += 1
            else:
                self._hits += 1
                if key in self._entries:
                    self._entries.move_to_end(key)
        return data

    def __contains__(self, key: str) -> bool:
        return os.path.exists(self._path(key))

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Keeps bytes under a key, if there is room on the disk."""
        size = len(data)
        if not self.is_owner or size > self._max_bytes // 4 or self._clock() < self._paused_until:
            return
        try:
            if not self._has_space(size):
                return
            self._write(key, data)
        except OSError:
            with self._lock:
                self._failures += 1
                self._paused_until = self._clock() + _PAUSE
            return
        with self._lock:
            self._bytes += size - self._entries.pop(key, 0)
            self._entries[key] = size
        self._shrink(self._max_bytes)

    def discard(self, key: str, *, bad: bool = False) -> None:
        """Removes an entry; ``bad`` counts it as one that was not what it should be."""
        with self._lock:
            self._bad += bad
            self._bytes -= self._entries.pop(key, 0)
        if self.is_owner:
            _remove(self._path(key))

    def wait_until_scanned(self) -> None:
        """Returns when what an earlier process left is known, which is looked up in the background."""
        if self._scan is not None:
            self._scan.join()

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                entries=len(self._entries),
                bytes=self._bytes,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                bad_entries=self._bad,
                failures=self._failures,
            )

    def close(self) -> None:
        """Gives the directory up, entries and all, to the next process."""
        owned, self._owner = self.is_owner, 0
        if self._fd >= 0:
            if owned:
                self.wait_until_scanned()
                self._save_order()
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(
                self._directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            self._failures += 1
            return
        self._owner = os.getpid()
        self._scan = threading.Thread(target=self._find_entries, name="stowstore-cache-scan", daemon=True)
        self._scan.start()

    def _find_entries(self) -> None:
        """Takes over what an earlier process left, its order told by modification times."""
        mine = f".{os.getpid()}-"
        found: list[tuple[float, str, int]] = []
        for shard in _scan(self._directory):
            if len(shard.name) != 2 or not shard.is_dir(follow_symlinks=False):
                continue
            for entry in _scan(shard):
                if entry.name.startswith("."):
                    if not entry.name.startswith(mine):
                        _remove(entry.path)
                elif _KEY.fullmatch(entry.name):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    found.append((status.st_mtime, entry.name, status.st_size))
        found.sort()
        with self._lock:
            newer, self._entries = self._entries, OrderedDict()
            for _, key, size in found:
                if key not in newer:
                    self._entries[key] = size
                    self._bytes += size
            self._entries.update(newer)
        self._shrink(self._max_bytes)

    def _has_space(self, size: int) -> bool:
        """Whether the file system has room to spare, after giving back what it takes to have some."""
        with self._lock:
            self._unlooked += size
            if self._unlooked < _LOOK_EVERY:
                return True
        status = os.statvfs(self._directory)
        wanted = int(status.f_blocks * status.f_frsize * self._min_free_ratio)
        missing = wanted + size - status.f_bavail * status.f_frsize
        if missing <= 0:
            with self._lock:
                self._unlooked = 0
            return True
        self._shrink(max(0, self._bytes - missing - _LOOK_EVERY))
        with self._lock:
            self._failures += 1
            self._paused_until = self._clock() + 1.0
        return False

    def _write(self, key: str, data: bytes | memoryview) -> None:
        path = self._path(key)
        draft = os.path.join(os.path.dirname(path), f".{os.getpid()}-{next(self._drafts)}")
        try:
            fd = _create(draft)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = _create(draft)
        try:
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            os.replace(draft, path)
        except OSError:
            _remove(draft)
            raise

    def _shrink(self, limit: int) -> None:
        doomed: list[str] = []
        with self._lock:
            while self._bytes > limit and self._entries:
                key, size = self._entries.popitem(last=False)
                self._bytes -= size
                self._evictions += 1
                doomed.append(key)
        for key in doomed:
            _remove(self._path(key))

    def _save_order(self) -> None:
        """Writes the order of use into the modification times, for the next process; the newest entries suffice."""
        now = time.time_ns()
        with self._lock:
            recent = list(itertools.islice(reversed(self._entries), 10_000))
        for age, key in enumerate(recent):
            try:
                os.utime(self._path(key), ns=(now - age * 1000, now - age * 1000))
            except OSError:
                continue

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a cache")
        return f"{self._directory}/{key[-2:]}/{key}"


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _scan(directory: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except OSError:
        return []
