"""Whole objects kept in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from attrs import evolve

from datastore.errors import StoreError
from datastore.metric_names import CacheResult, Operation
from datastore.model import Metadata, WriteOptions
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream
from datastore.wrappers._cache_reading import CachePolicy, Reader
from datastore.wrappers._slots import CacheStats, Entry, Slots
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["CachePolicy", "CacheStats", "CachedStore"]

#: Up to here a source that is not in memory is taken there before it is written, to be cached as well.
_TAKE_IN = 1 << 20


class CachedStore(StoreWrapper):
    """A store that reads an object once and then serves it, ranges of it and its metadata from memory.

    Many threads that read one object make one request.  A write, delete or copy drops the object before and after it
    reaches the backend; a write keeps what it wrote (contents up to 1 MiB, or that are in memory anyway).  So a store
    never serves what it has itself replaced; what others replace it notices by the policy.  Objects above the entry
    limit and ranges of objects that are not held go straight through.  Faults of the cache cost a request, never an
    error: `stats` counts them.

    ``on_request`` is told how each ``head`` and ``read`` went.  Pickled, it starts empty.
    """

    def __init__(
        self,
        inner: Store,
        policy: CachePolicy,
        on_request: Callable[[Operation, CacheResult], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._policy = policy
        self._on_request = on_request
        self._clock = clock
        self._start_empty()

    @property
    def stats(self) -> CacheStats:
        """What the cache holds and did."""
        return self._slots.stats

    def clear(self) -> None:
        """Drops everything held."""
        self._slots.clear()

    def head(self, reference: Reference) -> Metadata:
        ref = as_reference(reference)
        entry = self._slots.find(ref)
        if entry is not None and entry.complete and not self._reader.is_due(entry):
            self._tell(Operation.HEAD, CacheResult.HIT)
            return entry.metadata
        self._tell(Operation.HEAD, CacheResult.MISS)
        found = self._inner.head(ref)
        if entry is not None:
            self._reader.refresh(entry, found)
        return found

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        if length is not None and length < 0:
            raise ValueError(f"length is a number of bytes or None, not {length}")
        ref = as_reference(reference)
        entry = self._slots.find(ref)
        if entry is not None and not self._reader.may_have(entry, start, length, max_bytes, if_match):
            entry = None
        result = CacheResult.HIT
        if entry is None or self._reader.is_due(entry):
            whole = start == 0 and length is None and if_match is None and self._policy.entry_limit > 0
            if entry is None and not whole:
                result = CacheResult.BYPASS
            else:
                fetch, leads = self._slots.fetch(ref)
                if leads:
                    result = CacheResult.MISS
                    entry, stream = self._reader.lead(fetch, ref, entry, whole, max_bytes)
                    if stream is not None:
                        self._tell(Operation.READ, result)
                        return stream
                else:
                    entry = fetch.join()
                    if entry is not None and not self._reader.may_have(entry, start, length, max_bytes, if_match):
                        entry = None
        if entry is None:
            self._tell(Operation.READ, CacheResult.MISS if result is CacheResult.HIT else result)
            return self._inner.read_raw(ref, start, length, max_bytes=max_bytes, if_match=if_match)
        self._tell(Operation.READ, result)
        return self._reader.serve(entry, start, length)

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        ref = as_reference(reference)
        try:
            if isinstance(stream, Source):
                source = stream
            else:
                source = Source(stream, size, content_md5=None if options is None else options.content_md5)
            content = source.data
            if content is None and source.size is not None and source.size <= min(_TAKE_IN, self._policy.entry_limit):
                content = source.buffered(source.size)
        except StoreError as error:
            error.about("write", ref)
            raise
        with self._changing(ref) as keep:
            written = self._inner.write_raw(ref, size, options, source)
            if content is not None and len(content) <= self._policy.entry_limit and written.etag:
                now = self._clock()
                keep.append(
                    Entry(
                        reference=ref,
                        content=content,
                        metadata=_of_write(written, options),
                        complete=False,
                        # What the store's download limit says of it is only known when it is read.
                        within_limit=False,
                        stored=now,
                        checked=now,
                    )
                )
        return written

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        ref = as_reference(reference)
        with self._changing(ref):
            self._inner.delete(ref, missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        refs = [as_reference(reference) for reference in references]
        with ExitStack() as stack:
            for ref in set(refs):
                stack.enter_context(self._changing(ref))
            return self._inner.delete_many(refs)

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        ref = as_reference(destination)
        with self._changing(ref):
            return self._inner.copy_raw(source, ref, options)

    def close(self) -> None:
        self._slots.clear()
        self._inner.close()

    @contextmanager
    def _changing(self, ref: DataReference) -> Iterator[list[Entry]]:
        """Keeps the slot empty during the block, and afterwards holds the entry put into the list, if any."""
        kept: list[Entry] = []
        writer = self._slots.writing(ref)
        try:
            yield kept
        finally:
            self._slots.written(ref, writer, kept[0] if kept else None)

    def _tell(self, operation: Operation, result: CacheResult) -> None:
        if self._on_request is not None:
            self._on_request(operation, result)

    def _start_empty(self) -> None:
        policy = self._policy
        self._slots = Slots(policy.max_bytes, policy.entry_limit, policy.ttl, self._clock)
        self._reader = Reader(self._inner, policy, self._slots, self._clock)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_slots": None, "_reader": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start_empty()


def _of_write(written: Metadata, options: WriteOptions | None) -> Metadata:
    if options is None:
        return written
    return evolve(
        written,
        user_metadata=options.metadata,
        content_type=options.content_type,
        cache_control=options.cache_control,
        content_encoding=options.content_encoding,
        content_disposition=options.content_disposition,
    )
