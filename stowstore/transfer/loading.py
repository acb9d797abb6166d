"""Taking small files into a volume many at a time: their blocks first, then all their names."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from stowstore.chunks.writer import PendingBlock
from stowstore.namespace.errors import posix_error
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.loading import LoadedFile

__all__ = ["FileLoader"]

#: Files and bytes that are taken before they get their names.
_MOST_FILES: Final = 8192
_MOST_BYTES: Final = 128 << 20


class FileLoader:
    """Gathers small files; they are in the volume after a `flush`, in the order given.  Not thread-safe."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._writer = files.block_writer
        self._waiting: list[_Waiting] = []
        self._bytes = 0

    def add(
        self,
        parent: int,
        name: bytes,
        data: bytes,
        *,
        mode: int,
        uid: int,
        gid: int,
        atime_ns: int,
        mtime_ns: int,
        xattrs: Mapping[bytes, bytes],
    ) -> None:
        """Takes a file of at most a block.

        Raises:
            StoreError: packs cannot be put; files before it may have no names yet.
            OSError: the volume cannot take it, or one before it; EROFS where it is open for reading only.
        """
        if self._writer is None:
            raise posix_error(errno.EROFS)
        size = len(data)
        # What is all zeros is a hole, as it is for every other writer.
        pending = self._writer.add(data) if size and (data[0] or data[-1] or data != bytes(size)) else None
        self._waiting.append(
            _Waiting(parent, pending, LoadedFile(name, mode, uid, gid, atime_ns, mtime_ns, size, None, (), xattrs))
        )
        self._bytes += size
        if len(self._waiting) >= _MOST_FILES or self._bytes >= _MOST_BYTES:
            self.flush()

    def add_stored(self, parent: int, file: LoadedFile) -> None:
        """Takes a file whose blocks are in the store already, by whoever put them there.

        Raises:
            StoreError, OSError: as `add`.
        """
        if self._writer is None:
            raise posix_error(errno.EROFS)
        self._waiting.append(_Waiting(parent, None, file))
        if len(self._waiting) >= _MOST_FILES:
            self.flush()

    def flush(self) -> None:
        """Returns when everything added has its name.

        Raises:
            StoreError, OSError: as `add`.
        """
        waiting, self._waiting = self._waiting, []
        self._bytes = 0
        if not waiting:
            return
        self._writer.flush()
        for parent, group in groupby(waiting, attrgetter("parent")):
            self._files.load_files(
                parent,
                [file if pending is None else file._replace(block=pending.ref) for _, pending, file in group],
            )


class _Waiting(NamedTuple):
    parent: int
    pending: PendingBlock | None
    file: LoadedFile
