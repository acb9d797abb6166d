"""Packs: the objects blocks lie in, back to back, with a table of them at the end.

A reference says where its block lies, so readers of whole blocks need no table.  It is there for ranges of large
blocks, which its checksums prove, and for whoever looks at packs themselves: collection, checking, repair.
`docs/format.md` has the layout byte by byte.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from typing import Final

from attrs import frozen
from blake3 import blake3
from crc32c import crc32c

from stowstore.chunks.block import BLOCK_BYTES, BlockRef, Codec, CorruptBlock, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.scattered import Content, Scattered, gathered

__all__ = [
    "CHECKED_BYTES",
    "MAX_PACK_BLOCKS",
    "PACK_BYTES",
    "TRAILER_BYTES",
    "PackBuilder",
    "PackTable",
    "footer_bytes",
    "new_pack_id",
    "table_bytes",
]

#: What a pack is filled to, without its table; only a single block may take it further.
PACK_BYTES: Final = 4 << 20

#: How many blocks a pack holds at most, which bounds its table.
MAX_PACK_BLOCKS: Final = 16384

#: The stretch of a raw block that one checksum covers; blocks no larger have none.
CHECKED_BYTES: Final = 64 << 10

_MAGIC = b"STOWPACK"
_VERSION = 1
_HEAD = struct.Struct(">16sBBHI")
_ROW = struct.Struct(">32sIIIBB")
_TRAILER = struct.Struct(">8sHHI32s")
_SIGNED = 16
_MAX_FOOTER = _HEAD.size + MAX_PACK_BLOCKS * _ROW.size + 2 * (PACK_BYTES // CHECKED_BYTES) * 4

#: Bytes of a pack's trailer.
TRAILER_BYTES: Final = _TRAILER.size


def new_pack_id() -> bytes:
    """A pack id nobody else makes: a ULID, 48 bits of milliseconds and 80 of chance."""
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)


class PackBuilder:
    """A pack being filled; not thread-safe."""

    __slots__ = ("_bodies", "_codec", "_rows", "kind", "pack", "size")

    def __init__(self, kind: PackKind, codec: BlockCodec) -> None:
        self.kind = kind
        #: The id, known from the start: seals are bound to it.
        self.pack = new_pack_id()
        #: Bytes of the blocks, as stored.
        self.size = 0
        self._codec = codec
        self._rows: list[BlockRef] = []
        self._bodies: list[Content] = []

    def __len__(self) -> int:
        return len(self._rows)

    def has_room(self, body: Content) -> bool:
        """Whether a block belongs into this pack, rather than into the next."""
        if not self._rows:
            return True
        size = self.size + len(body) + self._codec.overhead
        return size <= PACK_BYTES and len(self._rows) < MAX_PACK_BLOCKS

    def add(self, name: bytes, codec: Codec, body: Content, length: int) -> BlockRef:
        """Takes a block in and says where it will lie."""
        stored = len(body) + self._codec.overhead
        ref = BlockRef(self.pack, self.size, stored, length, codec, name)
        self._rows.append(ref)
        self._bodies.append(body)
        self.size += stored
        return ref

    def seal(self) -> tuple[bytes, ...]:
        """The whole pack in few pieces, its blocks sealed if the root is encrypted; the builder lets go of them.

        Large blocks are not copied.
        """
        seal, pack = self._codec.seal, self.pack
        pieces: list[bytes] = []
        for ref, body in zip(self._rows, self._bodies, strict=True):
            if self._codec.is_sealed:
                pieces.append(seal(body.joined() if isinstance(body, Scattered) else body, ref.name, pack))
            elif isinstance(body, Scattered):
                pieces.extend(body.parts)
            else:
                pieces.append(body)
        pieces.append(self._table())
        self._bodies = []
        whole = gathered(pieces)
        return whole.parts if isinstance(whole, Scattered) else (whole,)

    def _table(self) -> bytes:
        sealed = self._codec.is_sealed
        rows, sums = [_HEAD.pack(self.pack, self.kind, sealed, 0, len(self._rows))], []
        for ref, body in zip(self._rows, self._bodies, strict=True):
            checks = [] if sealed or ref.codec != Codec.RAW else _checksums(body)
            rows.append(_ROW.pack(ref.name, ref.offset, ref.stored, ref.length, ref.codec, len(checks)))
            sums += checks
        footer = b"".join(rows) + struct.pack(f">{len(sums)}I", *sums)
        unsigned = _TRAILER.pack(_MAGIC, _VERSION, 0, len(footer), b"")[:_SIGNED]
        return footer + unsigned + blake3(footer + unsigned).digest()


@frozen
class PackTable:
    """What the end of a pack says of it: its blocks in order, and the checksums of large raw ones by offset."""

    pack: bytes
    kind: PackKind
    is_sealed: bool
    blocks: tuple[BlockRef, ...]
    checksums: Mapping[int, tuple[int, ...]]

    @classmethod
    def parse(cls, tail: bytes, size: int, pack: bytes, kind: PackKind) -> PackTable:
        """Reads the table of a pack of ``size`` bytes from its end, of which ``tail`` holds at least the footer.

        Raises:
            CorruptBlock: the table is damaged, belongs to another pack, or is of a newer format.
        """
        length = footer_bytes(tail, size, pack)
        footer = tail[len(tail) - TRAILER_BYTES - length : len(tail) - TRAILER_BYTES]
        unsigned, digest = tail[-TRAILER_BYTES:][:_SIGNED], tail[-TRAILER_BYTES:][_SIGNED:]
        if len(footer) != length or blake3(footer + unsigned).digest() != digest:
            raise _damaged(pack, "its table does not match its digest")
        try:
            return cls._parse(footer, size - TRAILER_BYTES - length, pack, kind)
        except (struct.error, ValueError) as error:
            raise _damaged(pack, "its table is malformed") from error

    @classmethod
    def _parse(cls, footer: bytes, end: int, pack: bytes, kind: PackKind) -> PackTable:
        found, found_kind, sealed, _, count = _HEAD.unpack_from(footer)
        if found != pack or found_kind != kind:
            raise _damaged(pack, f"what lies there is {_kind(found_kind)} pack {found.hex()}")
        first_sum = _HEAD.size + count * _ROW.size
        if sealed > 1 or not 0 < count <= MAX_PACK_BLOCKS or first_sum > len(footer) or (len(footer) - first_sum) % 4:
            raise ValueError("impossible counts")
        sums = struct.unpack_from(f">{(len(footer) - first_sum) // 4}I", footer, first_sum)
        blocks, checksums = [], {}
        offset = used = 0
        for name, start, stored, length, codec, checks in _ROW.iter_unpack(memoryview(footer)[_HEAD.size : first_sum]):
            ref = BlockRef(pack, start, stored, length, codec, name)
            plain = codec == Codec.RAW and not sealed
            wanted = -(-length // CHECKED_BYTES) if plain and length > CHECKED_BYTES else 0
            if start != offset or not 0 < length <= BLOCK_BYTES or checks != wanted or (plain and stored != length):
                raise ValueError("an impossible row")
            if checks:
                checksums[start] = sums[used : used + checks]
            blocks.append(ref)
            offset += stored
            used += checks
        if offset != end or used != len(sums):
            raise ValueError("the rows do not fill the pack")
        return cls(pack, kind, bool(sealed), tuple(blocks), checksums)

    def checksums_of(self, ref: BlockRef) -> tuple[int, ...] | None:
        """The checksums of a block's stretches of 64 KiB, None where it has none.

        Raises:
            CorruptBlock: the table knows no such block.
        """
        low, high = 0, len(self.blocks)
        while low < high:
            middle = (low + high) // 2
            if self.blocks[middle].offset < ref.offset:
                low = middle + 1
            else:
                high = middle
        if low == len(self.blocks) or self.blocks[low] != ref:
            raise CorruptBlock(
                f"pack {ref.pack.hex()} does not hold block {ref.name.hex()} at {ref.offset}",
                pack=ref.pack,
                block=ref.name,
            )
        return self.checksums.get(ref.offset)


def table_bytes(blocks: int) -> int:
    """What the table of so many blocks takes, without checksums."""
    return _HEAD.size + blocks * _ROW.size + TRAILER_BYTES


def footer_bytes(tail: bytes, size: int, pack: bytes) -> int:
    """How long the footer before the trailer is that ends ``tail``.

    Raises:
        CorruptBlock: there is no trailer, or it is of a newer format.
    """
    if len(tail) < TRAILER_BYTES:
        raise _damaged(pack, f"it ends after {size} bytes")
    magic, version, _, length, _ = _TRAILER.unpack(tail[-TRAILER_BYTES:])
    if magic != _MAGIC:
        raise _damaged(pack, "it does not end as a pack does")
    if version != _VERSION:
        raise CorruptBlock(
            f"pack {pack.hex()} has format {version}, this release reads {_VERSION}",
            pack=pack,
            hint="use a newer release",
        )
    if not _HEAD.size <= length <= min(_MAX_FOOTER, size - TRAILER_BYTES):
        raise _damaged(pack, f"its table cannot take {length} bytes")
    return int(length)


def _checksums(body: Content) -> list[int]:
    if len(body) <= CHECKED_BYTES:
        return []
    found = body if isinstance(body, Scattered) else Scattered((body,))
    return [crc32c(stretch) for stretch in found.stretches(CHECKED_BYTES)]


def _kind(number: int) -> str:
    return next((kind.name.lower() for kind in PackKind if kind == number), f"unknown ({number})")


def _damaged(pack: bytes, what: str) -> CorruptBlock:
    return CorruptBlock(f"pack {pack.hex()} is damaged: {what}", pack=pack)
