"""The bytes of files: staged, flushed into blocks, read back."""

import errno
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from datastore.errors import TransientError
from datastore.memory import MemoryStore
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule
from stowstore.chunks.block import BlockRef
from stowstore.chunks.store import ChunkStore
from stowstore.index.records import CorruptRecord, InodeRecord
from stowstore.namespace.content import FileContent
from stowstore.namespace.extents import END, WINDOW_BYTES, ExtentMap
from stowstore.namespace.interfaces import AfterUpload
from stowstore.namespace.staging import StagingArea
from tests.chunks.chunk_stores import chunks, noise

MIB = 1 << 20


class Node:
    """A file: its size, and where its bytes lie."""

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.size = 0
        self.extents: Any = ExtentMap()


class Volume:
    """Files, and the records of the last version of them."""

    def __init__(self, opened: ChunkStore, directory: Path | None, **more: Any) -> None:
        self.chunks = opened
        self.directory = directory
        self.more = more
        self.writer = opened.writer()
        self.content = FileContent(StagingArea(directory, **more), opened.reader)
        self.early: dict[str, Any] | None = None
        self.lock = threading.Lock()
        self.files: dict[int, Node] = {}
        self.records: dict[int, InodeRecord] = {}
        self.keys: dict[bytes, bytes] = {}
        self.journal: dict[bytes, bytes | None] = {}
        self.journalled: dict[int, InodeRecord] = {}

    def upload_early(self, **options: Any) -> None:
        """Uploads in the background from now on, also after the next `reopen`."""
        self.early = options
        self.content.upload_early(self.writer, lock=self.lock, **options)

    def node(self, ino: int) -> Node:
        return self.files.setdefault(ino, Node(ino))

    def write(self, ino: int, offset: int, data: bytes) -> None:
        staged = self.content.stage(data)
        with self.lock:
            node = self.node(ino)
            self.content.place(node, offset, staged)
            node.size = max(node.size, offset + len(data))

    def read(self, ino: int, offset: int = 0, size: int | None = None) -> bytes:
        node = self.node(ino)
        with self.lock:
            plan = self.content.plan(
                node, offset, node.size - offset if size is None else min(size, node.size - offset)
            )
        return self.content.fetch(plan)

    def truncate(self, ino: int, size: int) -> None:
        with self.lock:
            self.content.truncate(self.node(ino), size)
            self.files[ino].size = size

    def scan(self, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        return iter([(k, self.keys[k]) for k in sorted(self.keys) if start <= k and (stop is None or k < stop)])

    def commit(self) -> int:
        """Commits everything as the file system does; how many records changed."""
        with self.lock:
            forks = {ino: (node.size, node.extents.fork()) for ino, node in self.files.items()}
        self.content.flush([(ino, *fork) for ino, fork in forks.items()], self.writer)
        changed = 0
        for ino, (size, fork) in forks.items():
            encoded = fork.encode(ino)
            for key, value in encoded.changes.items():
                changed += 1
                if value is None:
                    self.keys.pop(key, None)
                else:
                    self.keys[key] = value
            self.records[ino] = record(size, encoded, fork)
            with self.lock:
                self.content.settle(self.files[ino].extents, fork)
                self.content.forget(fork)
        self.write_journal(everything=True)
        return changed

    def write_journal(self, *, everything: bool = False) -> None:
        checkpoint = self.content.checkpoint()
        if everything:
            self.journal = {}
        for ino, node in self.files.items():
            with self.lock:
                encoded = node.extents.encode_for_journal(ino)
            self.journal.update(encoded.changes)
            self.journalled[ino] = record(node.size, encoded, node.extents)
        self.content.sync(durable=False)
        self.content.reclaim(checkpoint)

    def reopen(self, *, recover: bool) -> None:
        """Opens again from the version, or from the journal over it."""
        self.content.close()
        self.content = FileContent(StagingArea(self.directory, **self.more), self.chunks.reader)
        if self.early is not None:
            self.upload_early(**self.early)
        records = self.journalled if recover else self.records
        self.files = {}
        for ino, kept in records.items():
            node = self.node(ino)
            node.size = kept.size
            journal = {key: value for key, value in self.journal.items() if key[1:9] == ino.to_bytes(8, "big")}
            node.extents = self.content.load(ino, kept, self.scan, journal if recover else None)
        self.content.recovered()


def record(size: int, encoded: Any, extents: Any) -> InodeRecord:
    return InodeRecord.decode(
        InodeRecord(
            0o100644, 0, 0, 1, size, 0, 0, 0, 0,
            extents=encoded.inline, many_extents=encoded.many, allocated=extents.allocated,
        ).encode()
    )  # fmt: skip


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    with chunks() as opened:
        made = Volume(opened, tmp_path / "staging")
        yield made
        made.content.close()


class Machine(RuleBasedStateMachine):
    """Whatever is done to files, they read as bytes that the same was done to."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        opened = self.stack.enter_context(chunks())
        self.volume = Volume(opened, directory, segment_bytes=300_000)
        self.model: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.committed = {1: b"", 2: b""}
        self.journalled: dict[int, bytes] | None = None
        for ino in self.model:
            self.volume.node(ino)
        self.volume.commit()

    # Around the end of the first window, where extents are cut.
    places = st.integers(0, 40).map(lambda at: at * 3000) | st.integers(WINDOW_BYTES - 9000, WINDOW_BYTES + 9000)
    files = st.sampled_from([1, 2])

    @rule(ino=files, at=places, length=st.integers(1, 12_000), seed=st.integers(0, 5))
    def write(self, ino: int, at: int, length: int, seed: int) -> None:
        data = bytes(length) if not seed else noise(length, seed)
        self.volume.write(ino, at, data)
        model = self.model[ino]
        model.extend(bytes(max(0, at + length - len(model))))
        model[at : at + length] = data

    @rule(ino=files, at=places, count=st.integers(10, 30))
    def scribble(self, ino: int, at: int, count: int) -> None:
        """Many small pieces, each apart from the last."""
        for number in range(count):
            self.write(ino, at + number * 200, 100, 1 + number % 5)

    @rule(ino=files, size=places)
    def truncate(self, ino: int, size: int) -> None:
        self.volume.truncate(ino, size)
        model = self.model[ino]
        del model[size:]
        model.extend(bytes(size - len(model)))

    @rule(ino=files, at=places, length=st.integers(1, 20_000))
    def punch(self, ino: int, at: int, length: int) -> None:
        with self.volume.lock:
            self.volume.content.punch(self.volume.node(ino), at, length)
        model = self.model[ino]
        length = max(0, min(length, len(model) - at))
        model[at : at + length] = bytes(length)

    @rule(source=files, into=files, start=places, at=places, length=st.integers(1, 15_000))
    def clone(self, source: int, into: int, start: int, at: int, length: int) -> None:
        length = min(length, len(self.model[source]) - start)
        if length <= 0 or (source == into and start < at + length and at < start + length):
            return
        node = self.volume.node(into)
        with self.volume.lock:
            self.volume.content.clone(self.volume.node(source), start, node, at, length)
        node.size = max(node.size, at + length)
        data = bytes(self.model[source][start : start + length])
        model = self.model[into]
        model.extend(bytes(max(0, at + length - len(model))))
        model[at : at + length] = data

    @rule(ino=files, at=places, length=st.integers(1, 20_000))
    def read(self, ino: int, at: int, length: int) -> None:
        if at < len(self.model[ino]):
            assert self.volume.read(ino, at, length) == self.model[ino][at : at + length]

    @rule()
    def commit(self) -> None:
        self.volume.commit()
        self.committed = {ino: bytes(model) for ino, model in self.model.items()}
        self.journalled = None

    @rule()
    def journal(self) -> None:
        self.volume.write_journal()
        self.journalled = {ino: bytes(model) for ino, model in self.model.items()}

    @rule()
    def reopen(self) -> None:
        self.volume.reopen(recover=False)
        self.model = {ino: bytearray(data) for ino, data in self.committed.items()}
        self.volume.write_journal(everything=True)
        self.journalled = None

    @precondition(lambda self: self.journalled is not None)
    @rule()
    def recover(self) -> None:
        assert self.journalled is not None
        self.volume.reopen(recover=True)
        self.model = {ino: bytearray(data) for ino, data in self.journalled.items()}

    def teardown(self) -> None:
        for ino, model in self.model.items():
            assert self.volume.read(ino) == bytes(model)
        self.volume.commit()
        self.volume.reopen(recover=False)
        for ino, model in self.model.items():
            assert self.volume.read(ino) == bytes(model)
        self.volume.content.close()
        self.stack.close()


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestMachine = Machine.TestCase


class EagerMachine(Machine):
    """The same where files refer to blocks as soon as the store has them, and little is held in memory for so long."""

    def __init__(self) -> None:
        super().__init__()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("stowstore.namespace.staging._HELD_BYTES", 1000)
        patch.setattr("stowstore.namespace.content._HELD_BYTES", 6 * MIB)
        self.volume.upload_early(delay=0.0, afterwards=AfterUpload.GO)

    @rule(ino=Machine.files, window=st.integers(0, 1), seed=st.integers(1, 5), pieces=st.sampled_from([1, 4, 7]))
    def fill(self, ino: int, window: int, seed: int, pieces: int) -> None:
        """Writes a whole window in order, and a little more."""
        data = noise(WINDOW_BYTES + 1000, seed)
        step = -(-len(data) // pieces)
        for at in range(0, len(data), step):
            self.volume.write(ino, window * WINDOW_BYTES + at, data[at : at + step])
        model, start = self.model[ino], window * WINDOW_BYTES
        model.extend(bytes(max(0, start - len(model))))
        model[start : start + len(data)] = data

    @rule()
    def wait(self) -> None:
        """Leaves the background time to do what it does."""
        time.sleep(0.02)


EagerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestEagerMachine = EagerMachine.TestCase


def test_small_files_share_packs_in_the_order_given(volume: Volume) -> None:
    """A thousand small files become one pack, block after block in the order of the flush."""
    for ino in range(1000):
        volume.write(ino + 10, 0, noise(500, ino))
    volume.commit()
    assert volume.writer.stats.packs == 1
    blocks = [next(volume.node(ino + 10).extents.pieces(0, END)).source for ino in range(1000)]
    assert all(left.offset < right.offset for left, right in pairwise(blocks))


def test_runs_become_blocks_of_a_window(volume: Volume) -> None:
    """Data written in small pieces become blocks of 4 MiB that begin where windows of the file do."""
    data = noise(9 * MIB)
    for at in range(MIB, len(data), 64 << 10):
        volume.write(1, at, data[at : at + (64 << 10)])
    volume.commit()
    found = [(piece.offset, piece.length, piece.skip) for piece in volume.node(1).extents.pieces(0, END)]
    assert found == [(MIB, 3 * MIB, 0), (4 * MIB, 4 * MIB, 0), (8 * MIB, MIB, 0)]
    assert volume.read(1) == bytes(MIB) + data[MIB:]


def test_zeros_are_holes(volume: Volume) -> None:
    """Zeros written in pages take no room and read as zeros; over data they free it."""
    volume.write(1, 0, bytes(8 * MIB))
    volume.write(2, 0, noise(100_000))
    volume.write(2, 4096, bytes(8192))
    assert volume.node(1).extents.allocated == 0
    assert volume.node(2).extents.allocated == 100_000 - 8192
    assert volume.content.staging.used < 110_000
    assert volume.read(1) == bytes(8 * MIB)
    assert volume.read(2) == noise(100_000)[:4096] + bytes(8192) + noise(100_000)[12288:]


def test_what_is_overwritten_or_deleted_is_never_uploaded(volume: Volume) -> None:
    """Only what is there when a commit begins goes to the store; staged data go with their last reference."""
    volume.write(1, 0, noise(MIB, 1))
    volume.write(1, 0, noise(MIB, 2))
    volume.write(2, 0, noise(MIB, 3))
    volume.content.forget(volume.files.pop(2).extents)
    volume.commit()
    assert volume.writer.stats.raw_bytes == MIB
    assert volume.content.staging.used <= 3 * MIB


def test_a_commit_gives_up_what_was_staged(tmp_path: Path) -> None:
    """After a commit no staged segment but the open one is left."""
    with chunks() as opened:
        volume = Volume(opened, tmp_path, segment_bytes=MIB)
        for number in range(8):
            volume.write(number, 0, noise(MIB, number))
        assert volume.content.staging.used == 8 * MIB
        volume.commit()
        assert volume.content.staging.used <= MIB
        volume.content.close()


def test_a_failed_flush_loses_nothing(tmp_path: Path) -> None:
    """When the store refuses, extents stay as they are and can be flushed again, with what changed meanwhile."""
    store = FaultyStore(MemoryStore())
    with chunks(store) as opened:
        volume = Volume(opened, tmp_path)
        for ino in range(5):
            volume.write(ino, 0, noise(MIB, ino))
        store.add(Rule(Raise(), operations=[Operation.WRITE]))
        with pytest.raises(TransientError):
            volume.commit()
        assert all(node.extents.staged for node in volume.files.values())
        volume.write(3, 0, b"later")
        store.clear()
        volume.commit()
        volume.reopen(recover=False)
        for ino in range(5):
            expected = noise(MIB, ino)
            assert volume.read(ino) == (expected if ino != 3 else b"later" + expected[5:])
        volume.content.close()


def test_small_overwrites_of_a_large_file_cost_little(volume: Volume) -> None:
    """4 KiB in a committed file of 10 GiB upload about 4 KiB and change one record."""
    for window in range(2560):
        volume.write(1, window * WINDOW_BYTES + window % 7 * 4096, noise(64, window))
    volume.commit()
    before = volume.writer.stats
    volume.write(1, 5 << 30, noise(4096, 9999))
    assert volume.commit() == 1
    assert volume.writer.stats.pack_bytes - before.pack_bytes < 64 << 10
    assert volume.read(1, 5 << 30, 4096) == noise(4096, 9999)


def test_scribbled_windows_are_written_anew(volume: Volume) -> None:
    """A window of more than 16 extents becomes one block, its committed bytes included."""
    data = bytearray(noise(WINDOW_BYTES))
    volume.write(1, 0, bytes(data))
    volume.commit()
    for number in range(20):
        at = number * 100_000 + 17
        data[at : at + 10] = b"0123456789"
        volume.write(1, at, b"0123456789")
    volume.commit()
    assert len(list(volume.node(1).extents.pieces(0, END))) == 1
    volume.reopen(recover=False)
    assert volume.read(1) == data


def test_a_commit_keeps_what_was_written_meanwhile(volume: Volume) -> None:
    """Writes between a fork and its settling stay, and stay staged; the rest moves into blocks."""
    volume.write(1, 0, noise(MIB, 1))
    node = volume.node(1)
    fork = node.extents.fork()
    volume.write(1, 5000, b"x" * 1000)
    volume.content.flush([(1, MIB, fork)], volume.writer)
    volume.content.settle(node.extents, fork)
    sources = [(piece.offset, isinstance(piece.source, BlockRef)) for piece in node.extents.pieces(0, END)]
    assert sources == [(0, True), (5000, False), (6000, True)]
    assert volume.read(1) == noise(MIB, 1)[:5000] + b"x" * 1000 + noise(MIB, 1)[6000:]


def test_clones_share_blocks(volume: Volume) -> None:
    """A clone of committed data uploads nothing, at any offset."""
    volume.write(1, 0, noise(9 * MIB))
    volume.commit()
    stored = volume.writer.stats.stored_bytes
    volume.content.clone(volume.node(1), 12345, volume.node(2), 777, 8 * MIB)
    volume.node(2).size = 777 + 8 * MIB
    volume.commit()
    assert volume.writer.stats.stored_bytes == stored
    assert volume.read(2) == bytes(777) + noise(9 * MIB)[12345 : 12345 + 8 * MIB]


def test_seeking(volume: Volume) -> None:
    """SEEK_DATA and SEEK_HOLE find the borders of what was written; the end is a hole, and no data is ENXIO."""
    volume.write(1, 10_000, noise(5000))
    volume.truncate(1, 10**15)
    node = volume.node(1)
    assert volume.content.seek(node, 0, os.SEEK_DATA) == 10_000
    assert volume.content.seek(node, 0, os.SEEK_HOLE) == 0
    assert volume.content.seek(node, 12_000, os.SEEK_HOLE) == 15_000
    with pytest.raises(OSError, match="no data") as raised:
        volume.content.seek(node, 15_000, os.SEEK_DATA)
    assert raised.value.errno == errno.ENXIO
    volume.write(2, 0, noise(5000))
    assert volume.content.seek(volume.node(2), 100, os.SEEK_HOLE) == 5000


def test_reading_ahead(tmp_path: Path) -> None:
    """A sequential reader finds its blocks fetched already; a random one has nothing fetched ahead."""
    store = MemoryStore()
    data = noise(64 * MIB)
    with chunks(store) as opened:
        volume = Volume(opened, tmp_path)
        for at in range(0, len(data), MIB):
            volume.write(1, at, data[at : at + MIB])
        volume.commit()
        volume.content.close()
    with chunks(store) as opened:
        volume.content = FileContent(StagingArea(None), opened.reader)
        assert volume.read(1, 40 * MIB, 4096) == data[40 * MIB : 40 * MIB + 4096]
        assert opened.reader.stats.prefetched == 0
        assert b"".join(volume.read(1, at, MIB) for at in range(0, len(data), MIB)) == data
        assert opened.reader.stats.prefetched > 8


def test_versions_never_refer_to_staged_data(volume: Volume) -> None:
    """A record of a version that names staged data is corrupt, not a way to read the staging area."""
    hostile = InodeRecord(
        0o100644, 0, 0, 1, 5, 0, 0, 0, 0,
        extents=(0).to_bytes(8, "big") + (5).to_bytes(4, "big") + bytes(4)
        + BlockRef(bytes(16), 0, 0, 5, 0xFF, b"\1" * 32).pack_bytes(),
    )  # fmt: skip
    with pytest.raises(CorruptRecord):
        volume.content.load(1, hostile, volume.scan)


def test_full_windows_go_early(volume: Volume) -> None:
    """With early upload, full windows are in the store before the commit, which sends the rest and nothing twice."""
    volume.content.upload_early(volume.writer, delay=0.0, lock=volume.lock)
    data = noise(9 * MIB)
    for at in range(0, len(data), MIB):
        volume.write(1, at, data[at : at + MIB])
    _wait_until(lambda: volume.writer.stats.blocks == 2)
    volume.commit()
    assert volume.writer.stats.raw_bytes == 9 * MIB
    assert volume.read(1) == data


def _blocks_of(volume: Volume, ino: int) -> list[bool]:
    """Of each extent of a file, whether it lies in a block."""
    with volume.lock:
        return [isinstance(piece.source, BlockRef) for piece in volume.node(ino).extents.pieces(0, END)]


def test_full_windows_are_let_go_of(volume: Volume, tmp_path: Path) -> None:
    """Where that is asked for, files refer to blocks before any commit: nothing of them is staged or in memory then."""
    moved: list[int] = []
    volume.upload_early(delay=0.0, afterwards=AfterUpload.GO, moved=moved.append)
    data = noise(9 * MIB)
    for at in range(0, len(data), MIB):
        volume.write(1, at, data[at : at + MIB])
    _wait_until(lambda: _blocks_of(volume, 1) == [True, True, False])
    assert (set(moved), volume.content.staging.held) == ({1}, MIB)
    assert list(tmp_path.glob("staging/*.segment")) == []
    assert volume.read(1) == data
    volume.write(1, MIB, b"over it")
    volume.commit()
    assert volume.writer.stats.raw_bytes == 9 * MIB + 7
    assert volume.read(1) == data[:MIB] + b"over it" + data[MIB + 7 :]


def test_nothing_is_let_go_of_that_nobody_would_keep(volume: Volume) -> None:
    """Before files refer to blocks somebody is asked to keep those; as long as that fails everything stays staged."""
    failures = [TransientError("the store is gone")] * 3
    kept: list[bool] = []

    def keep() -> None:
        if failures:
            raise failures.pop()
        kept.append(any(_blocks_of(volume, 1)))

    volume.upload_early(delay=0.0, afterwards=AfterUpload.GO, keep=keep)
    for number in range(5):
        volume.write(1, number * 4 * MIB, noise(4 * MIB, number))
        volume.write(1, (number + 1) * 4 * MIB, b"more")
        _wait_until(lambda number=number: volume.writer.stats.packs > number)
    _wait_until(lambda: _blocks_of(volume, 1) == [True] * 5 + [False])
    assert kept[0] is False
    assert b"".join(noise(4 * MIB, number) for number in range(5)) + b"more" == volume.read(1)


def test_writing_goes_on_while_the_store_fails(tmp_path: Path) -> None:
    """Then data go to the disk as they would without a store, and the commit that succeeds has them."""
    store = FaultyStore(MemoryStore(), [Rule(Raise(), operations=[Operation.WRITE])])
    with chunks(store) as opened:
        volume = Volume(opened, tmp_path)
        volume.upload_early(delay=0.0, afterwards=AfterUpload.GO)
        for number in range(40):
            volume.write(1, number * 4 * MIB, noise(4 * MIB, number))
        assert volume.content.staging.held <= 64 * MIB
        with pytest.raises(TransientError):
            volume.commit()
        assert not any(_blocks_of(volume, 1))
        store.clear()
        volume.commit()
        assert all(_blocks_of(volume, 1))
        assert all(volume.read(1, number * 4 * MIB, 4 * MIB) == noise(4 * MIB, number) for number in range(40))
        volume.content.close()


def test_a_full_staging_area_is_relieved(tmp_path: Path) -> None:
    """More than the staging area holds can be written without a commit; what was moved is said, to be journalled."""
    moved: set[int] = set()
    with chunks() as opened:
        volume = Volume(opened, tmp_path, max_bytes=8 * MIB, segment_bytes=MIB)
        volume.content.upload_early(volume.writer, delay=60.0, lock=volume.lock, moved=moved.add)
        for number in range(40):
            volume.write(number % 3, number * MIB, noise(MIB, number))
        assert moved == {0, 1, 2}
        for number in range(40):
            assert volume.read(number % 3, number * MIB, MIB) == noise(MIB, number)
        volume.content.close()


def _wait_until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it does not happen")
