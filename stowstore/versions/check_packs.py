"""Checking one pack: the unit of work of a check that can run anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from stowstore.chunks.block import BlockRef, CorruptBlock, PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.versions.findings import BadBlock, FindingKind

__all__ = ["check_pack"]

_MAX_READ: Final = 8 << 20


def check_pack(chunks: ChunkStore, kind: PackKind, pack: bytes, blocks: Iterable[BlockRef]) -> list[BadBlock]:
    """Reads blocks of one pack and its table: the unit of work that can run anywhere.

    Raises:
        StoreError: the store cannot be read.
    """
    bad: list[BadBlock] = []
    try:
        chunks.pack_table(kind, pack)
    except CorruptBlock as error:
        bad.append(BadBlock(FindingKind.BAD_TABLE, pack, None, error.message))
    reader = chunks.reader_of(kind)
    for part in _parts(sorted(blocks)):
        try:
            reader.read_many([(block, 0, None) for block in part])
        except CorruptBlock:
            for block in part:
                try:
                    reader.read(block)
                except CorruptBlock as error:
                    bad.append(BadBlock(FindingKind.BAD_BLOCK, pack, block, error.message))
    return bad


def _parts(blocks: list[BlockRef]) -> Iterator[list[BlockRef]]:
    """Blocks in parts that are read at once."""
    part: list[BlockRef] = []
    size = 0
    for block in blocks:
        if part and size + block.length > _MAX_READ:
            yield part
            part, size = [], 0
        part.append(block)
        size += block.length
    if part:
        yield part
