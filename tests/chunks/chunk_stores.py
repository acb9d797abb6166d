"""What the tests of chunks share: content of every sort, and stores to keep it in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from random import Random
from typing import Any

from datastore import DataReference
from datastore.memory import MemoryStore
from datastore.protocol import Store
from stowstore.chunks.block import BlockRef
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.encryption import RootKeys
from stowstore.chunks.store import ChunkStore

ROOT = DataReference("mem://bucket/some/root")

PLAIN = BlockCodec()
SEALED = BlockCodec(RootKeys(naming=b"n" * 32, sealing=b"s" * 32))


@lru_cache(maxsize=32)
def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that cannot be compressed, the same for equal arguments."""
    return Random(f"{size} {seed}").randbytes(size)


@lru_cache(maxsize=32)
def prose(size: int, seed: int = 0) -> bytes:
    """Bytes that compress well, the same for equal arguments."""
    return (f"the quick brown fox {seed} jumps over the lazy dog\n".encode() * (size // 40 + 1))[:size]


@contextmanager
def chunks(store: Store | None = None, codec: BlockCodec = PLAIN, **more: Any) -> Iterator[ChunkStore]:
    """A chunk store over a store in memory, or over another one."""
    store = MemoryStore() if store is None else store
    root = ROOT if store.base_container_fqn.scheme == "mem" else store.base_container_fqn.join("root")
    with ChunkStore(store, root, codec, workers=2, **more) as opened:
        yield opened


def write(opened: ChunkStore, contents: Sequence[bytes]) -> list[BlockRef]:
    """Writes contents and flushes; where they lie."""
    writer = opened.writer()
    pending = [writer.add(content) for content in contents]
    writer.flush()
    return [block.ref for block in pending]
