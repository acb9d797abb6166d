"""Live inodes: what the file system changes in memory, made from records and written back to them."""

from __future__ import annotations

import stat
from typing import NamedTuple

from stowstore.index.records import InodeRecord
from stowstore.namespace.interfaces import Extents

__all__ = ["Attributes", "Inode", "attributes_of"]


class Attributes(NamedTuple):
    """What ``stat`` shows; ``blocks`` in units of 512 bytes, times in nanoseconds since 1970."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int


def attributes_of(ino: int, record: InodeRecord) -> Attributes:
    """What ``stat`` shows of an inode that is as its record says."""
    return Attributes(
        ino,
        record.mode,
        record.nlink,
        record.uid,
        record.gid,
        record.rdev,
        record.size,
        (record.allocated + 511) >> 9,
        record.atime_ns,
        record.mtime_ns,
        record.ctime_ns,
        record.btime_ns,
    )


class Inode:
    """One inode, changed only under the file system's lock and after `Overlay.changed`.

    ``opens`` counts open handles and references held by a mount: an inode without links lives on while there are any.
    ``packed``, ``many`` and ``allocated`` are those of the record until ``extents`` is loaded.  ``stamp`` says in which
    turn of the overlay the inode was last found changed; ``shown`` is what a
    kernel was last told of it, until it changes.
    """

    __slots__ = (
        "allocated",
        "atime",
        "btime",
        "ctime",
        "extents",
        "gid",
        "has_xattrs",
        "ino",
        "linkable",
        "many",
        "mode",
        "mtime",
        "nlink",
        "opens",
        "packed",
        "parent",
        "rdev",
        "shown",
        "size",
        "stamp",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, ino: int, mode: int, uid: int, gid: int, nlink: int, now: int) -> None:
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = nlink
        self.size = 0
        self.atime = self.mtime = self.ctime = self.btime = now
        self.rdev = 0
        self.parent = 0
        self.target = b""
        self.packed = b""
        self.many = False
        self.has_xattrs = False
        self.allocated = 0
        self.extents: Extents | None = None
        self.xattrs: dict[bytes, bytes] | None = None
        self.linkable = False
        self.opens = 0
        self.stamp = 0
        self.shown: bytes | None = None

    @classmethod
    def from_record(cls, ino: int, record: InodeRecord) -> Inode:
        node = cls(ino, record.mode, record.uid, record.gid, record.nlink, record.btime_ns)
        node.size = record.size
        node.atime = record.atime_ns
        node.mtime = record.mtime_ns
        node.ctime = record.ctime_ns
        node.rdev = record.rdev
        node.parent = record.parent
        node.target = record.target
        node.packed = record.extents
        node.many = record.many_extents
        node.has_xattrs = record.xattrs
        node.allocated = record.allocated
        return node

    @property
    def is_directory(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_regular(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFREG

    def attributes(self) -> Attributes:
        """What ``stat`` shows now."""
        return Attributes(
            self.ino,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.size,
            (self.allocated + 511) >> 9,
            self.atime,
            self.mtime,
            self.ctime,
            self.btime,
        )

    def record(self, packed: bytes | None = None, many: bool = False) -> InodeRecord:
        """The record, with the extents given or else those it was read with."""
        if packed is None:
            packed, many = self.packed, self.many
        return InodeRecord(
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.atime,
            self.mtime,
            self.ctime,
            self.btime,
            self.rdev,
            self.parent,
            self.target,
            packed,
            many,
            self.has_xattrs,
            self.allocated,
        )

    def capture(self) -> Inode:
        """A copy that stays as the inode is now, its extents forked."""
        made = Inode.__new__(Inode)
        made.ino = self.ino
        made.mode = self.mode
        made.uid = self.uid
        made.gid = self.gid
        made.nlink = self.nlink
        made.size = self.size
        made.atime = self.atime
        made.mtime = self.mtime
        made.ctime = self.ctime
        made.btime = self.btime
        made.rdev = self.rdev
        made.parent = self.parent
        made.target = self.target
        made.packed = self.packed
        made.many = self.many
        made.has_xattrs = self.has_xattrs
        made.allocated = self.allocated
        made.extents = None if self.extents is None else self.extents.fork()
        made.xattrs = None
        made.linkable = self.linkable
        made.opens = 0
        made.stamp = 0
        made.shown = None
        return made
