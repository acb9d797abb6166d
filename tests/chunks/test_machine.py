"""Any course of adding, failing, flushing, reading and restarting keeps every block that was flushed."""

import tempfile
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from datastore.errors import StoreError, TransientError
from datastore.memory import MemoryStore
from datastore.metric_names import Operation
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, When
from stowstore.chunks.block import BlockRef
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.writer import PendingBlock
from tests.chunks.chunk_stores import PLAIN, ROOT, SEALED, noise, prose

SIZES = st.sampled_from([1, 100, 4096, 70_000, 262_144, 1_100_000])
FAULTS = st.sampled_from(
    [
        Rule(Raise(TransientError), operations={Operation.WRITE}, times=2),
        Rule(Raise(TransientError, when=When.AFTER), operations={Operation.WRITE}, times=2),
        Rule(BreakStream(after=50), operations={Operation.WRITE}, times=1),
        Rule(Raise(TransientError), operations={Operation.READ}, times=2),
        Rule(BreakStream(after=50), operations={Operation.READ}, times=1),
    ]
)


class Sessions(RuleBasedStateMachine):
    """One root, written and read by one session after another, over a store that fails now and then."""

    @initialize(is_sealed=st.booleans(), memory=st.sampled_from([0, 1 << 20, 32 << 20]), on_disk=st.booleans())
    def begin(self, is_sealed: bool, memory: int, on_disk: bool) -> None:
        self.codec = SEALED if is_sealed else PLAIN
        self.store = FaultyStore(MemoryStore())
        self.memory = memory
        self.directory = tempfile.TemporaryDirectory() if on_disk else None
        self.durable: list[tuple[BlockRef, bytes]] = []
        self._open()

    def _open(self) -> None:
        self.pending: list[tuple[PendingBlock, bytes]] = []
        self.disk = None if self.directory is None else DiskCache(self.directory.name, 4 << 20, min_free_ratio=0)
        self.chunks = ChunkStore(
            self.store, ROOT, self.codec, memory=MemoryCache(self.memory), disk=self.disk, workers=2, max_fetches=2
        )
        self.writer = self.chunks.writer()

    def _close(self) -> None:
        self.writer.close()
        self.chunks.close()
        if self.disk is not None:
            self.disk.close()

    @rule(size=SIZES, seed=st.integers(0, 5), compressible=st.booleans())
    def add(self, size: int, seed: int, compressible: bool) -> None:
        content = prose(size, seed) if compressible else noise(size, seed)
        self.pending.append((self.writer.add(content), content))

    @rule()
    def flush(self) -> None:
        try:
            self.writer.flush()
        except StoreError:
            return
        self.durable += [(block.ref, content) for block, content in self.pending]
        self.pending = []

    @rule(fault=FAULTS)
    def fail(self, fault: Rule) -> None:
        self.store.add(Rule(fault.fault, operations=fault.operations, times=fault.times))

    @rule()
    def restart(self) -> None:
        """What was not flushed is gone, as it was never promised."""
        self._close()
        self._open()

    @precondition(lambda self: self.durable)
    @rule(data=st.data())
    def read(self, data: Any) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.durable), min_size=1, max_size=4))
        random = Random(data.draw(st.integers(0, 100)))
        requests, expected = [], []
        for ref, content in chosen:
            start, length = random.randrange(len(content)), random.randrange(1, 50_000)
            whole = random.random() < 0.5
            requests.append((ref, 0, None) if whole else (ref, start, length))
            expected.append(content if whole else content[start : start + length])
        self.chunks.reader.prefetch([ref for ref, _, _ in requests[1:]])
        try:
            found = self.chunks.reader.read_many(requests)
        except TransientError:
            return
        assert expected == found

    @precondition(lambda self: self.durable)
    @rule(data=st.data())
    def tell_of_what_is_known(self, data: Any) -> None:
        self.writer.known(data.draw(st.sampled_from(self.durable))[0])

    @invariant()
    def nothing_is_held_that_is_not_pending(self) -> None:
        if not self.pending:
            assert 0 == self.writer.stats.pending_bytes

    def teardown(self) -> None:
        if not hasattr(self, "durable"):
            return
        self.store.clear()
        self.flush()
        self.flush()
        assert not self.pending
        assert [content for _, content in self.durable] == [self.chunks.reader.read(ref) for ref, _ in self.durable]
        self._close()
        if self.directory is not None:
            self.directory.cleanup()


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
