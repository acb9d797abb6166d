"""What was added is in the store after a flush, once, in order; failures lose nothing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from datastore import cancellable, deadline
from datastore.errors import Cancelled, DeadlineExceeded, PermissionDenied, TransientError
from datastore.memory import MemoryStore
from datastore.metric_names import Operation
from datastore.model import Capabilities, Feature
from datastore.protocol import Reference
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, Stall, When
from stowstore.chunks.block import BLOCK_BYTES, Codec, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.packs import PackBuilder
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.uploader import PackUploader
from stowstore.chunks.writer import BlockProgress, KnownBlocks, PendingBlock
from tests.chunks.chunk_stores import PLAIN, SEALED, chunks, noise, prose, write

WRITES = {Operation.WRITE}
BOTH = pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])


def packs(opened: ChunkStore, kind: PackKind = PackKind.DATA) -> int:
    """How many packs there are."""
    return sum(1 for _ in opened.list_packs(kind))


@BOTH
def test_what_was_written_is_read(codec: BlockCodec) -> None:
    """Blocks of every size and sort, by another chunk store over the same root."""
    contents = [noise(1), prose(5000), noise(4096, 1), noise(BLOCK_BYTES), prose(BLOCK_BYTES), noise(300_000)]
    store = MemoryStore()
    with chunks(store, codec) as opened:
        refs = write(opened, contents)
    with chunks(store, codec) as again:
        assert contents == [again.reader.read(ref) for ref in refs]


def test_small_blocks_lie_in_order_and_large_ones_apart() -> None:
    """Whichever thread finished first; a large file does not tear a directory of small ones apart."""
    contents = [noise(1 << 20 if number % 10 == 5 else 3000 + number, number) for number in range(300)]
    with chunks() as opened:
        refs = write(opened, contents)
    small = [ref for ref in refs if ref.length < 1 << 20]
    assert all(one.pack != other.pack or one.offset < other.offset for one, other in pairwise(small))
    assert 1 == len({ref.pack for ref in small})
    assert not {ref.pack for ref in small} & {ref.pack for ref in refs if ref.length >= 1 << 20}


def test_many_small_blocks_take_few_packs() -> None:
    """A pack is filled to 4 MiB."""
    with chunks() as opened:
        write(opened, [noise(4096, number) for number in range(3000)])
        assert 3 == packs(opened)


@BOTH
def test_equal_blocks_are_stored_once(codec: BlockCodec) -> None:
    """In one flush, in a later one, and across threads."""
    with chunks(codec=codec) as opened:
        writer = opened.writer()
        with ThreadPoolExecutor(4) as pool:
            first = list(pool.map(writer.add, [noise(2000, number % 10) for number in range(400)]))
        writer.flush()
        late = writer.add(noise(2000, 3))
        writer.flush()
        assert 10 == len({block.ref for block in [*first, late]})
        stats = writer.stats
        assert (401, 391, 391 * 2000) == (stats.blocks, stats.deduped_blocks, stats.deduped_bytes)
        assert (802_000, 10 * (2000 + codec.overhead), 1) == (stats.raw_bytes, stats.stored_bytes, stats.packs)
        assert 0 == stats.pending_bytes


def test_known_blocks_are_not_stored_again() -> None:
    """What a writer was told of is referred to, and a table may be shared."""
    with chunks() as opened:
        (ref,) = write(opened, [noise(5000)])
        known = KnownBlocks()
        writer = opened.writer(known=known)
        writer.known(ref)
        again = writer.add(noise(5000))
        fresh = writer.add(noise(5000, 1))
        writer.flush()
        assert ref == again.ref
        other = opened.writer(known=known)
        shared = other.add(noise(5000, 1))
        other.flush()
        assert fresh.ref == shared.ref
        assert 2 == packs(opened)


def test_the_table_of_known_blocks_is_bounded() -> None:
    """The oldest are forgotten; the first place of a block stays."""
    with chunks() as opened:
        refs = write(opened, [noise(100, number) for number in range(20)])
    known = KnownBlocks(max_entries=5)
    for ref in refs:
        known.add(ref)
        known.add(ref._replace(offset=0))
    assert refs[-5:] == [known.get(ref.name) for ref in refs[-5:]]
    assert (5, None) == (len(known), known.get(refs[0].name))


def test_a_block_has_no_place_before_a_flush() -> None:
    """Asking too early is an error, not a wrong answer."""
    with chunks() as opened:
        writer = opened.writer()
        pending = writer.add(b"small")
        assert not pending.is_placed
        with pytest.raises(RuntimeError, match="flush"):
            pending.ref  # noqa: B018
        writer.flush()
        assert b"small" == opened.reader.read(pending.ref)


@pytest.mark.parametrize("data", [b"", bytes(BLOCK_BYTES + 1)], ids=["empty", "too large"])
def test_impossible_blocks_are_refused(data: bytes) -> None:
    """By both writers."""
    with chunks() as opened:
        with pytest.raises(ValueError, match="1 to 4194304 bytes"):
            opened.writer().add(data)
        with pytest.raises(ValueError, match="1 to 4194304 bytes"):
            opened.index_writer().add(data)


def test_a_buffer_may_be_used_again_at_once() -> None:
    """The writer takes a copy of what the caller may change."""
    with chunks() as opened:
        writer = opened.writer()
        buffer = bytearray(noise(400_000))
        pending = [writer.add(buffer), writer.add(memoryview(buffer)[:1000])]
        buffer[:] = bytes(400_000)
        writer.flush()
        assert [noise(400_000), noise(400_000)[:1000]] == [opened.reader.read(block.ref) for block in pending]


def test_a_flush_of_nothing_makes_no_request() -> None:
    """Nor does opening a writer."""
    store = FaultyStore(MemoryStore())
    with chunks(store) as opened:
        opened.writer().flush()
        opened.index_writer().flush()
    assert 0 == store.calls.total()


@BOTH
@pytest.mark.parametrize(
    "fault",
    [
        Raise(TransientError),
        Raise(TransientError, when=When.AFTER),
        Raise(PermissionDenied),
        BreakStream(after=1000),
        Raise(RuntimeError),
    ],
    ids=["before", "after", "refused", "midway", "foreign"],
)
def test_a_failed_flush_is_repeated_without_loss(fault: Any, codec: BlockCodec) -> None:
    """Whatever went wrong, on whichever side of its effect: references stay valid and nothing is stored twice."""
    store = FaultyStore(MemoryStore(), [Rule(fault, operations=WRITES)])
    contents = [noise(700_000, number) for number in range(30)]
    with chunks(store, codec) as opened:
        writer = opened.writer()
        pending = [writer.add(content) for content in contents]
        # A pack whose answer was lost is found in the store by the second try.
        for _ in range(1 if fault == Raise(TransientError, when=When.AFTER) else 2):
            with pytest.raises((TransientError, PermissionDenied, RuntimeError), match="injected"):
                writer.flush()
        late = writer.add(b"late")
        store.clear()
        writer.flush()
        assert [*contents, b"late"] == [opened.reader.read(block.ref) for block in [*pending, late]]
        assert writer.stats.packs == packs(opened)
        assert 0 == writer.stats.pending_bytes


def test_a_lost_answer_is_not_taken_for_another_pack() -> None:
    """A pack that is there already is accepted only if it is this one."""
    memory = MemoryStore()
    store = FaultyStore(memory, [Rule(Raise(TransientError, when=When.AFTER), operations=WRITES, times=1)])
    with chunks(store) as opened:
        writer = opened.writer()
        writer.add(noise(500))
        with pytest.raises(TransientError):
            writer.flush()
        (entry,) = opened.list_packs(PackKind.DATA)
        memory.write_bytes(entry.reference, b"x" * entry.size)
        with pytest.raises(FileExistsError):
            writer.flush()


class _NoConditions(StoreWrapper):
    """A store that has no conditional writes."""

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        found = super().capabilities(reference)
        return evolve(found, features=found.features - {Feature.CREATE_IF_ABSENT})


def test_a_store_without_conditional_writes_will_do() -> None:
    """Pack names are unique anyway."""
    with chunks(_NoConditions(MemoryStore())) as opened:
        (ref,) = write(opened, [noise(500)])
        assert noise(500) == opened.reader.read(ref)


def test_too_much_under_way_makes_the_caller_wait() -> None:
    """No more is held than was allowed, and what is held goes out all the same."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations=WRITES)])
    with chunks(store) as opened:
        writer = opened.writer(max_bytes=16 << 20)
        pending: list[Any] = []
        accepted = threading.Semaphore(0)

        def produce() -> None:
            for number in range(12):
                pending.append(writer.add(noise(BLOCK_BYTES, number)))
                accepted.release()

        producer = threading.Thread(target=produce)
        producer.start()
        for _ in range(4):
            assert accepted.acquire(timeout=30)
        assert not accepted.acquire(timeout=0.2)
        assert writer.stats.pending_bytes <= 16 << 20
        store.release()
        producer.join(30)
        writer.flush()
        assert 12 == len(pending) == packs(opened)


def test_a_full_pipeline_of_failures_refuses_more_and_keeps_what_it_has() -> None:
    """The caller hears of it instead of waiting for ever."""
    store = FaultyStore(MemoryStore(), [Rule(Raise(PermissionDenied), operations=WRITES)])
    with chunks(store) as opened:
        writer = opened.writer(max_bytes=16 << 20)
        pending: list[PendingBlock] = []
        with pytest.raises(PermissionDenied):
            pending.extend(writer.add(noise(BLOCK_BYTES, number)) for number in range(100))
        assert len(pending) >= 4
        store.clear()
        with suppress(PermissionDenied):  # what failed after the last one was told
            writer.flush()
        writer.flush()
        assert all(noise(BLOCK_BYTES, number) == opened.reader.read(b.ref) for number, b in enumerate(pending))


def test_who_finds_no_room_tries_again_what_has_failed() -> None:
    """A caller who only adds is not refused for ever once the store is back: nobody else may come to flush."""
    store = FaultyStore(MemoryStore(), [Rule(Raise(PermissionDenied), operations=WRITES)])
    with chunks(store) as opened:
        writer = opened.writer(max_bytes=16 << 20)
        for _ in range(3):
            with pytest.raises(PermissionDenied):
                [writer.add(noise(BLOCK_BYTES, number)) for number in range(100)]
        store.clear()
        with suppress(PermissionDenied):  # what failed after the last one was told
            writer.add(noise(BLOCK_BYTES, 100))
        for number in range(101, 110):
            writer.add(noise(BLOCK_BYTES, number))
        assert writer.stats.packs >= 4


def test_the_progress_of_a_block() -> None:
    """It is said for each block, and whenever a pack has come into the store."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations=WRITES)])
    with chunks(store) as opened:
        writer = opened.writer()
        told = threading.Event()
        writer.on_stored = told.set
        small, large = writer.add(noise(500)), writer.add(noise(BLOCK_BYTES))
        while writer.progress(small) is BlockProgress.ENCODING or writer.progress(large) is BlockProgress.ENCODING:
            time.sleep(0.001)
        # A block that fills a pack does not wait for the next one.
        assert (writer.progress(small), writer.progress(large)) == (BlockProgress.PACKED, BlockProgress.UNDER_WAY)
        assert not told.is_set()
        store.release()
        assert told.wait(30)
        assert (writer.progress(small), writer.progress(large)) == (BlockProgress.PACKED, BlockProgress.STORED)
        again = writer.add(noise(BLOCK_BYTES))
        writer.flush()
        assert [BlockProgress.STORED] * 3 == [writer.progress(block) for block in (small, large, again)]


def test_a_deadline_ends_the_waiting_not_the_upload() -> None:
    """A later flush finds the upload going on."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations=WRITES)])
    with chunks(store) as opened:
        writer = opened.writer()
        pending = writer.add(noise(1000))
        with deadline(0.05), pytest.raises(DeadlineExceeded):
            writer.flush()
        with cancellable() as token:
            token.cancel()
            with pytest.raises(Cancelled):
                writer.flush()
        store.release()
        writer.flush()
        assert noise(1000) == opened.reader.read(pending.ref)


@pytest.mark.parametrize(("max_uploads", "at_once"), [(1, 1), (3, 3)])
def test_uploads_are_parallel_up_to_the_limit(max_uploads: int, at_once: int) -> None:
    """So many requests are under way together, never more."""
    store = _Counting(MemoryStore())
    with chunks(store) as opened:
        writer = opened.writer(max_uploads=max_uploads)
        for number in range(8):
            writer.add(noise(BLOCK_BYTES, number))
        # Every upload waits until as many as allowed have come.
        assert store.full(at_once)
        store.go.set()
        writer.flush()
        assert at_once == store.most


class _Counting(StoreWrapper):
    """A store that holds writes back and counts those that wait together."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.go = threading.Event()
        self.most = self._now = 0
        self._changed = threading.Condition()

    def full(self, count: int) -> bool:
        """Waits until so many writes are under way."""
        with self._changed:
            return self._changed.wait_for(lambda: self._now == count, timeout=30)

    def write_raw(self, *arguments: Any) -> Any:
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
        self.go.wait(30)
        with self._changed:
            self._now -= 1
        return super().write_raw(*arguments)


def test_a_delayed_upload_waits_unless_it_is_flushed() -> None:
    """A flush does not wait for the delay."""
    store = FaultyStore(MemoryStore())
    with chunks(store) as opened:
        writer = opened.writer(upload_delay=3600)
        for number in range(3):
            writer.add(noise(BLOCK_BYTES, number))
        assert 0 == store.calls[Operation.WRITE]
        writer.flush()
        assert 3 == store.calls[Operation.WRITE] == packs(opened)


def test_a_delayed_upload_goes_when_its_time_has_come() -> None:
    """Nobody has to ask."""
    store = _Counting(MemoryStore())
    with chunks(store) as opened:
        writer = opened.writer(upload_delay=0.02)
        for number in range(4):
            writer.add(noise(BLOCK_BYTES, number))
        assert store.full(4)
        store.go.set()
        writer.flush()


def test_a_delay_gives_way_to_lack_of_room() -> None:
    """Data that wait for their delay do not stop the caller."""
    with chunks() as opened:
        writer = opened.writer(upload_delay=3600, max_bytes=16 << 20)
        for number in range(12):
            writer.add(noise(BLOCK_BYTES, number))
        writer.flush()
        assert 12 == packs(opened)


def test_a_pack_that_fills_while_somebody_waits_for_room_has_no_delay() -> None:
    """Or nobody would send it: what takes the room is in it."""
    with chunks() as opened, deadline(60), ThreadPoolExecutor(1) as pool:
        uploader = PackUploader(opened.store, opened.pack_reference, upload_delay=3600, max_bytes=16 << 20)
        pack = PackBuilder(PackKind.DATA, PLAIN)
        pack.add(PLAIN.name(noise(BLOCK_BYTES)), Codec.RAW, noise(BLOCK_BYTES), BLOCK_BYTES)
        uploader.reserve(16 << 20)
        waiting = pool.submit(copy_context().run, uploader.reserve, BLOCK_BYTES)
        time.sleep(0.2)  # it most likely waits by now
        uploader.submit(pack)
        waiting.result()


@pytest.mark.parametrize("settings", [{"max_uploads": 0}, {"upload_delay": -1}, {"upload_delay": float("nan")}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    """At once, with the name of the setting."""
    with chunks() as opened, pytest.raises(ValueError, match=next(iter(settings))):
        opened.writer(**settings)


def test_a_closed_writer_says_so() -> None:
    """Both kinds, on every call."""
    with chunks() as opened:
        writer, nodes = opened.writer(), opened.index_writer()
        writer.close()
        nodes.close()
        for call in (lambda: writer.add(b"x"), writer.flush, nodes.flush):
            with pytest.raises(RuntimeError, match="closed"):
                call()


class _Failing(BlockCodec):
    """A codec that cannot, until it can."""

    fails = True

    def compress(self, content: bytes) -> Any:
        if self.fails:
            raise MemoryError("no memory to compress with")
        return super().compress(content)


def test_a_failure_to_encode_is_raised_at_flush_and_made_up_for() -> None:
    """Nothing behind it is lost, either, and the order holds."""
    codec = _Failing()
    with chunks(codec=codec) as opened:
        writer = opened.writer()
        pending = [writer.add(noise(50_000, number)) for number in range(40)]
        for _ in range(2):
            with pytest.raises(MemoryError):
                writer.flush()
        codec.fails = False
        writer.flush()
        refs = [block.ref for block in pending]
        assert refs == sorted(refs, key=lambda ref: ref.offset)
        assert all(noise(50_000, number) == opened.reader.read(ref) for number, ref in enumerate(refs))


@BOTH
def test_index_nodes_have_their_reference_at_once(codec: BlockCodec) -> None:
    """Equal nodes are one; packs are kept apart from file data; all are there after the flush."""
    with chunks(codec=codec) as opened:
        nodes = opened.index_writer()
        contents = [noise(100_000, number) for number in range(60)]
        refs = [nodes.add(content) for content in contents]
        assert refs[7] == nodes.add(contents[7])
        nodes.flush()
        assert contents == opened.index_reader.read(refs)
        assert (0, 2) == (packs(opened), packs(opened, PackKind.INDEX))
        assert nodes.stored_bytes == sum(ref.stored for ref in refs)


def test_index_nodes_survive_a_failed_flush() -> None:
    """As file data do."""
    store = FaultyStore(MemoryStore(), [Rule(Raise(TransientError), operations=WRITES, times=1)])
    with chunks(store) as opened:
        nodes = opened.index_writer()
        ref = nodes.add(b"node")
        with pytest.raises(TransientError):
            nodes.flush()
        nodes.flush()
        assert [b"node"] == opened.index_reader.read([ref])
