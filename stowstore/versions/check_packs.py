"""Checking packs: the unit of work of a check that can run anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from stowstore.chunks.block import BlockRef, CorruptBlock, PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.versions.findings import BadBlock, FindingKind

__all__ = ["PackToCheck", "check_pack", "check_packs"]

_MAX_READ: Final = 8 << 20


class PackToCheck(NamedTuple):
    """A pack, and the blocks of it that somebody needs."""

    kind: PackKind
    pack: bytes
    blocks: frozenset[BlockRef]


def check_packs(chunks: ChunkStore, packs: Sequence[PackToCheck]) -> list[list[BadBlock]]:
    """Reads several packs; returns what is wrong with each.

    Raises:
        StoreError: the store cannot be read.
    """
    return [check_pack(chunks, *pack) for pack in packs]


def check_pack(chunks: ChunkStore, kind: PackKind, pack: bytes, blocks: Iterable[BlockRef]) -> list[BadBlock]:
    """Reads blocks of one pack and its table.

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
