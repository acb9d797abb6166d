"""The values of a volume's index: inodes, extents, entries, the superblock.

Records are msgpack arrays of fixed order; a newer version may append fields, which older readers refuse by the format
version of the root.  Everything read is treated as hostile: lengths and types are checked where it is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from operator import attrgetter
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from datastore.errors import StoreError
from stowstore.chunks.block import BLOCK_BYTES, BLOCK_REF_LAYOUT, BlockRef

__all__ = [
    "EXTENT_BYTES",
    "INLINE_EXTENTS",
    "NAME_BYTES",
    "CorruptRecord",
    "EntryRecord",
    "Extent",
    "InodeRecord",
    "Superblock",
    "pack_extent",
    "pack_extents",
    "unpack_extents",
]

#: The longest name of an entry, in bytes.
NAME_BYTES: Final = 255

#: A file with more extents than this keeps them under keys of their own.
INLINE_EXTENTS: Final = 4

# What values may be is said by their types, so that it is checked where they are decoded, in C.
_Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Number = Annotated[int, Meta(ge=0)]
_Time = Annotated[int, Meta(le=(1 << 63) - 1)]
_Owner = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
_Mode = Annotated[int, Meta(ge=0, le=(1 << 16) - 1)]
_Target = Annotated[bytes, Meta(max_length=4095)]

_EXTENT_HEAD = struct.Struct(">QII")
_EXTENT = struct.Struct(_EXTENT_HEAD.format + BLOCK_REF_LAYOUT.format.removeprefix(">"))

#: Bytes of one extent in a record.
EXTENT_BYTES: Final = _EXTENT.size

_encode = msgspec.msgpack.Encoder().encode


class CorruptRecord(StoreError):
    """An index record cannot be what its key says; never interpreted further."""


class Extent(NamedTuple):
    """A piece of a file: ``length`` bytes at file ``offset`` are those of ``block`` from ``skip`` on.

    What no extent covers is a hole and reads as zeros.  Extents of a file do not overlap and are kept ascending.
    """

    offset: int
    length: int
    skip: int
    block: BlockRef


class InodeRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """What ``stat`` shows of an inode, and where its content starts; times in nanoseconds since 1970.

    ``extents`` are the packed extents of a file of at most `INLINE_EXTENTS`; with ``many_extents`` they lie
    under ``e`` keys.  ``target`` is the text of a symbolic link.  ``parent`` is the directory in which
    the inode was last given a name: for a directory the one it lies in.
    ``xattrs`` says whether ``x`` keys exist.  ``allocated`` counts the bytes that extents cover, holes left out.
    """

    mode: _Mode
    uid: _Owner
    gid: _Owner
    nlink: _Count
    size: _Count
    atime_ns: _Time
    mtime_ns: _Time
    ctime_ns: _Time
    btime_ns: _Time
    rdev: _Number = 0
    parent: _Number = 0
    target: _Target = b""
    extents: bytes = b""
    many_extents: bool = False
    xattrs: bool = False
    allocated: _Count = 0

    def encode(self) -> bytes:
        return _encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> InodeRecord:
        """Raises `CorruptRecord` for what cannot be an inode."""
        try:
            found = _INODES.decode(raw)
        except msgspec.MsgspecError as error:
            raise CorruptRecord(f"an inode record cannot be read: {error}") from error
        if len(found.extents) % EXTENT_BYTES:
            raise CorruptRecord("an inode record has a part of an extent")
        return found

    @classmethod
    def decode_all(cls, raws: Iterable[bytes]) -> list[InodeRecord]:
        """The same of many, in a fraction of the time."""
        try:
            found = list(map(_INODES.decode, raws))
        except msgspec.MsgspecError as error:
            raise CorruptRecord(f"an inode record cannot be read: {error}") from error
        if any(length % EXTENT_BYTES for length in set(map(len, map(_extents_of, found)))):
            raise CorruptRecord("an inode record has a part of an extent")
        return found


class EntryRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a directory entry points at: the inode, and its file type (the upper four bits of its mode)."""

    ino: int
    kind: int

    def encode(self) -> bytes:
        return _encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> EntryRecord:
        """Raises `CorruptRecord` for what cannot be an entry."""
        try:
            return _ENTRIES.decode(raw)
        except msgspec.MsgspecError as error:
            raise CorruptRecord(f"a directory entry cannot be read: {error}") from error

    @classmethod
    def decode_all(cls, raws: Iterable[bytes]) -> list[EntryRecord]:
        """The same of many, in a fraction of the time."""
        try:
            return list(map(_ENTRIES.decode, raws))
        except msgspec.MsgspecError as error:
            raise CorruptRecord(f"a directory entry cannot be read: {error}") from error


class Superblock(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Counters and limits of a volume; limits of 0 are none.  Sizes in bytes."""

    next_ino: int = 2
    used_bytes: int = 0
    inode_count: int = 1
    limit_bytes: int = 0
    limit_inodes: int = 0

    def encode(self) -> bytes:
        return _encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> Superblock:
        """Raises `CorruptRecord` for what cannot be a superblock."""
        try:
            return _SUPERBLOCKS.decode(raw)
        except msgspec.MsgspecError as error:
            raise CorruptRecord(f"the superblock cannot be read: {error}") from error


def pack_extent(offset: int, length: int, skip: int, block: BlockRef) -> bytes:
    """An extent in its binary form: file offset (8 bytes), length (4), skip (4), block reference."""
    return _EXTENT.pack(offset, length, skip, *block)


def pack_extents(extents: list[Extent] | tuple[Extent, ...]) -> bytes:
    """Extents in their binary form, back to back."""
    return b"".join([_EXTENT.pack(offset, length, skip, *block) for offset, length, skip, block in extents])


def unpack_extents(raw: bytes) -> list[Extent]:
    """Reads `pack_extents`.

    Raises:
        CorruptRecord: extents overlap, are not ascending, or reach out of their blocks.
    """
    if len(raw) % EXTENT_BYTES:
        raise CorruptRecord(f"packed extents have {len(raw)} bytes, no multiple of {EXTENT_BYTES}")
    found: list[Extent] = []
    end = 0
    for start in range(0, len(raw), EXTENT_BYTES):
        offset, length, skip = _EXTENT_HEAD.unpack_from(raw, start)
        block = BlockRef.unpack(raw[start + _EXTENT_HEAD.size : start + EXTENT_BYTES])
        if offset < end or not 0 < length <= BLOCK_BYTES or skip + length > block.length:
            raise CorruptRecord("extents overlap, or reach out of their blocks")
        end = offset + length
        found.append(Extent(offset, length, skip, block))
    return found


_extents_of = attrgetter("extents")

_INODES = msgspec.msgpack.Decoder(InodeRecord)
_ENTRIES = msgspec.msgpack.Decoder(EntryRecord)
_SUPERBLOCKS = msgspec.msgpack.Decoder(Superblock)
