"""Writers: blocks on their way into packs.

`BlockWriter` takes file data: it hashes and compresses in threads, keeps the order of what it was given inside the
packs, and stores equal blocks once.  `IndexWriter` takes index nodes, whose references their parents need at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from enum import Enum

from attrs import frozen

from datastore import context
from stowstore.chunks.block import BLOCK_BYTES, BlockRef, Codec, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.packs import PACK_BYTES, PackBuilder
from stowstore.chunks.scattered import Content, Scattered
from stowstore.chunks.uploader import PackUploader

__all__ = ["BlockProgress", "BlockWriter", "IndexWriter", "KnownBlocks", "PendingBlock", "WriterStats"]

#: Blocks of at least this size are a large file's, and fill packs of their own.
_LARGE = 1 << 20

#: What one thread encodes at a time: many small blocks, or one large one.
_BATCH_BYTES = 256 << 10
_BATCH_BLOCKS = 64


@frozen(kw_only=True)
class WriterStats:
    """What a writer did so far; sizes in bytes."""

    blocks: int
    raw_bytes: int
    """What it was given."""
    stored_bytes: int
    """What that takes in packs, their tables left out."""
    deduped_blocks: int
    deduped_bytes: int
    """What was there already."""
    packs: int
    """Packs that are in the store."""
    pack_bytes: int
    pending_bytes: int
    """What is under way."""


class KnownBlocks:
    """Blocks that need not be stored again, by name; thread-safe.

    Bounded: beyond ``max_entries``, at about 300 bytes each, the oldest are forgotten, which costs room in the store
    only.
    """

    def __init__(self, max_entries: int = 1 << 17) -> None:
        self._max_entries = max_entries
        self._refs: dict[bytes, BlockRef] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._refs)

    def get(self, name: bytes) -> BlockRef | None:
        """Where the block of a name lies, if that is known."""
        return self._refs.get(name)

    def add(self, ref: BlockRef) -> None:
        """Remembers a block; the place known first stays."""
        with self._lock:
            refs = self._refs
            refs.setdefault(ref.name, ref)
            if len(refs) > self._max_entries:
                del refs[next(iter(refs))]


class BlockProgress(Enum):
    """How far a block has come that was given to a writer."""

    ENCODING = "encoding"
    PACKED = "packed"
    """It lies in a pack that is not full; only more blocks or a flush take it further."""
    UNDER_WAY = "under way"
    STORED = "stored"


class PendingBlock:
    """A block that was given to a writer."""

    __slots__ = ("_ref",)

    def __init__(self) -> None:
        self._ref: BlockRef | None = None

    @property
    def is_placed(self) -> bool:
        """Whether its place is known; only a flush makes it durable."""
        return self._ref is not None

    @property
    def ref(self) -> BlockRef:
        """Where the block lies.

        Raises:
            RuntimeError: its writer has not been flushed yet.
        """
        if self._ref is None:
            raise RuntimeError("the block has no place yet: flush its writer first")
        return self._ref


class BlockWriter:
    """Stores file data as blocks; thread-safe.

    Blocks lie in packs in the order they were added, large ones in packs apart from small ones.  Hashing, compressing
    and uploading overlap with the caller's work, who waits when too much is under way.
    """

    def __init__(
        self, codec: BlockCodec, uploader: PackUploader, executor: Executor, known: KnownBlocks | None = None
    ) -> None:
        self._codec = codec
        self._uploader = uploader
        self._executor = executor
        self._known = KnownBlocks() if known is None else known
        self._adding = threading.Lock()
        self._open_batch = _Batch()
        # In the order of adding; the head is placed first, whoever finishes before.
        self._batches: deque[_Batch] = deque()
        self._placing = threading.Lock()
        self._small = PackBuilder(PackKind.DATA, codec)
        self._large = PackBuilder(PackKind.DATA, codec)
        self._blocks = self._raw_bytes = self._stored_bytes = self._deduped_blocks = self._deduped_bytes = 0
        self._closed = False
        #: Called after each pack that has come into the store, from the thread that put it; must not raise.
        self.on_stored: Callable[[], None] | None = None
        uploader.on_put = self._on_put

    def add(self, data: Content | bytearray | memoryview) -> PendingBlock:
        """Takes a block of 1 byte to 4 MiB; what the caller may change later is copied.

        Raises:
            ValueError: it is empty or larger.
            StoreError: packs cannot be put and there is no room for more; the block is not taken, all others are kept.
        """
        if not isinstance(data, (bytes, Scattered)):
            data = bytes(data)
        size = len(data)
        if not 0 < size <= BLOCK_BYTES:
            raise ValueError(f"a block has 1 to {BLOCK_BYTES} bytes, not {size}")
        pending = PendingBlock()
        self._uploader.reserve(size)
        with self._adding:
            if self._closed:
                self._uploader.release(size)
                raise RuntimeError("the writer is closed")
            batch = self._open_batch
            batch.items.append((pending, data))
            batch.size += size
            if batch.size >= _BATCH_BYTES or len(batch.items) >= _BATCH_BLOCKS:
                self._dispatch()
        return pending

    def progress(self, pending: PendingBlock) -> BlockProgress:
        """How far a block of this writer has come."""
        ref = pending._ref
        if ref is None:
            return BlockProgress.ENCODING
        # In this order: a pack is given to the uploader before the next one takes its place.
        if ref.pack in (self._small.pack, self._large.pack):
            return BlockProgress.PACKED
        return BlockProgress.UNDER_WAY if self._uploader.holds(ref.pack) else BlockProgress.STORED

    def known(self, ref: BlockRef) -> None:
        """Lets the writer refer to a block that is in the store and stays there, instead of storing it again."""
        self._known.add(ref)

    def flush(self) -> None:
        """Returns when everything added before is in the store; every `PendingBlock.ref` of it is valid then.

        Raises:
            StoreError: a pack could not be put.  Nothing is lost; another flush goes on where this one failed.
            DeadlineExceeded, Cancelled: the context of the caller ended first, with the same promise.
        """
        with self._adding:
            # A copy: whatever has been encoded is taken out meanwhile, under the other lock.
            for batch in self._batches.copy():
                if batch.failed:
                    batch.start(self._executor, self._encode, self._on_encoded)
            if self._open_batch.items:
                self._dispatch()
            waiting = list(self._batches)
        for batch in waiting:
            context.wait_for(batch.finished)
        with self._placing:
            self._place_finished()
            for batch in waiting:
                if batch.failed:
                    batch.result()
            self._submit_small()
            self._submit_large()
        self._uploader.flush()

    @property
    def stats(self) -> WriterStats:
        """What happened so far; exact after a flush."""
        return WriterStats(
            blocks=self._blocks,
            raw_bytes=self._raw_bytes,
            stored_bytes=self._stored_bytes,
            deduped_blocks=self._deduped_blocks,
            deduped_bytes=self._deduped_bytes,
            packs=self._uploader.packs,
            pack_bytes=self._uploader.pack_bytes,
            pending_bytes=self._uploader.held_bytes,
        )

    def close(self) -> None:
        """Takes no more blocks; what was not flushed may never reach the store."""
        with self._adding:
            self._closed = True
        self._uploader.close()

    def _dispatch(self) -> None:
        batch, self._open_batch = self._open_batch, _Batch()
        self._batches.append(batch)
        batch.start(self._executor, self._encode, self._on_encoded)

    def _encode(self, batch: _Batch) -> list[_Encoded]:
        """Names and compresses a batch; a block that is known needs no compressing."""
        known, name_of, compress = self._known.get, self._codec.name, self._codec.compress
        encoded: list[_Encoded] = []
        spare = 0
        for _, data in batch.items:
            name = name_of(data)
            ref = known(name)
            if ref is None:
                codec, body = compress(data)
                spare += len(data) - len(body)
                encoded.append((name, codec, body))
            else:
                encoded.append(ref)
        batch.spare = spare
        return encoded

    def _on_put(self) -> None:
        told = self.on_stored
        if told is not None:
            told()

    def _on_encoded(self) -> None:
        with self._placing:
            self._place_finished()

    def _place_finished(self) -> None:
        batches = self._batches
        while batches and batches[0].succeeded:
            self._place(batches.popleft())

    def _place(self, batch: _Batch) -> None:
        spare = batch.spare
        for (pending, data), encoded in zip(batch.items, batch.result(), strict=True):
            size = len(data)
            self._blocks += 1
            self._raw_bytes += size
            if isinstance(encoded, BlockRef):
                ref: BlockRef | None = encoded
                spare += size
            else:
                name, codec, body = encoded
                ref = self._known.get(name)
                if ref is None:
                    pending._ref = self._store(name, codec, body, size)
                    spare -= self._codec.overhead
                    continue
                spare += len(body)
            pending._ref = ref
            self._deduped_blocks += 1
            self._deduped_bytes += size
        self._uploader.release(spare)

    def _store(self, name: bytes, codec: Codec, body: Content, size: int) -> BlockRef:
        if size >= _LARGE:
            if not self._large.has_room(body):
                self._submit_large()
            ref = self._large.add(name, codec, body, size)
            if self._large.size >= PACK_BYTES:
                # Nothing else fits, so nothing is gained by waiting for more.
                self._submit_large()
        else:
            if not self._small.has_room(body):
                self._submit_small()
            ref = self._small.add(name, codec, body, size)
        self._stored_bytes += ref.stored
        self._known.add(ref)
        return ref

    def _submit_small(self) -> None:
        if len(self._small):
            self._uploader.submit(self._small)
            self._small = PackBuilder(PackKind.DATA, self._codec)

    def _submit_large(self) -> None:
        if len(self._large):
            self._uploader.submit(self._large)
            self._large = PackBuilder(PackKind.DATA, self._codec)


class IndexWriter:
    """Stores index nodes as blocks whose references are known at once; thread-safe.

    They are durable after `flush`.  Equal nodes of one writer are stored once.
    """

    def __init__(self, codec: BlockCodec, uploader: PackUploader) -> None:
        self._codec = codec
        self._uploader = uploader
        self._known = KnownBlocks()
        self._lock = threading.Lock()
        self._pack = PackBuilder(PackKind.INDEX, codec)
        #: Bytes the nodes take in packs, their tables left out.
        self.stored_bytes = 0

    def add(self, data: bytes) -> BlockRef:
        """Puts a block into the open index pack and says where it will lie.

        Raises:
            ValueError: it is empty, or larger than a block.
            StoreError: packs cannot be put and there is no room for more.
        """
        if not 0 < len(data) <= BLOCK_BYTES:
            raise ValueError(f"a block has 1 to {BLOCK_BYTES} bytes, not {len(data)}")
        name = self._codec.name(data)
        found = self._known.get(name)
        if found is not None:
            return found
        codec, body = self._codec.compress(data)
        self._uploader.reserve(len(body) + self._codec.overhead)
        with self._lock:
            if not self._pack.has_room(body):
                self._submit()
            ref = self._pack.add(name, codec, body, len(data))
            self.stored_bytes += ref.stored
        self._known.add(ref)
        return ref

    def name(self, content: bytes) -> bytes:
        """The 32 bytes that name a content in this root."""
        return self._codec.name(content)

    def flush(self) -> None:
        """Returns when everything added before is in the store.

        Raises:
            StoreError: a pack could not be put; nothing is lost, another flush tries again.
        """
        with self._lock:
            self._submit()
        self._uploader.flush()

    def close(self) -> None:
        """Takes no more nodes; what was not flushed may never reach the store."""
        self._uploader.close()

    def _submit(self) -> None:
        if len(self._pack):
            self._uploader.submit(self._pack)
            self._pack = PackBuilder(PackKind.INDEX, self._codec)


#: A block ready for a pack, or the place where it lies already.
_Encoded = BlockRef | tuple[bytes, Codec, Content]


class _Batch:
    """Blocks that one thread encodes, and what came of it."""

    __slots__ = ("_future", "finished", "items", "size", "spare")

    def __init__(self) -> None:
        self.items: list[tuple[PendingBlock, Content]] = []
        self.size = 0
        #: Bytes of reserved room that encoding gave back.
        self.spare = 0
        self.finished = threading.Event()
        self._future: Future[list[_Encoded]] | None = None

    def start(
        self, executor: Executor, encode: Callable[[_Batch], list[_Encoded]], on_finished: Callable[[], None]
    ) -> None:
        def finish(future: Future[list[_Encoded]]) -> None:
            self._future = future
            self.finished.set()
            on_finished()

        self.finished.clear()
        self._future = None
        executor.submit(encode, self).add_done_callback(finish)

    @property
    def succeeded(self) -> bool:
        return self._future is not None and self._future.exception() is None

    @property
    def failed(self) -> bool:
        return self._future is not None and self._future.exception() is not None

    def result(self) -> list[_Encoded]:
        """What came of it; raises what went wrong."""
        assert self._future is not None
        return self._future.result()
