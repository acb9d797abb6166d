"""The keys of a volume's index, ordered so that what is read together lies together.

======================================  ==================================================================
``s``                                   the superblock: counters and limits
``i`` + inode (8 bytes)                 an inode's attributes, with its first extents or its link target
``e`` + inode (8) + offset (8)          extents of a file that has many, from that file offset on
``x`` + inode (8) + name                one extended attribute
``d`` + parent inode (8) + name         a directory entry
======================================  ==================================================================

Numbers are big-endian, names raw bytes.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "ENTRY",
    "ENTRY_NAME",
    "EXTENTS",
    "INODE",
    "ROOT_INODE",
    "SUPERBLOCK",
    "XATTR",
    "after_prefix",
    "entry_key",
    "entry_prefix",
    "extents_key",
    "extents_prefix",
    "inode_key",
    "inode_of",
    "name_of",
    "offset_of",
    "xattr_key",
    "xattr_prefix",
]

ENTRY: Final = b"d"
#: Where the name begins in the key of an entry.
ENTRY_NAME: Final = 9
EXTENTS: Final = b"e"
INODE: Final = b"i"
SUPERBLOCK: Final = b"s"
XATTR: Final = b"x"

#: The inode of the root directory, as FUSE wants it.
ROOT_INODE: Final = 1

_NUMBER = struct.Struct(">Q")


def inode_key(ino: int) -> bytes:
    return INODE + _NUMBER.pack(ino)


def entry_prefix(parent: int) -> bytes:
    """What the entries of a directory start with."""
    return ENTRY + _NUMBER.pack(parent)


def entry_key(parent: int, name: bytes) -> bytes:
    return ENTRY + _NUMBER.pack(parent) + name


def extents_prefix(ino: int) -> bytes:
    return EXTENTS + _NUMBER.pack(ino)


def extents_key(ino: int, offset: int) -> bytes:
    return EXTENTS + _NUMBER.pack(ino) + _NUMBER.pack(offset)


def xattr_prefix(ino: int) -> bytes:
    return XATTR + _NUMBER.pack(ino)


def xattr_key(ino: int, name: bytes) -> bytes:
    return XATTR + _NUMBER.pack(ino) + name


def inode_of(key: bytes) -> int:
    """The inode number in any key but the superblock's; the parent's in an entry's."""
    found: int = _NUMBER.unpack_from(key, 1)[0]
    return found


def name_of(key: bytes) -> bytes:
    """The name in the key of an entry or an extended attribute."""
    return key[ENTRY_NAME:]


def offset_of(key: bytes) -> int:
    """The file offset in the key of extents."""
    found: int = _NUMBER.unpack_from(key, 9)[0]
    return found


def after_prefix(prefix: bytes) -> bytes:
    """The smallest key behind everything that starts with a prefix (which does not end in 0xff alone)."""
    body = prefix.rstrip(b"\xff")
    return body[:-1] + bytes((body[-1] + 1,))
