"""Blocks: the pieces of content a volume stores, and where each one lies.

A block is up to 4 MiB of bytes, named by their BLAKE3 (keyed when the root is encrypted), kept compressed and sealed
inside a pack object.  A `BlockRef` says all a reader needs: which pack, where in it, how it is coded, and what its
bytes must hash to.  Index nodes are blocks too, in packs of their own.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple

from datastore.errors import StoreError

__all__ = ["BLOCK_BYTES", "BLOCK_REF_BYTES", "BLOCK_REF_LAYOUT", "BlockRef", "Codec", "CorruptBlock", "PackKind"]

#: The largest block: what one extent of a file can share, and what one fetch returns.
BLOCK_BYTES: Final = 4 << 20

#: A block reference in binary, its fields in their order.
BLOCK_REF_LAYOUT: Final = struct.Struct(">16sIIIB32s")


class CorruptBlock(StoreError):
    """Stored bytes are not what their name says, cannot be decoded, or are gone; never served.

    ``pack`` and ``block`` name what is damaged where it is known: a pack id, and a block's name.
    """

    def __init__(self, message: str, *, pack: bytes | None = None, block: bytes | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.pack = pack
        self.block = block

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "pack": self.pack, "block": self.block}


class Codec(IntEnum):
    """How a block's bytes are stored.  Values are part of the format."""

    RAW = 0
    ZSTD = 1


class PackKind(IntEnum):
    """Which prefix of the root a pack lies under.  Values are part of the format."""

    DATA = 0
    INDEX = 1


class BlockRef(NamedTuple):
    """Where a block lies: 61 bytes, big-endian, in the order of the fields.

    ``stored`` is the length in the pack (with the seal's 28 bytes when the root is encrypted), ``length`` that of the
    content.
    """

    pack: bytes
    offset: int
    stored: int
    length: int
    codec: int
    name: bytes

    def pack_bytes(self) -> bytes:
        """The binary form."""
        return BLOCK_REF_LAYOUT.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> BlockRef:
        """Reads the binary form.

        Raises:
            CorruptBlock: the bytes have another length, or describe an impossible block.
        """
        try:
            found = cls._make(BLOCK_REF_LAYOUT.unpack(raw))
        except struct.error as error:
            raise CorruptBlock(f"a block reference has {len(raw)} bytes, not {BLOCK_REF_LAYOUT.size}") from error
        if found.length > BLOCK_BYTES or found.stored > 2 * BLOCK_BYTES:
            raise CorruptBlock(f"a block of {found.length} bytes is larger than any block may be")
        return found


#: Bytes of a block reference.
BLOCK_REF_BYTES: Final = BLOCK_REF_LAYOUT.size
