"""Taking small files into a volume many at a time: their blocks first, then all their names."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

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
        #: Files in the order given, those of one directory that came together in one list.
        self._waiting: list[tuple[int, list[LoadedFile]]] = []
        self._count = self._bytes = 0

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
        self._bytes += size
        self._wait(parent, LoadedFile(name, mode, uid, gid, atime_ns, mtime_ns, size, pending, (), xattrs))

    def add_stored(self, parent: int, file: LoadedFile) -> None:
        """Takes a file whose blocks are in the store already, by whoever put them there.

        Raises:
            StoreError, OSError: as `add`.
        """
        if self._writer is None:
            raise posix_error(errno.EROFS)
        self._wait(parent, file)

    def flush(self) -> None:
        """Returns when everything added has its name.

        Raises:
            StoreError, OSError: as `add`.
        """
        waiting, self._waiting = self._waiting, []
        self._count = self._bytes = 0
        if not waiting:
            return
        assert self._writer is not None
        self._writer.flush()
        for parent, files in waiting:
            self._files.load_files(parent, files)

    def _wait(self, parent: int, file: LoadedFile) -> None:
        if self._waiting and self._waiting[-1][0] == parent:
            self._waiting[-1][1].append(file)
        else:
            self._waiting.append((parent, [file]))
        self._count += 1
        if self._count >= _MOST_FILES or self._bytes >= _MOST_BYTES:
            self.flush()
