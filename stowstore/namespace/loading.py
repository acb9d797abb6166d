"""Loading: whole files whose bytes lie in blocks already, put into a directory many at a time."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from stowstore.chunks.writer import PendingBlock
from stowstore.index.records import INLINE_EXTENTS, EntryRecord, Extent, pack_extent, pack_extents
from stowstore.namespace.attributes import kept_time
from stowstore.namespace.committing import CommitOperations
from stowstore.namespace.errors import posix_error
from stowstore.namespace.extent_pieces import Piece
from stowstore.namespace.extents import ExtentMap
from stowstore.namespace.inodes import Inode
from stowstore.namespace.permissions import ROOT

__all__ = ["LoadOperations", "LoadedFile"]

#: Files made before the lock is given to others.
_BATCH: Final = 256


class LoadedFile(NamedTuple):
    """A regular file to be made: permission bits, owner, times in nanoseconds, and its one block, which was flushed.

    A file of several has none, but ``extents``, ascending and none across a window of 4 MiB.  Without either its
    ``size`` bytes are a hole.  Its extended attributes are such as `require_xattr` lets pass.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    size: int
    block: PendingBlock | None
    extents: tuple[Extent, ...] = ()
    xattrs: Mapping[bytes, bytes] = {}


class LoadOperations(CommitOperations):
    """What an import does for the superuser; one file costs a fraction of creating, writing and closing it."""

    def load_files(self, parent: int, files: Sequence[LoadedFile]) -> None:
        """Puts files into a directory, in place of files that have their names.

        Their blocks have to be in the store.  Each file appears as a whole; those before one that cannot be made stay.

        Raises:
            OSError: ENOSPC where the volume may not hold one more, EISDIR where a directory is in the way.
        """
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            for file in batch:
                self._overlay.warm_entry(parent, file.name)
            with self._lock:
                self._require_writable()
                directory = self._searchable(parent, ROOT)
                self._require_addable(directory, ROOT)
                now = self._now()
                self._modified(directory, now)
                for file in batch:
                    self._load_file(directory, file, now)

    def _load_file(self, directory: Inode, file: LoadedFile, now: int) -> None:
        name, mode, uid, gid, atime_ns, mtime_ns, size, block, extents, xattrs = file
        self._require_name(name)
        if name in (b".", b".."):
            raise posix_error(errno.EISDIR)
        overlay = self._overlay
        entry = overlay.entry_to_replace(directory.ino, name)
        replaced = None if entry is None else self._entry_node(directory, entry)
        if replaced is not None and replaced.is_directory:
            raise posix_error(errno.EISDIR, "a directory is in the way")
        usage = self._usage
        usage.require_inode()
        if extents:
            allocated = sum(extent.length for extent in extents)
        else:
            allocated = 0 if block is None else size
        given_back = 0 if replaced is None or replaced.nlink > 1 or replaced.opens else replaced.allocated
        if not usage.has_room_for(allocated - given_back):
            raise usage.full()
        node = Inode(usage.next_ino, stat.S_IFREG | (mode & 0o7777), uid, gid, 1, now)
        usage.next_ino += 1
        usage.inode_count += 1
        node.size = size
        node.atime = kept_time(atime_ns)
        node.mtime = kept_time(mtime_ns)
        node.parent = directory.ino
        if extents:
            if len(extents) <= INLINE_EXTENTS:
                node.packed = pack_extents(extents)
            else:
                node.extents = ExtentMap(Piece(*extent) for extent in extents)
        elif block is not None:
            node.packed = pack_extent(0, size, 0, block.ref)
        node.allocated = allocated
        usage.used_bytes += allocated
        overlay.add(node)
        for attribute, value in xattrs.items():
            self._store_xattr(node, attribute, value)
        overlay.set_entry(directory.ino, name, EntryRecord(node.ino, stat.S_IFREG))
        if replaced is not None:
            self._drop_link(replaced, now)
