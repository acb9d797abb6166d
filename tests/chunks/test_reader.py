"""Reading takes few requests, serves many readers with one, and never waits longer than its caller."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import deadline
from datastore.errors import DeadlineExceeded, NoSuchContainer, TransientError
from datastore.memory import MemoryStore
from datastore.metric_names import Operation
from datastore.wrappers.faulty import Delay, FaultyStore, Raise, Rule, Stall
from stowstore import open_store
from stowstore.chunks.block import BLOCK_BYTES, BlockRef, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.reader import PAGE_BYTES
from tests.chunks.chunk_stores import PLAIN, ROOT, SEALED, chunks, noise, prose, write

BOTH = pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])

CONTENTS = [
    *(noise(4000 + number, number) for number in range(200)),
    noise(BLOCK_BYTES),
    prose(BLOCK_BYTES),
    noise(PAGE_BYTES),
    noise(PAGE_BYTES - 1),
    noise(1_500_000),
    noise(1_500_001),
    b"x",
]
STORES = {False: MemoryStore(), True: MemoryStore()}
REFS: dict[bool, list[BlockRef]] = {}
for sealed, memory in STORES.items():
    with chunks(memory, SEALED if sealed else PLAIN) as made:
        REFS[sealed] = write(made, CONTENTS)


RANGES = st.tuples(st.integers(0, len(CONTENTS) - 1), st.integers(0, 5 << 20), st.none() | st.integers(0, 300_000))


@given(st.booleans(), st.lists(RANGES, max_size=8), st.sampled_from([0, 1 << 20, 64 << 20]))
def test_any_ranges_are_those_of_the_contents(
    is_sealed: bool, ranges: list[tuple[int, int, int | None]], memory_bytes: int
) -> None:
    """One by one, together, and whatever the cache can hold; ranges are clipped like slices."""
    codec = SEALED if is_sealed else PLAIN
    refs = REFS[is_sealed]
    expected = [CONTENTS[i][start : None if length is None else start + length] for i, start, length in ranges]
    with chunks(STORES[is_sealed], codec, memory=MemoryCache(memory_bytes)) as opened:
        opened.reader.prefetch([refs[i] for i, _, _ in ranges])
        assert expected == [opened.reader.read(refs[i], start, length) for i, start, length in ranges]
        assert expected == opened.reader.read_many([(refs[i], start, length) for i, start, length in ranges])


def test_negative_ranges_are_refused() -> None:
    """They are no request from the end."""
    with chunks(STORES[False]) as opened:
        for start, length in ((-1, None), (0, -1)):
            with pytest.raises(ValueError, match="range"):
                opened.reader.read(REFS[False][0], start, length)


@BOTH
def test_neighbours_come_with_the_first_of_them(codec: BlockCodec) -> None:
    """A page of 256 KiB is fetched for one small block, and serves all others on it."""
    store = FaultyStore(MemoryStore())
    with chunks(store, codec) as opened:
        refs = write(opened, [noise(4000, number) for number in range(60)])
        assert [noise(4000, number) for number in range(60)] == [opened.reader.read(ref) for ref in refs]
    assert 1 == store.calls[Operation.READ]


def test_reading_many_takes_a_request_a_pack() -> None:
    """Neighbours are fetched together, packs apart."""
    store = FaultyStore(MemoryStore())
    contents = [noise(4000, number) for number in range(1500)] + [noise(2_000_000, number) for number in range(4)]
    with chunks(store) as opened:
        refs = write(opened, contents)
    with chunks(store) as opened:
        assert contents == opened.reader.read_many([(ref, 0, None) for ref in refs])
    assert len({ref.pack for ref in refs}) == store.calls[Operation.READ] == 4


def test_a_deep_look_up_in_the_index_takes_few_requests() -> None:
    """Nodes written together are read together, from the page of the first."""
    store = FaultyStore(MemoryStore())
    with chunks(store) as opened:
        nodes = opened.index_writer()
        refs = [nodes.add(prose(30_000, number)) for number in range(100)]
        nodes.flush()
    with chunks(store) as opened:
        for number, ref in enumerate(refs):
            assert [prose(30_000, number)] == opened.index_reader.read([ref])
    assert 1 == store.calls[Operation.READ]


def test_a_range_of_a_large_block_fetches_a_range() -> None:
    """Not 4 MiB for 4 KiB; going on from there fetches the rest at once."""
    with chunks() as opened:
        (ref,) = write(opened, [noise(BLOCK_BYTES)])
        content = noise(BLOCK_BYTES)
        assert content[3_000_000:3_004_096] == opened.reader.read(ref, 3_000_000, 4096)
        fetched = opened.reader.stats.fetched_bytes
        assert fetched <= 128 << 10
        assert content[3_000_100:3_004_000] == opened.reader.read(ref, 3_000_100, 3900)
        assert fetched == opened.reader.stats.fetched_bytes
        assert content[3_050_000:3_100_000] == opened.reader.read(ref, 3_050_000, 50_000)
        for start in range(3_100_000, BLOCK_BYTES, 100_000):
            assert content[start : start + 100_000] == opened.reader.read(ref, start, 100_000)
        assert opened.reader.stats.fetched_bytes < fetched + BLOCK_BYTES + (1 << 20)


def test_what_is_in_memory_is_not_asked_for_again() -> None:
    """Prefetched or read, whole or in part."""
    store = FaultyStore(MemoryStore())
    with chunks(store) as opened:
        refs = write(opened, [noise(2_000_000, number) for number in range(4)])
        opened.reader.prefetch(refs)
        for number, ref in enumerate(refs):
            assert noise(2_000_000, number) == opened.reader.read(ref)
        requests = store.calls[Operation.READ]
        opened.reader.prefetch(refs)
        for number, ref in enumerate(refs):
            assert noise(2_000_000, number)[7:9999] == opened.reader.read(ref, 7, 9992)
    assert requests == store.calls[Operation.READ] == 2


def test_prefetching_is_bounded_by_memory() -> None:
    """What would drive out itself is left for later."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations={Operation.READ})])
    with chunks(store, memory=MemoryCache(16 << 20)) as opened:
        refs = write(opened, [noise(BLOCK_BYTES, number) for number in range(5)])
        opened.reader.prefetch(refs)
        assert 2 == opened.reader.stats.prefetched
        store.release()
        assert noise(BLOCK_BYTES, 4) == opened.reader.read(refs[4])


def test_a_failed_prefetch_is_made_up_for_by_the_read() -> None:
    """Nobody hears of it."""
    reads = {Operation.READ}
    # Late enough that the read below joins the fetch that is going to fail.
    rules = [Rule(Delay(0.2), operations=reads, times=1), Rule(Raise(TransientError), operations=reads, times=1)]
    store = FaultyStore(MemoryStore(), rules)
    with chunks(store) as opened:
        (ref,) = write(opened, [noise(BLOCK_BYTES)])
        opened.reader.prefetch([ref])
        assert noise(BLOCK_BYTES) == opened.reader.read(ref)


@pytest.mark.parametrize("size", [4000, BLOCK_BYTES])
def test_many_readers_of_a_block_make_one_request(size: int) -> None:
    """The others wait for it."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations={Operation.READ})])
    with chunks(store) as opened, ThreadPoolExecutor(8) as pool:
        (ref,) = write(opened, [noise(size)])
        reads = [pool.submit(opened.reader.read, ref) for _ in range(8)]
        store.release()
        assert all(noise(size) == read.result(30) for read in reads)
    assert 1 == store.calls[Operation.READ]


def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    """The next read tries again."""
    store = FaultyStore(MemoryStore(), [Rule(Raise(TransientError), operations={Operation.READ})])
    with chunks(store) as opened:
        refs = write(opened, [noise(BLOCK_BYTES, number) for number in range(3)])
        for _ in range(2):
            with pytest.raises(TransientError):
                opened.reader.read_many([(ref, 0, None) for ref in refs])
        store.clear()
        assert noise(BLOCK_BYTES, 2) == opened.reader.read(refs[2])


def test_the_deadline_of_one_reader_is_not_that_of_another() -> None:
    """Who waits for a fetch that ran out of time makes its own."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations={Operation.READ}, nth=1)])
    with chunks(store) as opened, ThreadPoolExecutor(1) as pool:
        (ref,) = write(opened, [noise(BLOCK_BYTES)])
        entered = threading.Event()

        def hurried() -> None:
            with deadline(0.3):
                entered.set()
                with pytest.raises(DeadlineExceeded):
                    opened.reader.read(ref)

        first = pool.submit(hurried)
        entered.wait(30)
        assert noise(BLOCK_BYTES) == opened.reader.read(ref)
        first.result(30)


def test_a_deadline_ends_the_wait_for_others() -> None:
    """Their fetch goes on."""
    store = FaultyStore(MemoryStore(), [Rule(Stall(), operations={Operation.READ})])
    with chunks(store) as opened:
        (ref,) = write(opened, [noise(BLOCK_BYTES)])
        opened.reader.prefetch([ref])
        with deadline(0.05), pytest.raises(DeadlineExceeded):
            opened.reader.read(ref)
        store.release()
        assert noise(BLOCK_BYTES) == opened.reader.read(ref)


def test_a_store_that_is_not_there_is_not_taken_for_a_missing_pack() -> None:
    """The container's absence says nothing of the block."""
    with chunks(MemoryStore()) as opened, pytest.raises(NoSuchContainer):
        opened.reader.read(REFS[False][0])


@BOTH
def test_the_disk_cache_serves_the_next_session(codec: BlockCodec, tmp_path: Path) -> None:
    """Without a request; the disk holds no plain text where the root is encrypted."""
    store = FaultyStore(MemoryStore())
    contents = [prose(4000), noise(BLOCK_BYTES), prose(2_000_000), noise(300_000)]
    with chunks(store, codec) as opened:
        refs = write(opened, contents)
    requests = []
    for _ in range(2):
        disk = DiskCache(tmp_path, min_free_ratio=0)
        with chunks(store, codec, disk=disk) as opened:
            assert contents == [opened.reader.read(ref) for ref in refs]
            assert noise(BLOCK_BYTES)[5_000:6_000] == opened.reader.read(refs[1], 5_000, 1_000)
        disk.close()
        requests.append(store.calls[Operation.READ])
    assert requests[0] == requests[1] > 0
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert (noise(BLOCK_BYTES)[:1000] in kept) is (codec is PLAIN)


def test_local_disk_serves_as_well(tmp_path: Path) -> None:
    """The whole way through a store of files."""
    with open_store(f"file://{tmp_path}/store") as store:
        contents = [noise(4096, number) for number in range(2000)] + [prose(BLOCK_BYTES), noise(BLOCK_BYTES)]
        with chunks(store) as opened:
            refs = write(opened, contents)
        with chunks(store, disk=DiskCache(tmp_path / "cache")) as opened:
            assert contents == opened.reader.read_many([(ref, 0, None) for ref in refs])
            assert contents[-1][70_000:80_000] == opened.reader.read(refs[-1], 70_000, 10_000)


def test_packs_are_listed_and_nothing_else() -> None:
    """What others left below the root is not taken for a pack."""
    memory = MemoryStore()
    with chunks(memory) as opened:
        refs = write(opened, [noise(2_000_000, number) for number in range(5)])
        for stray in ("packs/README", "packs/00/abc", f"packs/zz/{'0' * 32}", f"packs/01/{'0' * 32}"):
            memory.write_bytes(ROOT.join(*stray.split("/")), b"stray")
        entries = list(opened.list_packs(PackKind.DATA))
        assert {ref.pack for ref in refs} == {entry.pack for entry in entries}
        assert all(entry.size == memory.head(entry.reference).size for entry in entries)
        assert {*refs} == {ref for entry in entries for ref in opened.pack_table(PackKind.DATA, entry.pack).blocks}
