"""What a volume holds and may hold."""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from stowstore.index.records import NAME_BYTES, Superblock
from stowstore.namespace.errors import posix_error

__all__ = ["BLOCK_SIZE", "FileSystemStatus", "Usage"]

#: The preferred size of reads and writes that ``stat`` and ``statfs`` name.
BLOCK_SIZE: Final = 4096

#: What ``statfs`` shows as free of a volume without limits: plenty, and still safe to add up.
_PLENTY_BYTES: Final = 1 << 50
_PLENTY_INODES: Final = 1 << 32


class FileSystemStatus(NamedTuple):
    """What ``statfs`` shows; blocks of ``block_size`` bytes."""

    block_size: int
    blocks: int
    blocks_free: int
    files: int
    files_free: int
    name_max: int


class Usage:
    """The counters of a volume, changed under the file system's lock.

    Bytes are those that extents cover, as ``st_blocks`` counts them before rounding: a hole costs nothing, a block that
    two files share counts twice.  Inodes that are unlinked but open belong to no version; they are counted aside, so
    that they cannot be used to get around a limit.  A full volume answers ENOSPC, for bytes and for inodes: the limits
    are the size of the file system, as ``statfs`` shows it.
    """

    __slots__ = (
        "inode_count",
        "limit_bytes",
        "limit_inodes",
        "next_ino",
        "orphan_bytes",
        "orphan_inodes",
        "used_bytes",
    )

    def __init__(self, superblock: Superblock) -> None:
        self.next_ino = superblock.next_ino
        self.used_bytes = superblock.used_bytes
        self.inode_count = superblock.inode_count
        self.limit_bytes = superblock.limit_bytes
        self.limit_inodes = superblock.limit_inodes
        self.orphan_bytes = 0
        self.orphan_inodes = 0

    def record(self) -> Superblock:
        """The superblock of a version made now."""
        return Superblock(self.next_ino, self.used_bytes, self.inode_count, self.limit_bytes, self.limit_inodes)

    def has_room_for(self, size: int) -> bool:
        """Whether so many more bytes fit."""
        limit = self.limit_bytes
        return not limit or size <= 0 or self.used_bytes + self.orphan_bytes + size <= limit

    def require_inode(self) -> None:
        """Raises ENOSPC when no further inode is allowed."""
        limit = self.limit_inodes
        if limit and self.inode_count + self.orphan_inodes >= limit:
            raise posix_error(errno.ENOSPC, f"the volume may hold {limit} inodes")

    def full(self) -> OSError:
        """The error of a volume that has no room for more bytes."""
        return posix_error(errno.ENOSPC, f"the volume may hold {self.limit_bytes} bytes")

    def status(self) -> FileSystemStatus:
        used = -(-(self.used_bytes + self.orphan_bytes) // BLOCK_SIZE)
        inodes = self.inode_count + self.orphan_inodes
        blocks = self.limit_bytes // BLOCK_SIZE if self.limit_bytes else used + _PLENTY_BYTES // BLOCK_SIZE
        files = self.limit_inodes or inodes + _PLENTY_INODES
        return FileSystemStatus(BLOCK_SIZE, blocks, max(blocks - used, 0), files, max(files - inodes, 0), NAME_BYTES)
