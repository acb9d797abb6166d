"""The cache: what it spares the backend, what it may never serve, how much it holds."""

import io
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from attrs import evolve

from datastore import DataReference, MemoryStore, Metadata, ReadStream, WriteOptions, deadline
from datastore.errors import (
    ConfigError,
    DeadlineExceeded,
    ErrorCode,
    LimitExceeded,
    NotFound,
    PreconditionFailed,
    StoreError,
    TransientError,
    is_failed_write_to_cache,
)
from datastore.metric_names import CacheResult, Operation
from datastore.wrappers._slots import ENTRY_OVERHEAD
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.cached import CachedStore, CachePolicy
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, Stall, When

REF = DataReference("mem://c/k")
OTHER = DataReference("mem://c/other")
MIB = 1 << 20

HIT, MISS, BYPASS = CacheResult.HIT, CacheResult.MISS, CacheResult.BYPASS


class Setup:
    """A memory store, a counting (and faulty) one over it, a cache over that, and a clock that is set by hand."""

    def __init__(self, *, memory: MemoryStore | None = None, rules: tuple[Rule, ...] = (), **policy: Any) -> None:
        self.now = 0.0
        self.memory = memory or MemoryStore()
        self.backend = FaultyStore(self.memory, rules)
        self.results: list[tuple[Operation, CacheResult]] = []
        self.store = CachedStore(
            self.backend,
            CachePolicy(**{"max_bytes": MIB, **policy}),
            lambda operation, result: self.results.append((operation, result)),
            clock=lambda: self.now,
        )

    @property
    def reads(self) -> int:
        return self.backend.calls[Operation.READ]

    def wait_for_a_read(self) -> None:
        """Until the backend has been asked."""
        while not self.backend.calls[Operation.READ]:
            time.sleep(0.001)

    @property
    def heads(self) -> int:
        return self.backend.calls[Operation.HEAD]


def test_two_reads_make_one_request() -> None:
    """The second is served from memory, content and metadata."""
    setup = Setup()
    setup.memory.write_bytes(REF, b"content", WriteOptions(content_type="text/plain", metadata={"a": "1"}))
    for _ in range(2):
        with setup.store.read_raw(REF) as stream:
            assert stream.metadata == setup.memory.head(REF)
            assert stream.read() == b"content"
    assert setup.reads == 1
    assert setup.results == [(Operation.READ, MISS), (Operation.READ, HIT)]


def test_a_read_after_a_write_makes_no_request() -> None:
    """What was written is held; its metadata are asked for only if somebody looks at them."""
    setup = Setup()
    setup.store.write_bytes(REF, b"content", WriteOptions(content_type="text/plain"))
    assert setup.store.read_bytes(REF) == b"content"
    assert (setup.reads, setup.heads) == (0, 0)
    with setup.store.read_raw(REF) as stream:
        assert stream.metadata == setup.memory.head(REF)
    with setup.store.read_raw(REF) as stream:
        assert stream.metadata.content_type == "text/plain"
    assert (setup.reads, setup.heads) == (0, 1)


@pytest.mark.parametrize(
    ("size", "source"), [(7, io.BytesIO(b"content")), (7, iter([b"con", b"tent"])), (None, b"content")]
)
def test_small_sources_of_known_size_are_held_too(size: int | None, source: Any) -> None:
    """Whether they can be rewound or not."""
    setup = Setup()
    setup.store.write_raw(REF, size, None, source)
    assert setup.store.read_bytes(REF) == b"content"
    assert setup.reads == 0


def test_a_source_of_unknown_size_streams_through() -> None:
    """Nobody knows how much memory it would take; it is read back once."""
    setup = Setup()
    setup.store.write_raw(REF, None, None, iter([b"con", b"tent"]))
    assert setup.store.read_bytes(REF) == b"content"
    assert setup.reads == 1


def test_head_is_served_whole_or_not_at_all() -> None:
    """A hit has the etag, the digest and the times of the backend."""
    setup = Setup()
    setup.store.write_bytes(REF, b"content", WriteOptions(metadata={"a": "1"}))
    truth = setup.memory.head(REF)
    assert [setup.store.head(REF) for _ in range(3)] == [truth] * 3
    assert setup.heads == 1
    assert setup.results == [(Operation.HEAD, MISS), (Operation.HEAD, HIT), (Operation.HEAD, HIT)]


@pytest.mark.parametrize(("start", "length"), [(0, 3), (2, None), (-4, 2), (5, 100), (99, None), (-99, 2), (3, 0)])
def test_ranges_are_served_from_a_whole_object(start: int, length: int | None) -> None:
    """The same bytes as the backend gives, clipped in the same way."""
    setup = Setup()
    setup.memory.write_bytes(REF, b"content")
    setup.store.read_bytes(REF)
    assert setup.store.read_bytes(REF, start, length) == setup.memory.read_bytes(REF, start, length)
    assert setup.reads == 1


def test_a_range_of_what_is_not_held_goes_straight_through() -> None:
    """It does not fetch the whole object."""
    setup = Setup()
    setup.memory.write_bytes(REF, b"content")
    assert setup.store.read_bytes(REF, 0, 3) == b"con"
    assert setup.results == [(Operation.READ, BYPASS)]
    assert setup.store.stats.entries == 0


def test_a_negative_length_is_refused() -> None:
    """Held or not."""
    setup = Setup()
    setup.store.write_bytes(REF, b"content")
    with pytest.raises(ValueError, match="length"):
        setup.store.read_raw(REF, 0, -1)


CHANGES: dict[str, Callable[[CachedStore], object]] = {
    "write": lambda store: store.write_bytes(REF, b"changed"),
    "oversize write": lambda store: store.write_bytes(REF, bytes(MIB)),
    "streamed write": lambda store: store.write_raw(REF, None, None, iter([b"changed"])),
    "copy": lambda store: store.copy_raw(OTHER, REF),
    "delete": lambda store: store.delete(REF),
    "delete_many": lambda store: store.delete_many([REF, str(OTHER)]),
    "write under another scheme": lambda store: store.write_bytes("other://c/k", b"changed"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("when", [None, *When])
def test_what_this_store_changes_is_never_served_again(
    change: Callable[[CachedStore], object], when: When | None
) -> None:
    """Not even if the change failed, before or after it took effect."""
    setup = Setup()
    setup.memory.write_bytes(REF, b"content")
    setup.memory.write_bytes(OTHER, b"other")
    setup.store.read_bytes(REF)
    if when is None:
        change(setup.store)
    else:
        setup.backend.add(Rule(Raise(when=when), times=1))
        with pytest.raises(TransientError):
            change(setup.store)
    assert setup.store.head(REF) == setup.memory.head(REF)
    if setup.memory.exists(REF):
        assert setup.store.read_bytes(REF) == setup.memory.read_bytes(REF)
    else:
        with pytest.raises(NotFound):
            setup.store.read_raw(REF)


def test_what_is_not_there_is_not_remembered() -> None:
    """An object made by somebody else is found at once."""
    setup = Setup()
    with pytest.raises(NotFound):
        setup.store.read_raw(REF)
    assert not setup.store.exists(REF)
    setup.memory.write_bytes(REF, b"content")
    assert setup.store.read_bytes(REF) == b"content"


@pytest.mark.parametrize("operation", [Operation.HEAD, Operation.READ])
def test_a_failure_of_the_backend_is_raised(operation: Operation) -> None:
    """A miss whose request fails; nothing is held, the next one tries again."""
    setup = Setup(rules=(Rule(Raise(), operations=[operation], nth=1),))
    setup.memory.write_bytes(REF, b"content")
    with pytest.raises(TransientError) as caught:
        setup.store.head(REF) if operation is Operation.HEAD else setup.store.read_raw(REF)
    assert not is_failed_write_to_cache(caught.value)
    assert setup.store.read_bytes(REF) == b"content"


def test_a_stream_that_breaks_while_it_is_taken_in_is_an_error() -> None:
    """Half an object is never held."""
    setup = Setup(rules=(Rule(BreakStream(after=3), operations=[Operation.READ], nth=1),))
    setup.memory.write_bytes(REF, b"content")
    with pytest.raises(TransientError):
        setup.store.read_raw(REF)
    assert setup.store.read_bytes(REF) == b"content"


def test_a_megabyte_and_a_half_through_a_cache_of_one() -> None:
    """Upstream reports a cache-write error; here the data pass and the case is counted."""
    setup = Setup()
    data = bytes(range(256)) * 6144
    setup.store.write_bytes(REF, data)
    assert setup.store.read_bytes(REF) == data
    assert setup.store.read_bytes(REF) == data
    assert setup.reads == 2
    assert setup.store.stats.entries == 0
    assert setup.store.stats.oversize == 2
    assert ErrorCode.CACHE_WRITE_FAILED in ErrorCode


def test_memory_that_runs_out_costs_a_request_and_no_error() -> None:
    """The one fault a cache in memory has; it cannot be caused otherwise."""

    class Exhausted(StoreWrapper):
        def read_raw(self, *args: Any, **options: Any) -> ReadStream:
            stream = super().read_raw(*args, **options)
            if not failed:
                failed.append(True)
                return ReadStream(_Body(), stream.size, stream.metadata)
            return stream

    class _Body:
        def read(self, size: int, /) -> bytes:
            raise MemoryError

        def close(self) -> None: ...

    failed: list[bool] = []
    store = CachedStore(Exhausted(MemoryStore()), CachePolicy(max_bytes=MIB))
    store.inner.write_bytes(REF, b"content")
    assert store.read_bytes(REF) == b"content"
    assert store.stats.write_errors == 1


def test_the_least_recently_used_goes_first() -> None:
    """The bound counts bytes and bookkeeping."""
    size = 1000
    setup = Setup(max_bytes=3 * (size + ENTRY_OVERHEAD), max_entry_bytes=size)
    a, b, c, d = (DataReference(f"mem://c/{name}") for name in "abcd")
    for ref in (a, b, c):
        setup.store.write_bytes(ref, bytes(size))
    setup.store.read_bytes(a)
    setup.store.write_bytes(d, bytes(size))
    assert setup.store.stats.evicted == 1
    for ref in (a, c, d):
        setup.store.read_bytes(ref)
    assert setup.reads == 0
    setup.store.read_bytes(b)
    assert setup.reads == 1
    assert setup.store.stats.bytes <= 3 * (size + ENTRY_OVERHEAD)


def test_a_cache_of_nothing_holds_nothing() -> None:
    """It is a way to switch it off."""
    setup = Setup(max_bytes=0)
    setup.store.write_bytes(REF, b"content")
    assert [setup.store.read_bytes(REF) for _ in range(2)] == [b"content"] * 2
    assert setup.results == [(Operation.READ, BYPASS)] * 2


def test_an_old_hit_is_asked_about_by_etag() -> None:
    """One head, and the object is young again; if it was replaced, one read."""
    setup = Setup(revalidate_after=10)
    setup.memory.write_bytes(REF, b"first")
    setup.store.read_bytes(REF)
    setup.now = 9
    setup.store.read_bytes(REF)
    assert (setup.heads, setup.reads) == (0, 1)
    setup.now = 10
    assert [setup.store.read_bytes(REF), setup.store.read_bytes(REF, 1)] == [b"first", b"irst"]
    assert (setup.heads, setup.reads) == (1, 1)
    setup.memory.write_bytes(REF, b"other")
    setup.now = 20
    assert setup.store.read_bytes(REF, 1, 2) == b"th"
    assert setup.store.read_bytes(REF) == b"other"
    setup.now = 30
    setup.memory.delete(REF)
    assert not setup.store.head(REF).exists
    with pytest.raises(NotFound):
        setup.store.read_raw(REF)


def test_after_its_time_to_live_an_object_is_fetched_again() -> None:
    """Although nobody asked whether it changed."""
    setup = Setup(ttl=10)
    setup.memory.write_bytes(REF, b"content")
    setup.store.read_bytes(REF)
    setup.now = 10
    setup.store.read_bytes(REF)
    assert (setup.heads, setup.reads) == (0, 2)
    assert setup.store.stats.expired == 1


def test_without_an_etag_an_old_hit_is_fetched_again() -> None:
    """There is nothing to ask by."""

    class NoEtags(StoreWrapper):
        def read_raw(self, *args: Any, **options: Any) -> ReadStream:
            reads.append(1)
            stream = super().read_raw(*args, **options)
            return ReadStream(stream, stream.size, evolve(stream.metadata, etag=""))

    reads: list[int] = []
    now = [0.0]
    store = CachedStore(NoEtags(MemoryStore()), CachePolicy(max_bytes=MIB, revalidate_after=5), clock=lambda: now[0])
    store.inner.write_bytes(REF, b"content")
    store.read_bytes(REF)
    store.read_bytes(REF)
    now[0] = 5
    assert store.read_bytes(REF) == b"content"
    assert len(reads) == 2


def test_if_match_is_held_against_the_etag() -> None:
    """A hit must have it; else the backend decides."""
    setup = Setup()
    etag = setup.store.write_bytes(REF, b"content").etag
    with setup.store.read_raw(REF, if_match=f'"{etag}"') as stream:
        assert stream.read() == b"content"
    assert setup.reads == 0
    with pytest.raises(PreconditionFailed):
        setup.store.read_raw(REF, if_match="other")


def test_the_download_limit_holds_for_what_is_held() -> None:
    """A hit is refused as the backend would refuse it, and served where a limit allows."""
    setup = Setup(memory=MemoryStore(max_download_bytes=5))
    setup.store.write_bytes(REF, b"content")
    with pytest.raises(LimitExceeded, match="5 bytes"):
        setup.store.read_raw(REF)
    with setup.store.read_raw(REF, max_bytes=0) as stream:
        assert stream.read() == b"content"
    with pytest.raises(LimitExceeded, match="7 bytes exceed"):
        setup.store.read_raw(REF)
    with pytest.raises(LimitExceeded, match="6 bytes"):
        setup.store.read_raw(REF, max_bytes=6)
    assert setup.store.read_bytes(REF, 0, 5) == b"conte"


def test_many_readers_make_one_request() -> None:
    """Fifty threads wait for the one that fetches."""
    setup = Setup(rules=(Rule(Stall(), operations=[Operation.READ]),))
    setup.memory.write_bytes(REF, b"content")
    with ThreadPoolExecutor(50) as pool:
        found = [pool.submit(setup.store.read_bytes, REF) for _ in range(50)]
        setup.wait_for_a_read()
        setup.backend.release()
        assert {future.result() for future in found} == {b"content"}
    assert setup.reads == 1
    assert setup.results.count((Operation.READ, HIT)) == 49


def test_who_waits_for_another_keeps_its_own_deadline() -> None:
    """And what ends the other does not end who waits."""
    setup = Setup(rules=(Rule(Stall(), operations=[Operation.READ], nth=1),))
    setup.memory.write_bytes(REF, b"content")
    outcome: list[object] = []

    def lead() -> None:
        with deadline(0.3):
            try:
                setup.store.read_bytes(REF)
            except DeadlineExceeded as error:
                outcome.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    setup.wait_for_a_read()
    with deadline(0.02), pytest.raises(DeadlineExceeded):
        setup.store.read_bytes(REF)
    assert setup.store.read_bytes(REF) == b"content"
    leader.join()
    assert len(outcome) == 1


class Gates(StoreWrapper):
    """Lets a test stop a read after the backend answered, and a write before or after it took effect."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.answered = threading.Event()
        self.may_return = threading.Event()
        self.closed = True

    def read_raw(self, *args: Any, **options: Any) -> ReadStream:
        stream = super().read_raw(*args, **options)
        if self.closed:
            self.closed = False
            self.answered.set()
            assert self.may_return.wait(10)
        return stream


@pytest.mark.parametrize("change", ["write", "delete", "copy"])
def test_a_read_that_raced_a_change_leaves_nothing_stale(change: str) -> None:
    """It was answered with the old object before the change, and returned after it."""
    memory = MemoryStore()
    gates = Gates(memory)
    store = CachedStore(gates, CachePolicy(max_bytes=MIB))
    memory.write_bytes(REF, b"old")
    memory.write_bytes(OTHER, b"new")
    with ThreadPoolExecutor(1) as pool:
        racing = pool.submit(store.read_bytes, REF)
        assert gates.answered.wait(10)
        if change == "write":
            store.write_bytes(REF, b"new")
        elif change == "copy":
            store.copy_raw(OTHER, REF)
        else:
            store.delete(REF)
        gates.may_return.set()
        assert racing.result() == b"old"
    if change == "delete":
        assert not store.exists(REF)
    else:
        assert store.read_bytes(REF) == b"new"


def test_concurrent_writers_leave_what_the_backend_has() -> None:
    """Nobody knows which of two overlapping writes came last, so neither is held unseen."""
    memory = MemoryStore()
    store = CachedStore(memory, CachePolicy(max_bytes=MIB))

    def work(number: int) -> None:
        for turn in range(60):
            store.write_bytes(REF, f"{number} {turn}".encode())
            store.read_bytes(REF)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store.read_bytes(REF) == memory.read_bytes(REF)
    assert store.head(REF) == memory.head(REF)


def test_nothing_acknowledged_is_ever_unread() -> None:
    """Readers never see a number below one whose write had returned before they began."""
    store = CachedStore(FaultyStore(MemoryStore()), CachePolicy(max_bytes=MIB))
    store.write_bytes(REF, b"0")
    done = [0]
    stop = threading.Event()

    def read() -> bool:
        while not stop.is_set():
            least = done[0]
            if int(store.read_bytes(REF)) < least:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for number in range(1, 400):
            store.write_bytes(REF, str(number).encode())
            done[0] = number
        stop.set()
        assert all(reader.result() for reader in readers)


def test_clearing_and_statistics() -> None:
    """What was held is fetched again."""
    setup = Setup()
    setup.store.write_bytes(REF, b"content")
    assert setup.store.stats.bytes == 7 + ENTRY_OVERHEAD
    setup.store.clear()
    assert (setup.store.stats.entries, setup.store.stats.bytes) == (0, 0)
    assert setup.store.read_bytes(REF) == b"content"
    assert setup.reads == 1


def test_a_wrong_size_is_refused_before_anything_is_dropped() -> None:
    """The error names the reference, as the backend's would."""
    setup = Setup()
    setup.store.write_bytes(REF, b"content")
    with pytest.raises(StoreError, match="write mem://c/k: the size is declared as 3"):
        setup.store.write_raw(REF, 3, None, b"four")
    assert setup.store.read_bytes(REF) == b"content"


@pytest.mark.parametrize("name", ["max_bytes", "max_entry_bytes", "ttl", "revalidate_after"])
def test_a_policy_that_makes_no_sense_is_refused(name: str) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError, match=name):
        CachePolicy(**{"max_bytes": 1, name: -1})


def test_an_object_replaced_by_others_keeps_the_metadata_of_its_content() -> None:
    """A stream of what this store wrote never carries the metadata of what replaced it."""
    setup = Setup()
    written = setup.store.write_bytes(REF, b"mine", WriteOptions(content_type="text/plain"))
    with setup.store.read_raw(REF) as stream:
        setup.memory.write_bytes(REF, b"theirs")
        assert stream.metadata == Metadata(exists=True, size=4, etag=written.etag, content_type="text/plain")
    assert setup.store.read_bytes(REF) == b"theirs"


class Picklable(MemoryStore):
    """Arrives empty, as a store of an outside backend arrives with new connections."""

    def __reduce__(self) -> Any:
        return Picklable, ()


def test_pickled_it_starts_empty() -> None:
    """Its policy comes along, what it holds does not."""
    store = CachedStore(Picklable(), CachePolicy(max_bytes=MIB))
    store.write_bytes(REF, b"content")
    other = pickle.loads(pickle.dumps(store))
    assert other.stats.entries == 0
    other.write_bytes(REF, b"other")
    assert (other.read_bytes(REF), store.read_bytes(REF)) == (b"other", b"content")
