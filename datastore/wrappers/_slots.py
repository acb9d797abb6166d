"""What a cache holds, and who is fetching or changing it: the bookkeeping under `datastore.wrappers.cached`.

An object has one slot, by container and key: a reference of another scheme may mean the same object, so a write drops
whatever is held under the slot's name.  A slot that is being written holds nothing, and a fetch that overlapped a write
is not kept: whoever reads after a write was acknowledged never gets what was there before.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable

from attrs import define, frozen

from datastore.model import Metadata
from datastore.reference import DataReference
from datastore.wrappers._flight import Flight

__all__ = ["CacheStats", "Entry", "Fetch", "Slots", "Writer"]

#: What an entry costs beyond its content: key, metadata, bookkeeping; measured with tracemalloc, rounded up.
ENTRY_OVERHEAD = 1024

_Slot = tuple[str, str]


@frozen(kw_only=True, eq=False)
class Entry:
    """A whole object; ``metadata`` is complete when it came from a read, else what the writer knew."""

    reference: DataReference
    content: bytes | memoryview
    metadata: Metadata
    complete: bool
    #: Whether it was read under the store's own download limit, so that a read without a limit of its own may have it.
    within_limit: bool
    #: On the monotonic clock: when it was stored, and when it was last known to be current.
    stored: float
    checked: float


@frozen(kw_only=True)
class CacheStats:
    """What a cache holds (entries, bytes with overhead) and did since it was made."""

    entries: int = 0
    bytes: int = 0
    evicted: int = 0
    expired: int = 0
    overwritten: int = 0
    oversize: int = 0
    write_errors: int = 0


class Fetch(Flight["Entry | None"]):
    """One thread's way to the backend for a slot; ``fresh`` turns False when a write overlaps it."""

    __slots__ = ("fresh",)

    def __init__(self, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh


@define
class Writer:
    """The writes under way in a slot; ``contended`` when there was more than one, so nobody knows which came last."""

    count: int = 0
    contended: bool = False


class Slots:
    """A least-recently-used cache bounded by bytes; thread-safe, the lock is never held while anything waits."""

    def __init__(self, max_bytes: int, max_entry_bytes: int, ttl: float | None, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._max_entry_bytes = max_entry_bytes
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Slot, Entry] = OrderedDict()
        self._fetches: dict[_Slot, Fetch] = {}
        self._writers: dict[_Slot, Writer] = {}
        self._bytes = 0
        self._counts: Counter[str] = Counter()

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(entries=len(self._entries), bytes=self._bytes, **self._counts)

    def count(self, figure: str) -> None:
        """Adds one to a figure of the statistics."""
        with self._lock:
            self._counts[figure] += 1

    def find(self, ref: DataReference) -> Entry | None:
        """The entry of a reference, unless its time to live is over."""
        slot = (ref.container, ref.key)
        with self._lock:
            entry = self._entries.get(slot)
            if entry is None or entry.reference != ref:
                return None
            if self._ttl is not None and self._clock() - entry.stored >= self._ttl:
                self._drop(slot)
                self._counts["expired"] += 1
                return None
            self._entries.move_to_end(slot)
            return entry

    def fetch(self, ref: DataReference) -> tuple[Fetch, bool]:
        """The fetch to join for a reference, and whether the caller is to lead it."""
        slot = (ref.container, ref.key)
        with self._lock:
            fetch = self._fetches.get(slot)
            if fetch is not None:
                return fetch, False
            fetch = self._fetches[slot] = Fetch(slot not in self._writers)
            return fetch, True

    def fetched(self, ref: DataReference, fetch: Fetch, entry: Entry | None) -> None:
        """Ends a fetch; keeps what it brought if no write overlapped it."""
        slot = (ref.container, ref.key)
        with self._lock:
            if self._fetches.get(slot) is fetch:
                del self._fetches[slot]
            if fetch.fresh and entry is not None:
                self._keep(slot, entry)

    def writing(self, ref: DataReference) -> Writer:
        """Begins a write: from here to `written` the slot holds nothing."""
        slot = (ref.container, ref.key)
        with self._lock:
            writer = self._writers.get(slot)
            if writer is None:
                writer = self._writers[slot] = Writer()
            else:
                writer.contended = True
            writer.count += 1
            self._drop(slot)
            self._outdate(slot)
            return writer

    def written(self, ref: DataReference, writer: Writer, entry: Entry | None) -> None:
        """Ends a write, however it ended; keeps what it wrote if no other write overlapped it."""
        slot = (ref.container, ref.key)
        with self._lock:
            self._outdate(slot)
            writer.count -= 1
            if writer.count == 0:
                del self._writers[slot]
                if entry is not None and not writer.contended:
                    self._keep(slot, entry)

    def replace(self, old: Entry, new: Entry | None) -> None:
        """Puts ``new`` in the place of ``old``, or nothing; if ``old`` is gone already, nothing happens."""
        slot = (old.reference.container, old.reference.key)
        with self._lock:
            if self._entries.get(slot) is old:
                if new is None:
                    self._drop(slot)
                else:
                    self._entries[slot] = new

    def clear(self) -> None:
        """Drops everything, and what is being fetched."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
            for slot in list(self._fetches):
                self._outdate(slot)

    def _keep(self, slot: _Slot, entry: Entry) -> None:
        size = len(entry.content)
        if size > self._max_entry_bytes:
            self._counts["oversize"] += 1
            return
        known = self._entries.get(slot)
        if known is not None:
            self._drop(slot)
            if known.metadata.etag != entry.metadata.etag:
                self._counts["overwritten"] += 1
        self._entries[slot] = entry
        self._bytes += size + ENTRY_OVERHEAD
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self._counts["evicted"] += 1

    def _drop(self, slot: _Slot) -> None:
        entry = self._entries.pop(slot, None)
        if entry is not None:
            self._bytes -= len(entry.content) + ENTRY_OVERHEAD

    def _outdate(self, slot: _Slot) -> None:
        # Who comes later starts a fetch of its own; who joined this one began before the write ended.
        fetch = self._fetches.pop(slot, None)
        if fetch is not None:
            fetch.fresh = False
