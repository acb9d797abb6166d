"""An index's blocks in memory, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from stowstore.chunks.block import BlockRef, Codec
from stowstore.index.node import NodeCache


class MemoryNodes:
    """Reads and writes nodes; names are digests, fetches are counted."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.written = 0
        self.bytes_written = 0
        self.reads = 0
        self.blocks_read = 0

    def add(self, data: bytes) -> BlockRef:
        name = hashlib.sha256(data).digest()
        self.written += 1
        self.bytes_written += len(data)
        self.blocks[name] = data
        return BlockRef(b"p" * 16, 0, len(data), len(data), Codec.RAW, name)

    def read(self, refs: Sequence[BlockRef]) -> list[bytes]:
        self.reads += 1 if refs else 0
        self.blocks_read += len(refs)
        return [self.blocks[ref.name] for ref in refs]

    def name(self, content: bytes) -> bytes:
        return hashlib.sha256(content).digest()

    def cache(self) -> NodeCache:
        """A fresh cache, as another process has it."""
        return NodeCache(self)
