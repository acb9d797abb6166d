"""Files: opening them, reading and writing, and the ways to change where their bytes lie."""

from __future__ import annotations

import errno
import os
import stat
import time
from bisect import bisect_left
from enum import IntFlag
from typing import Any, Final

from stowstore.chunks.patience import WouldWait, must_not_wait
from stowstore.namespace.attributes import MAX_SIZE
from stowstore.namespace.errors import posix_error
from stowstore.namespace.handles import OpenFile
from stowstore.namespace.inodes import Attributes, Inode
from stowstore.namespace.permissions import READ, WRITE, Caller
from stowstore.namespace.renames import RenameOperations

__all__ = ["AllocateFlags", "FileOperations"]

#: How long a write waits for a kernel to forget removed files that are all that is in its way, seconds.
_FORGETTING: Final = 0.5

_ACCESS: Final = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE, 3: READ | WRITE}


class AllocateFlags(IntFlag):
    """The modes of ``fallocate`` that are served; values are the kernel's."""

    ALLOCATE = 0
    KEEP_SIZE = 1
    PUNCH_HOLE = 2
    ZERO_RANGE = 16


class FileOperations(RenameOperations):
    """Operations on regular files by handle."""

    def open(self, ino: int, flags: int, caller: Caller) -> int:
        """A handle on a regular file; ``O_TRUNC`` empties it.

        Fifos and devices are the kernel's to open (ENXIO here), directories are read with `opendir`.
        """
        self._overlay.warm_inode(ino)
        with self._lock:
            return self._open(self._node(ino), flags, caller)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Attributes, int]:
        """Makes and opens a file, whatever its mode; without ``O_EXCL`` one that exists is opened."""
        self._overlay.warm_entry(parent, name)
        with self._lock:
            node, handle = self._create(parent, name, mode, flags, caller)
            return node.attributes(), handle

    def tmpfile(self, parent: int, mode: int, flags: int, caller: Caller) -> tuple[Attributes, int]:
        """Makes and opens a file without a name (``O_TMPFILE``), which `link` can give it unless ``O_EXCL`` is set."""
        with self._lock:
            directory = self._directory(parent)
            self._require_writable()
            self._require_addable(directory, caller)
            if not flags & (os.O_WRONLY | os.O_RDWR):
                raise posix_error(errno.EINVAL)
            node = self._allocate(directory, stat.S_IFREG | (mode & 0o7777 & ~caller.umask), caller, 0)
            node.linkable = not flags & os.O_EXCL
            self._overlay.add(node)
            return node.attributes(), self._opened(node, flags)

    def release(self, handle: int) -> None:
        """Closes a handle."""
        with self._lock:
            opened = self._files.pop(handle, None)
            if opened is None:
                raise posix_error(errno.EBADF)
            self._let_go(opened.node)

    def flush(self, handle: int) -> None:
        """Answers ``close``; what was written is in the file system already."""
        self._file(handle)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from an offset; fewer at the end of the file only."""
        plan = self.plan_read(handle, offset, size)
        return b"" if plan is None else self.content.fetch(plan)

    def plan_read(self, handle: int, offset: int, size: int) -> Any:
        """What it takes to read a range, for `Content.fetch`; None at the end of the file."""
        opened = self._file(handle)
        if not opened.readable:
            raise posix_error(errno.EBADF)
        if offset < 0 or size < 0:
            raise posix_error(errno.EINVAL)
        node = opened.node
        self._warm_extents(node, offset, offset + size)
        with self._lock:
            size = min(size, node.size - offset)
            if size <= 0:
                return None
            self._extents(node)
            return self.content.plan(node, offset, size)

    def write(self, handle: int, offset: int, data: bytes | bytearray | memoryview, caller: Caller) -> int:
        """Writes at an offset, or at the end with ``O_APPEND``; all or nothing.

        Raises:
            OSError: before anything is taken; ENOSPC where the volume or the staging area has no room for all of it,
                EFBIG where a file cannot be that large.
        """
        opened = self._writable_file(handle)
        length = len(data)
        if offset < 0:
            raise posix_error(errno.EINVAL)
        if not length:
            return 0
        node = opened.node
        if node.extents is not None or node.many:
            at = node.size if opened.append else offset
            self._warm_extents(node, at, at + length)
        if node.has_xattrs:
            self._warm_xattrs(node.ino)
        usage = self._usage
        if usage.limit_bytes and not usage.has_room_for(length):
            self._await_forgotten(length)
            with self._lock:
                self._require_room(node, node.size if opened.append else offset, length)
        staged = self.content.stage(data)
        try:
            with self._lock:
                at = node.size if opened.append else offset
                if usage.limit_bytes or at + length > MAX_SIZE:
                    self._require_room(node, at, length)
                self._overlay.changed(node)
                self._extents(node)
                self.content.place(node, at, staged)
                staged = None
                self._account(node)
                self._written(node, max(node.size, at + length), caller)
        finally:
            if staged is not None:
                self.content.discard(staged)
        return length

    def write_fitting(self, handle: int, offset: int, data: bytes | bytearray | memoryview, caller: Caller) -> int:
        """Writes as much of the data as there is room for, as write(2) does; how many bytes that were.

        Raises:
            OSError: ENOSPC or EFBIG, where there is room for nothing, or the staging area has none for what fits.
        """
        while True:
            try:
                return self.write(handle, offset, data, caller)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EFBIG):
                    raise
                room = self._room_for(handle, offset, len(data))
                if not 0 < room < len(data):
                    raise
                # Another may take the room before this does: then less is tried.
                data = data[:room]

    def fallocate(self, handle: int, mode: int, offset: int, length: int, caller: Caller) -> None:
        """Changes the space of a range: allocates it, makes it a hole, or zeros.

        Allocation sets the size and checks the limits; room is not set aside, since a volume has no blocks to reserve.
        """
        if offset < 0 or length <= 0:
            raise posix_error(errno.EINVAL)
        punch, zero = mode & AllocateFlags.PUNCH_HOLE, mode & AllocateFlags.ZERO_RANGE
        keep = mode & AllocateFlags.KEEP_SIZE
        known = AllocateFlags.KEEP_SIZE | AllocateFlags.PUNCH_HOLE | AllocateFlags.ZERO_RANGE
        if mode & ~known or (punch and (zero or not keep)):
            raise posix_error(errno.EOPNOTSUPP)
        opened = self._writable_file(handle)
        if offset + length > MAX_SIZE:
            raise posix_error(errno.EFBIG)
        node = opened.node
        self._warm_extents(node, offset, offset + length)
        if node.has_xattrs:
            self._warm_xattrs(node.ino)
        with self._lock:
            if not punch and not zero:
                self._require_room(node, offset, length)
            self._overlay.changed(node)
            if punch or zero:
                self._extents(node)
                self.content.punch(node, offset, length)
                self._account(node)
            self._written(node, node.size if keep else max(node.size, offset + length), caller)

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        """The next data or hole (`os.SEEK_DATA`, `os.SEEK_HOLE`) at or behind an offset."""
        opened = self._file(handle)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise posix_error(errno.EINVAL, "a handle has no position; only SEEK_DATA and SEEK_HOLE ask anything")
        node = opened.node
        self._warm_extents(node, offset, node.size)
        with self._lock:
            if not 0 <= offset < node.size:
                raise posix_error(errno.ENXIO)
            self._extents(node)
            return self.content.seek(node, offset, whence)

    def copy_file_range(
        self, handle: int, offset: int, target: int, target_offset: int, length: int, caller: Caller
    ) -> int:
        """Makes a range of one file share the bytes of another's, or of its own; how many were copied.

        No data are moved, and none are uploaded again.
        """
        source_file, target_file = self._file(handle), self._file(target)
        if not source_file.readable or not target_file.writable or target_file.append:
            raise posix_error(errno.EBADF)
        if min(offset, target_offset, length) < 0:
            raise posix_error(errno.EINVAL)
        source, node = source_file.node, target_file.node
        self._warm_extents(source, offset, min(offset + length, source.size))
        self._warm_extents(node, target_offset, target_offset + min(length, source.size))
        if node.has_xattrs:
            self._warm_xattrs(node.ino)
        with self._lock:
            length = min(length, source.size - offset)
            if length <= 0:
                return 0
            if source is node and offset < target_offset + length and target_offset < offset + length:
                raise posix_error(errno.EINVAL, "the ranges overlap")
            self._extents(source)
            self._require_room(node, target_offset, length)
            self._overlay.changed(node)
            self._extents(node)
            self.content.clone(source, offset, node, target_offset, length)
            self._account(node)
            self._written(node, max(node.size, target_offset + length), caller)
            return length

    def _create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Inode, int]:
        directory, entry = self._search(parent, name, caller)
        if entry is not None and not flags & os.O_EXCL:
            node = self._entry_node(directory, entry)
            return node, self._open(node, flags, caller)
        if entry is not None or name in (b".", b".."):
            raise posix_error(errno.EEXIST if flags & os.O_EXCL else errno.EISDIR)
        self._require_writable()
        self._require_addable(directory, caller)
        node = self._allocate(directory, stat.S_IFREG | (mode & 0o7777 & ~caller.umask), caller, 1)
        self._overlay.add(node)
        self._enter(directory, name, node, node.btime)
        return node, self._opened(node, flags)

    def _file(self, handle: int) -> OpenFile:
        try:
            return self._files[handle]
        except KeyError:
            raise posix_error(errno.EBADF) from None

    def _writable_file(self, handle: int) -> OpenFile:
        opened = self._file(handle)
        if not opened.writable:
            raise posix_error(errno.EBADF)
        return opened

    def _open(self, node: Inode, flags: int, caller: Caller) -> int:
        wanted = _ACCESS[flags & os.O_ACCMODE]
        if flags & os.O_TRUNC:
            wanted |= WRITE
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFLNK:
            raise posix_error(errno.ELOOP)
        if kind == stat.S_IFDIR:
            raise posix_error(errno.EISDIR)
        if flags & os.O_DIRECTORY:
            raise posix_error(errno.ENOTDIR)
        if wanted & WRITE and kind == stat.S_IFREG:
            self._require_writable()
        self._require(node, caller, wanted)
        if kind != stat.S_IFREG:
            raise posix_error(errno.ENXIO)
        if flags & os.O_TRUNC:
            self._set_size(node, 0, caller, self._now())
        return self._opened(node, flags)

    def _opened(self, node: Inode, flags: int) -> int:
        handle = self._next_handle
        self._next_handle = handle + 1
        self._files[handle] = OpenFile(node, flags)
        self._hold(node)
        return handle

    def _require_room(self, node: Inode, offset: int, length: int) -> None:
        """Raises EFBIG or ENOSPC where a range cannot be written; what is there already costs nothing again."""
        if offset + length > MAX_SIZE:
            raise posix_error(errno.EFBIG)
        usage = self._usage
        if not usage.has_room_for(length):
            added = length - self._extents(node).covered(offset, length)
            if not usage.has_room_for(added):
                raise usage.full()

    def _room_for(self, handle: int, offset: int, length: int) -> int:
        """How much of a range can be written, from its beginning on; its extents are loaded."""
        opened = self._writable_file(handle)
        node = opened.node
        usage = self._usage
        if usage.limit_bytes:
            self._await_forgotten(min(length, usage.limit_bytes - usage.used_bytes))
        with self._lock:
            start = node.size if opened.append else offset
            covered = self._extents(node).covered
            sizes = range(1, min(length, MAX_SIZE - start) + 1)
            return bisect_left(sizes, True, key=lambda size: not usage.has_room_for(size - covered(start, size)))

    def _await_forgotten(self, length: int) -> None:
        """Gives a kernel time to let go of files that were removed a moment ago, where they are what is in the way.

        It tells that it has closed and forgotten them after unlink(2) has returned, and until then they count.
        """
        usage = self._usage
        if not usage.orphan_bytes or usage.used_bytes + length > usage.limit_bytes:
            return
        if must_not_wait():
            raise WouldWait
        end = time.monotonic() + _FORGETTING
        while not usage.has_room_for(length) and time.monotonic() < end:
            time.sleep(0.002)

    def _written(self, node: Inode, size: int, caller: Caller) -> None:
        """What every change of content leaves on the inode."""
        node.size = size
        node.mtime = node.ctime = self._now()
        if caller.uid:
            self._drop_privileges(node, caller)
