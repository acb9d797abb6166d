"""The chunk store: blocks in and out of the packs of one root."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from stowstore.chunks.block import BlockRef, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.fetcher import PackFetcher
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.packs import PackTable
from stowstore.chunks.reader import INDEX_PAGE_BYTES, PAGE_BYTES, BlockReader
from stowstore.chunks.uploader import PackUploader
from stowstore.chunks.writer import BlockWriter, IndexWriter, KnownBlocks

__all__ = ["ChunkStore", "IndexReader", "PackEntry"]

_PREFIXES: Final = {PackKind.DATA: "packs", PackKind.INDEX: "index"}
_PACK_KEY = re.compile(r"([0-9a-f]{2})/([0-9a-f]{32})")


@frozen
class PackEntry:
    """A pack as a listing shows it."""

    pack: bytes
    reference: DataReference
    size: int
    last_modified: datetime | None


class IndexReader:
    """Reads index nodes; a node brings those near it in its pack."""

    def __init__(self, blocks: BlockReader, codec: BlockCodec) -> None:
        self._blocks = blocks
        self._codec = codec

    def read(self, refs: Sequence[BlockRef]) -> list[bytes]:
        """The contents of index blocks, in order, fetched together.

        Raises:
            CorruptBlock: a block is damaged or gone.
        """
        return self._blocks.read_many([(ref, 0, None) for ref in refs])

    def name(self, content: bytes) -> bytes:
        """The 32 bytes that name a content in this root."""
        return self._codec.name(content)


class ChunkStore:
    """The packs below one root of a store; thread-safe.

    ``max_fetches`` bounds parallel requests, ``workers`` the threads that hash and compress (as many as there are
    processors, up to 8).  Memory and disk cache may be shared between chunk stores.
    """

    def __init__(
        self,
        store: Store,
        root: Reference,
        codec: BlockCodec | None = None,
        *,
        memory: MemoryCache | None = None,
        disk: DiskCache | None = None,
        workers: int | None = None,
        max_fetches: int = 16,
    ) -> None:
        self.store = store
        self.root = DataReference(root) if isinstance(root, str) else root
        self.codec = BlockCodec() if codec is None else codec
        self.memory = MemoryCache() if memory is None else memory
        self.disk = disk
        self._encoders = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1), "stowstore-encode")
        self._fetchers = ThreadPoolExecutor(max_fetches, "stowstore-fetch")
        self._packs = {kind: PackFetcher(store, self.pack_reference, kind) for kind in PackKind}
        #: Reads file data.
        self.reader = self._reader(PackKind.DATA)
        self._index_blocks = self._reader(PackKind.INDEX)
        #: Reads index nodes.
        self.index_reader = IndexReader(self._index_blocks, self.codec)

    def writer(
        self,
        *,
        max_uploads: int = 50,
        upload_delay: float = 0.0,
        max_bytes: int = 64 << 20,
        known: KnownBlocks | None = None,
    ) -> BlockWriter:
        """A writer of file data, with uploads and limits of its own; see `PackUploader`."""
        uploader = self._uploader(max_uploads, upload_delay, max_bytes)
        return BlockWriter(self.codec, uploader, self._encoders, known)

    def index_writer(self, *, max_uploads: int = 8, max_bytes: int = 64 << 20) -> IndexWriter:
        """A writer of index nodes, for one commit."""
        return IndexWriter(self.codec, self._uploader(max_uploads, 0.0, max_bytes))

    def reader_of(self, kind: PackKind) -> BlockReader:
        """The reader of a kind of pack."""
        return self.reader if kind is PackKind.DATA else self._index_blocks

    def pack_reference(self, kind: PackKind, pack: bytes) -> DataReference:
        """Where a pack lies; the last byte of its id, which is random, spreads packs over prefixes."""
        name = pack.hex()
        return self.root.join(_PREFIXES[kind], name[-2:], name)

    def list_packs(self, kind: PackKind) -> Iterator[PackEntry]:
        """Every pack of a kind, in no particular order; what else lies there is left out."""
        prefix = self.root.join(_PREFIXES[kind])
        skip = len(prefix.key) + 1
        for entry in self.store.walk(prefix, directory=True):
            found = _PACK_KEY.fullmatch(entry.reference.key[skip:])
            if found and found[2].endswith(found[1]):
                yield PackEntry(bytes.fromhex(found[2]), entry.reference, entry.size, entry.last_modified)

    def pack_table(self, kind: PackKind, pack: bytes) -> PackTable:
        """What a pack says of itself: its blocks and their places.

        Raises:
            CorruptBlock: there is no such pack, or its table is damaged.
        """
        return self._packs[kind].table(pack)

    def close(self) -> None:
        """Ends the threads, after what they are at; the store and the caches stay open for whoever opened them."""
        self._encoders.shutdown()
        self._fetchers.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reader(self, kind: PackKind) -> BlockReader:
        page = PAGE_BYTES if kind is PackKind.DATA else INDEX_PAGE_BYTES
        return BlockReader(self._packs[kind], self.codec, self._fetchers, self.memory, self.disk, page_bytes=page)

    def _uploader(self, max_uploads: int, upload_delay: float, max_bytes: int) -> PackUploader:
        return PackUploader(
            self.store, self.pack_reference, max_uploads=max_uploads, upload_delay=upload_delay, max_bytes=max_bytes
        )
