"""The reader: contents of blocks, from memory, the disk cache or the store, each proved before it is handed out.

What is fetched and cached are *units*: a large block is one, small ones share the aligned page of their pack, so that
reading one brings its neighbours.  Many threads that want one unit make one request.
"""

from __future__ import annotations

import contextvars
import copy
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final, NamedTuple, TypeAlias

from attrs import frozen
from crc32c import crc32c

from datastore import context
from datastore.errors import Cancelled, DeadlineExceeded, StoreError
from stowstore.chunks.block import BlockRef, Codec, CorruptBlock
from stowstore.chunks.codec import BlockCodec, corrupt
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.fetcher import PackFetcher
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.packs import CHECKED_BYTES

__all__ = ["INDEX_PAGE_BYTES", "PAGE_BYTES", "BlockReader", "ReaderStats"]

#: The stretch of a pack that small blocks are fetched by; blocks stored in no less are fetched alone.
PAGE_BYTES: Final = 256 << 10

#: The same for index nodes, of which a lookup needs several that lie near each other: a request saved each time.
INDEX_PAGE_BYTES: Final = 512 << 10

#: What one request fetches at most, and how much nobody asked for it may bring along to save another.
_MAX_FETCH = 8 << 20
_MAX_GAP = 128 << 10

#: How soon a wait notices that its context was cancelled, seconds.
_POLL = 0.05


class _Page(NamedTuple):
    """An aligned stretch of a pack; the last one of a pack is shorter than ``stored``."""

    pack: bytes
    offset: int
    stored: int


class _Flight(Future[bytes]):
    """A unit on its way; ``ahead`` if nobody has asked for it yet."""

    def __init__(self, *, ahead: bool) -> None:
        super().__init__()
        self.ahead = ahead


#: What is fetched, cached and waited for as one.
_Unit: TypeAlias = BlockRef | _Page

#: A range of a block's content.
Request: TypeAlias = tuple[BlockRef, int, int | None]


@frozen(kw_only=True)
class ReaderStats:
    """What a reader did so far: requests to the store, bytes they brought, units read ahead, blocks found damaged."""

    requests: int
    fetched_bytes: int
    prefetched: int
    damaged: int


class BlockReader:
    """Reads blocks of one kind of pack; thread-safe.

    Every block is proved by its name, ranges of large raw ones by the checksums of their stretches.  What a cache holds
    is proved likewise, and fetched again when it is bad; what the store holds is asked for twice before it is given up.
    """

    def __init__(
        self,
        fetcher: PackFetcher,
        codec: BlockCodec,
        executor: Executor,
        memory: MemoryCache,
        disk: DiskCache | None = None,
        *,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self._fetcher = fetcher
        self._page_bytes = page_bytes
        self._codec = codec
        self._executor = executor
        self._memory = memory
        self._disk = disk
        self._lock = threading.Lock()
        self._flights: dict[_Unit, _Flight] = {}
        self._fetched_bytes = self._prefetched = self._damaged = 0
        self._ahead_bytes = 0
        # What is read ahead must still be there when it is wanted.
        self._max_ahead = memory.max_bytes // 2

    def read(self, ref: BlockRef, start: int = 0, length: int | None = None) -> bytes:
        """The content of a block, or a range of it, clipped to the block.

        Raises:
            CorruptBlock: the block is damaged or gone; the error names it and its pack.
            StoreError: the store cannot be read.
        """
        return self.read_many([(ref, start, length)])[0]

    def read_many(self, requests: Sequence[Request]) -> list[bytes]:
        """Ranges of blocks, in order; neighbours in a pack are fetched together, packs in parallel.

        Raises:
            ValueError: a start or length is negative.
            CorruptBlock, StoreError: as `read`; the first failure.
        """
        results: dict[int, bytes] = {}
        wholes: list[tuple[int, BlockRef, int, int]] = []
        for position, (ref, start, length) in enumerate(requests):
            if start < 0 or (length is not None and length < 0):
                raise ValueError(f"a range starts at 0 or later and is not negative: {start}, {length}")
            end = ref.length if length is None else min(ref.length, start + length)
            if start >= end:
                results[position] = b""
            elif (part := self._read_part(ref, start, end)) is not None:
                results[position] = part
            else:
                wholes.append((position, ref, start, end))
        if wholes:
            loaded = self._load(dict.fromkeys(unit for _, ref, _, _ in wholes for unit in self._units(ref)))
            for position, ref, start, end in wholes:
                content = self._content(ref, loaded)
                results[position] = content if end - start == ref.length else content[start:end]
        return [results[position] for position in range(len(requests))]

    def is_near(self, ref: BlockRef, start: int, length: int) -> bool:
        """Whether a range of a block is in memory."""
        memory = self._memory
        if all(unit in memory for unit in self._units(ref)):
            return True
        first, last = start // CHECKED_BYTES, (start + length - 1) // CHECKED_BYTES
        return length <= ref.length // 4 and all((ref, stretch) in memory for stretch in range(first, last + 1))

    def prefetch(self, refs: Iterable[BlockRef]) -> None:
        """Begins to fetch blocks into memory that are about to be read, as many as half of it holds.

        Returns at once and never fails: what could not be fetched is fetched when it is read.
        """
        units = dict.fromkeys(unit for ref in refs for unit in self._units(ref))
        wanted = [unit for unit in units if unit not in self._memory]
        mine, _ = self._claim(wanted, ahead=True)
        for group in _groups(mine):
            self._start(group, contextvars.Context())

    @property
    def stats(self) -> ReaderStats:
        return ReaderStats(
            requests=self._fetcher.requests,
            fetched_bytes=self._fetched_bytes,
            prefetched=self._prefetched,
            damaged=self._damaged,
        )

    def _content(self, ref: BlockRef, loaded: dict[_Unit, bytes]) -> bytes:
        """The content of a block whose units are loaded."""
        if ref.stored >= self._page_bytes:
            return loaded[ref]
        units = self._units(ref)
        try:
            return self._codec.decode(ref, _cut(ref, [(unit, loaded[unit]) for unit in units]))
        except CorruptBlock:
            for unit in units:
                self._forget(unit)
            return self._fetch_again(ref)

    def _fetch_again(self, ref: BlockRef) -> bytes:
        """Reads a block from the store once more, past every cache."""
        try:
            return self._codec.decode(ref, self._fetch(ref.pack, ref.offset, ref.stored))
        except CorruptBlock:
            with self._lock:
                self._damaged += 1
            raise

    def _load(self, units: Iterable[_Unit]) -> dict[_Unit, bytes]:
        """Units by whatever way is shortest."""
        loaded: dict[_Unit, bytes] = {}
        missing: list[_Unit] = []
        for unit in units:
            found = self._memory.get(unit)
            if found is None:
                missing.append(unit)
            else:
                loaded[unit] = found
        while missing:
            mine, others = self._claim(missing)
            groups = _groups(mine)
            for group in groups[1:]:
                self._start(group, contextvars.copy_context())
            if groups:
                self._run_group(groups[0])
            missing = []
            for unit, flight in mine.items():
                loaded[unit] = _wait(flight)
            for unit, flight in others.items():
                try:
                    loaded[unit] = _wait(flight)
                except StoreError as error:
                    context.check()
                    if not flight.ahead and not isinstance(error, (DeadlineExceeded, Cancelled)):
                        # An exception belongs to the thread that raises it: its traceback grows there.
                        raise copy.copy(error) from error
                    # Whoever fetched it did not need it, or ran out of time; neither is our failure.
                    missing.append(unit)
        return loaded

    def _claim(
        self, units: Iterable[_Unit], *, ahead: bool = False
    ) -> tuple[dict[_Unit, _Flight], dict[_Unit, _Flight]]:
        """Flights of units: those the caller has to fetch, and those others are fetching already."""
        mine: dict[_Unit, _Flight] = {}
        others: dict[_Unit, _Flight] = {}
        with self._lock:
            for unit in units:
                flight = self._flights.get(unit)
                if flight is not None:
                    others[unit] = flight
                    continue
                if ahead:
                    if self._ahead_bytes + unit.stored > self._max_ahead:
                        break
                    self._ahead_bytes += unit.stored
                    self._prefetched += 1
                mine[unit] = self._flights[unit] = _Flight(ahead=ahead)
        return mine, others

    def _start(self, group: Sequence[_Unit], limits: contextvars.Context) -> None:
        try:
            self._executor.submit(limits.run, self._run_group, group)
        except RuntimeError:
            # The threads have ended; somebody may be waiting for the group all the same.
            self._run_group(group)

    def _run_group(self, group: Sequence[_Unit]) -> None:
        """Lands the flights of units that lie near each other; failures land, too."""
        waiting = dict.fromkeys(group)
        try:
            for unit in group:
                found = self._from_disk(unit)
                if found is not None:
                    del waiting[unit]
                    self._land(unit, found)
            if waiting:
                missing = list(waiting)
                start = missing[0].offset
                data = self._fetch(missing[0].pack, start, missing[-1].offset + missing[-1].stored - start)
                view = memoryview(data)
                for unit in missing:
                    stored = data
                    if len(missing) > 1:
                        stored = bytes(view[unit.offset - start : unit.offset - start + unit.stored])
                    value = self._from_store(unit, stored)
                    del waiting[unit]
                    self._land(unit, value)
        except BaseException as error:
            for unit in waiting:
                self._land(unit, error)
            if not isinstance(error, Exception):
                raise

    def _land(self, unit: _Unit, outcome: bytes | BaseException) -> None:
        if isinstance(outcome, bytes):
            self._memory.put(unit, outcome)
        with self._lock:
            flight = self._flights.pop(unit)
            if flight.ahead:
                self._ahead_bytes -= unit.stored
        if isinstance(outcome, bytes):
            flight.set_result(outcome)
        else:
            flight.set_exception(outcome)

    def _from_disk(self, unit: _Unit) -> bytes | None:
        if self._disk is None:
            return None
        stored = self._disk.get(_key(unit))
        if stored is None or isinstance(unit, _Page):
            return stored
        try:
            return self._codec.decode(unit, stored)
        except CorruptBlock:
            self._disk.discard(_key(unit), bad=True)
            return None

    def _from_store(self, unit: _Unit, stored: bytes) -> bytes:
        """A unit from what lies in the store, as it is kept in memory."""
        value = stored
        if isinstance(unit, BlockRef):
            try:
                value = self._codec.decode(unit, stored)
            except CorruptBlock:
                return self._fetch_again(unit)
        if self._disk is not None and stored:
            self._disk.put(_key(unit), stored)
        return value

    def _fetch(self, pack: bytes, start: int, length: int) -> bytes:
        data = self._fetcher.fetch(pack, start, length)
        with self._lock:
            self._fetched_bytes += len(data)
        return data

    def _forget(self, unit: _Unit) -> None:
        self._memory.discard(unit)
        if self._disk is not None:
            self._disk.discard(_key(unit), bad=True)

    def _read_part(self, ref: BlockRef, start: int, end: int) -> bytes | None:
        """A range of a large raw block by its stretches; None where the block is better read whole."""
        if ref.codec != Codec.RAW or self._codec.is_sealed or ref.stored < self._page_bytes:
            return None
        if end - start > ref.length // 4:
            return None
        first, last = start // CHECKED_BYTES, (end - 1) // CHECKED_BYTES
        if ref in self._memory or ref in self._flights or (self._disk is not None and _key(ref) in self._disk):
            return None
        pieces = [self._memory.get((ref, stretch)) for stretch in range(first, last + 1)]
        if None in pieces:
            # Whoever reads on from what was read before is going to want the rest.
            if first and pieces[0] is None and (ref, first - 1) in self._memory:
                return None
            try:
                pieces = [*self._fetch_stretches(ref, first, last)]
            except CorruptBlock:
                # The table or the stretch is damaged; the whole block has a proof of its own.
                return None
        content = b"".join(piece for piece in pieces if piece is not None)
        skip = start - first * CHECKED_BYTES
        return content[skip : skip + end - start]

    def _fetch_stretches(self, ref: BlockRef, first: int, last: int) -> list[bytes]:
        checksums = self._fetcher.table(ref.pack).checksums_of(ref)
        if checksums is None:
            raise corrupt(ref, "it has no checksums")
        begin, stop = first * CHECKED_BYTES, min(ref.length, (last + 1) * CHECKED_BYTES)
        data = self._fetch(ref.pack, ref.offset + begin, stop - begin)
        if len(data) != stop - begin:
            raise corrupt(ref, "its pack is cut off")
        pieces = [data[at : at + CHECKED_BYTES] for at in range(0, len(data), CHECKED_BYTES)]
        for stretch, piece in enumerate(pieces, first):
            if crc32c(piece) != checksums[stretch]:
                raise corrupt(ref, f"its bytes from {stretch * CHECKED_BYTES} do not match their checksum")
            self._memory.put((ref, stretch), piece)
        return pieces

    def _units(self, ref: BlockRef) -> tuple[_Unit, ...]:
        """What has to be loaded for a block."""
        size = self._page_bytes
        if ref.stored >= size:
            return (ref,)
        first = ref.offset // size * size
        if ref.offset + ref.stored <= first + size:
            return (_Page(ref.pack, first, size),)
        return (_Page(ref.pack, first, size), _Page(ref.pack, first + size, size))


def _cut(ref: BlockRef, pages: Sequence[tuple[_Unit, bytes]]) -> bytes | memoryview:
    """A block's stored bytes out of its pages."""
    parts = []
    for page, data in pages:
        begin = max(0, ref.offset - page.offset)
        stop = max(0, ref.offset + ref.stored - page.offset)
        parts.append(memoryview(data)[begin:stop])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _groups(units: Iterable[_Unit]) -> list[list[_Unit]]:
    """Units by pack and place, in groups that one request each fetches."""
    packs: defaultdict[bytes, list[_Unit]] = defaultdict(list)
    for unit in units:
        packs[unit.pack].append(unit)
    groups: list[list[_Unit]] = []
    for found in packs.values():
        found.sort(key=lambda unit: (unit.offset, unit.stored))
        groups.append([found[0]])
        for unit in found[1:]:
            group = groups[-1]
            end = group[-1].offset + group[-1].stored
            if end <= unit.offset <= end + _MAX_GAP and unit.offset + unit.stored - group[0].offset <= _MAX_FETCH:
                group.append(unit)
            else:
                groups.append([unit])
    return groups


def _key(unit: _Unit) -> str:
    """The name of a unit in the disk cache; what differs most comes last."""
    return f"{unit.offset:x}-{unit.stored:x}-{unit.pack.hex()}"


def _wait(flight: _Flight) -> bytes:
    limits = context.current_limits()
    if limits is None or flight.done():
        return flight.result()
    while True:
        limits.check()
        left = limits.remaining()
        try:
            return flight.result(_POLL if left is None or limits.tokens else left)
        except FutureTimeout:
            if flight.done():
                raise
