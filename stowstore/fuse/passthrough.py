"""Passthrough: files that the kernel reads from a plain file of the local disk, without asking us.

It is for what nobody can write: the mounts of versions.  A file that readers come back to, or that was asked for, is
copied whole into a file without a name in the cache directory, each block proved as it is read; from then on opening it
hands the kernel that file.  Where the kernel, the user or the disk does not allow it, everything is served as before,
and `Passthrough.refusal` says why.

An inode is either passed through or cached by the kernel, in all handles at once: opening one in the other way is EIO.

Source: ``fs/fuse/passthrough.c``, ``backing.c`` and ``iomode.c`` of Linux, 6.9 and later.
"""

from __future__ import annotations

import fcntl
import os
import queue
import stat
import struct
import tempfile
import threading
from collections import Counter, OrderedDict
from errno import EINVAL, ELOOP, ENOSPC, ENOTTY, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Final

from attrs import frozen

from datastore.errors import StoreError
from datastore.events import get_logger
from stowstore.disk_writes import write_all
from stowstore.fuse.wire import OpenFlag
from stowstore.namespace.background import make_way
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT

__all__ = ["Passthrough", "PassthroughStatistics"]

#: ``_IOW(229, 1, struct fuse_backing_map)`` and ``_IOW(229, 2, uint32_t)``.
_BACKING_OPEN: Final = 1 << 30 | 16 << 16 | 229 << 8 | 1
_BACKING_CLOSE: Final = 1 << 30 | 4 << 16 | 229 << 8 | 2
_MAP: Final = struct.Struct("<iIQ")

#: Files below this are not worth a file of their own.
_LEAST: Final = 128 << 10

#: How often a file is read whole, past what the kernel remembers, before it is copied.
_READINGS: Final = 1.5

#: What is copied at once, and how much of the disk is left free.
_PIECE: Final = 8 << 20
_FREE_RATIO: Final = 0.05

_MOST_FILES: Final = 4096

_CACHED: Final = int(OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)
_PASSED: Final = int(OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH)
_ASKED: Final = _PASSED | int(OpenFlag.DIRECT_IO)

_REFUSALS: Final = {
    EPERM: "it needs the capability SYS_ADMIN",
    ELOOP: "the cache directory lies on a stacked file system such as overlayfs: name one on a local disk",
    ENOTTY: "this kernel has none: Linux 6.9 and later do",
    EOPNOTSUPP: "the file system of the cache directory does not allow it",
    EINVAL: "this kernel has none: Linux 6.9 and later do",
}

_log = get_logger(part="mount")


@frozen(kw_only=True)
class PassthroughStatistics:
    """Plain files, their bytes, how often one was opened; ``refusal`` says why there are none, if there cannot be."""

    refusal: str | None
    files: int
    bytes: int
    opens: int


class _Plain:
    """A plain file that the kernel has; ``users`` counts the handles it is read through."""

    __slots__ = ("backing", "size", "users")

    def __init__(self, backing: int, size: int) -> None:
        self.backing = backing
        self.size = size
        self.users = 0


class Passthrough:
    """The plain files of one mount; thread-safe."""

    def __init__(self, device: int, directory: Path, *, max_bytes: int) -> None:
        self._device = device
        self._directory = directory
        self._max_bytes = max_bytes
        #: Why nothing is passed through.
        self.refusal: str | None = "the kernel has not agreed yet"
        self._lock = threading.Lock()
        self._plains: OrderedDict[int, _Plain] = OrderedDict()
        self._bytes = 0
        self._opens = 0
        # Handles by inode: passed through, with the plain file they use, and cached by the kernel.
        self._passed: dict[int, _Plain] = {}
        self._cached: Counter[int] = Counter()
        self._by_handle: dict[int, _Plain] = {}
        self._read: Counter[int] = Counter()
        self._copying: set[int] = set()
        self._generation = 0
        self._wanted: queue.SimpleQueue[tuple[FileSystem, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def statistics(self) -> PassthroughStatistics:
        with self._lock:
            return PassthroughStatistics(
                refusal=self.refusal, files=len(self._plains), bytes=self._bytes, opens=self._opens
            )

    def agree(self, offered: bool) -> None:
        """Says whether the kernel offers it."""
        self.refusal = None if offered else _REFUSALS[ENOTTY]

    def opened(self, ino: int, handle: int) -> tuple[int, int]:
        """How a handle is to be read: flags, and the number of the plain file."""
        with self._lock:
            plain = self._plains.get(ino)
            used = self._passed.get(ino)
            if used is not None:
                # All handles have to be of one kind.  Behind one that has become old we answer reads ourselves.
                flags, plain = (_PASSED if plain is used else _ASKED), used
            elif plain is None or self._cached[ino]:
                self._cached[ino] += 1
                return _CACHED, 0
            else:
                flags = _PASSED
                self._passed[ino] = plain
                self._plains.move_to_end(ino)
            plain.users += 1
            self._by_handle[handle] = plain
            self._opens += flags == _PASSED
            return flags, plain.backing

    def released(self, files: FileSystem, ino: int, handle: int) -> None:
        """Takes notice of a handle that is closed."""
        with self._lock:
            plain = self._by_handle.pop(handle, None)
            if plain is None:
                self._cached[ino] -= 1
                if self._cached[ino] > 0:
                    return
                del self._cached[ino]
                wanted = self._is_wanted(files, ino)
            else:
                wanted = False
                plain.users -= 1
                if not plain.users:
                    del self._passed[ino]
                    if self._plains.get(ino) is not plain:
                        self._drop(plain)
        if wanted:
            self._ask_for(files, ino)

    def was_read(self, ino: int, size: int) -> None:
        """Counts what the kernel had to ask for."""
        self._read[ino] += size

    def keep(self, files: FileSystem, ino: int) -> bool:
        """Copies a file for the kernel, now; whether it has it."""
        about = files.getattr(ino)
        size = about.size
        with self._lock:
            if ino in self._plains:
                return True
            if self.refusal is not None or not stat.S_ISREG(about.mode) or not _LEAST <= size <= self._max_bytes // 2:
                return False
            if ino in self._copying:
                return False
            self._copying.add(ino)
            generation = self._generation
        try:
            backing = self._copied(files, ino, size)
        except OSError as error:
            if not isinstance(error, StoreError) and error.errno in _REFUSALS:
                self.refusal = _REFUSALS[error.errno]
            _log.warning("mount.not_passed_through", inode=ino, error=str(error))
            return False
        except StoreError as error:
            _log.warning("mount.not_passed_through", inode=ino, error=str(error))
            return False
        finally:
            with self._lock:
                self._copying.discard(ino)
        with self._lock:
            plain = _Plain(backing, size)
            self._bytes += size
            if generation != self._generation:
                self._drop(plain)
                return False
            self._plains[ino] = plain
            self._read.pop(ino, None)
            self._make_room()
            return True

    def forget(self) -> None:
        """Forgets all plain files: the mount shows something else now.  Handles keep what they have."""
        with self._lock:
            self._generation += 1
            plains, self._plains = self._plains, OrderedDict()
            self._read.clear()
            for plain in plains.values():
                if not plain.users:
                    self._drop(plain)

    def close(self) -> None:
        """Ends the thread that copies."""
        self.refusal = "the mount has ended"
        if self._thread is not None:
            self._wanted.put(None)

    def _is_wanted(self, files: FileSystem, ino: int) -> bool:
        if self.refusal is not None or ino in self._plains or ino in self._copying:
            return False
        read = self._read.get(ino, 0)
        return read >= _LEAST and read >= _READINGS * files.getattr(ino).size

    def _ask_for(self, files: FileSystem, ino: int) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="passthrough", daemon=True)
            self._thread.start()
        self._wanted.put((files, ino))

    def _run(self) -> None:
        make_way()
        while (wanted := self._wanted.get()) is not None:
            self.keep(*wanted)

    def _copied(self, files: FileSystem, ino: int, size: int) -> int:
        """The number the kernel gives to a copy of a file; the copy lives as long as the kernel has it."""
        space = os.statvfs(self._directory)
        if space.f_bavail * space.f_frsize - size < space.f_blocks * space.f_frsize * _FREE_RATIO:
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(self._directory))
        with tempfile.TemporaryFile(dir=self._directory, buffering=0) as copy:
            copy.truncate(size)
            handle = files.open(ino, os.O_RDONLY, ROOT)
            try:
                for offset in range(0, size, _PIECE):
                    data = files.read(handle, offset, _PIECE)
                    if data[0] or data[-1] or data != bytes(len(data)):
                        write_all(copy.fileno(), data, offset)
            finally:
                files.release(handle)
            backing: int = fcntl.ioctl(self._device, _BACKING_OPEN, bytearray(_MAP.pack(copy.fileno(), 0, 0)), True)
            return backing

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes or len(self._plains) > _MOST_FILES:
            ino = next((ino for ino, plain in self._plains.items() if not plain.users), None)
            if ino is None:
                return
            self._drop(self._plains.pop(ino))

    def _drop(self, plain: _Plain) -> None:
        self._bytes -= plain.size
        try:
            fcntl.ioctl(self._device, _BACKING_CLOSE, struct.pack("<I", plain.backing))
        except OSError as error:
            _log.info("mount.backing_not_closed", error=str(error))
