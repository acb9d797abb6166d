"""How a cached store reads: what it holds, or what it fetches for everybody who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import evolve, frozen

from datastore.context import check
from datastore.errors import ConfigError, StoreError
from datastore.memory import resolve_range
from datastore.model import Metadata, clean_etag
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.stream import ReadStream
from datastore.wrappers._slots import Entry, Fetch, Slots

__all__ = ["CachePolicy", "Reader"]


@frozen(kw_only=True)
class CachePolicy:
    """What a cache may hold, and for how long; sizes in bytes, times in seconds.

    ``max_bytes`` counts contents and about 1 KiB of bookkeeping an object.  ``max_entry_bytes`` is the largest object
    held, a quarter of the cache by default.  After ``ttl`` an object is fetched again; after ``revalidate_after`` it is
    first asked whether its etag is still the same.  Both default to None: what others write to the backend is not
    noticed.  What is not there is never remembered.
    """

    max_bytes: int
    max_entry_bytes: int | None = None
    ttl: float | None = None
    revalidate_after: float | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("max_bytes", "max_entry_bytes", "ttl", "revalidate_after"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"a cache's {name} is at least 0, not {value!r}")

    @property
    def entry_limit(self) -> int:
        """The size of the largest object held."""
        share = self.max_bytes // 4 if self.max_entry_bytes is None else self.max_entry_bytes
        return min(share, self.max_bytes)


class Reader:
    """Entries as they are now, and streams over them; thread-safe."""

    def __init__(self, inner: Store, policy: CachePolicy, slots: Slots, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._policy = policy
        self._slots = slots
        self._clock = clock

    def lead(
        self, fetch: Fetch, ref: DataReference, old: Entry | None, whole: bool, max_bytes: int | None
    ) -> tuple[Entry | None, ReadStream | None]:
        """The entry as it is now, or the open stream of an object that is not held; for all who join ``fetch``."""
        entry: Entry | None = None
        stream: ReadStream | None = None
        with fetch:
            try:
                if old is not None and old.metadata.etag:
                    entry = self.refresh(old, self._inner.head(ref))
                elif old is not None:
                    self._slots.replace(old, None)
                if entry is None and whole:
                    stream = self._inner.read_raw(ref, max_bytes=max_bytes)
                    if stream.size <= self._policy.entry_limit and stream.size == stream.metadata.size:
                        stream, entry = self._take_in(ref, stream, max_bytes)
                    else:
                        self._slots.count("oversize")
            finally:
                self._slots.fetched(ref, fetch, entry)
            if entry is not None:
                fetch.land(entry)
        return entry, stream

    def _take_in(
        self, ref: DataReference, stream: ReadStream, max_bytes: int | None
    ) -> tuple[ReadStream | None, Entry | None]:
        metadata = stream.metadata
        try:
            with stream:
                content = stream.read()
        except MemoryError:
            self._slots.count("write_errors")
            return self._inner.read_raw(ref, max_bytes=max_bytes), None
        except StoreError as error:
            error.about("read", ref)
            raise
        now = self._clock()
        return None, Entry(
            reference=ref,
            content=content,
            metadata=metadata,
            complete=True,
            within_limit=max_bytes is None,
            stored=now,
            checked=now,
        )

    def serve(self, entry: Entry, start: int, length: int | None) -> ReadStream:
        check()
        content = entry.content
        first, count = resolve_range(len(content), start, length)
        if count != len(content):
            content = memoryview(content)[first : first + count]
        return ReadStream(content, count, entry.metadata if entry.complete else partial(self._complete, entry))

    def _complete(self, entry: Entry) -> Metadata:
        """All metadata of an object this store wrote; what it wrote itself if somebody has replaced it since."""
        current = self.refresh(entry, self._inner.head(entry.reference))
        return entry.metadata if current is None else current.metadata

    def refresh(self, entry: Entry, found: Metadata) -> Entry | None:
        """The entry with what ``head`` found if that is still the same object; else it is dropped."""
        same = found.exists and found.etag == entry.metadata.etag and found.size == len(entry.content)
        current = evolve(entry, metadata=found, complete=True, checked=self._clock()) if same and found.etag else None
        self._slots.replace(entry, current)
        return current

    def is_due(self, entry: Entry) -> bool:
        patience = self._policy.revalidate_after
        return patience is not None and self._clock() - entry.checked >= patience

    def may_have(
        self, entry: Entry, start: int, length: int | None, max_bytes: int | None, if_match: str | None
    ) -> bool:
        """Whether the entry is what a read asks for, and no larger than it may be; the store refuses what is."""
        if if_match is not None and clean_etag(if_match) != entry.metadata.etag:
            return False
        if max_bytes is None:
            if entry.within_limit:
                return True
            max_bytes = self._inner.download_limit(entry.reference)
            if max_bytes is None:
                return False
        return not max_bytes or resolve_range(len(entry.content), start, length)[1] <= max_bytes
