"""Listings and attributes, as `os.scandir` and `os.stat` give them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, AnyStr, Final, Generic, Self

from attrs import frozen

from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.handles import DirectoryEntry
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.quota import BLOCK_SIZE
from stowstore.volumes.paths import as_texts

if TYPE_CHECKING:
    from stowstore.volumes.files import Files

__all__ = ["DirEntry", "Scan", "stat_result"]

_BATCH: Final = 4096


@frozen
class DirEntry(Generic[AnyStr]):
    """One name of a directory, as `os.scandir` gives them; its type is known without another look."""

    name: AnyStr
    path: AnyStr
    _entry: DirectoryEntry
    _files: Files

    def inode(self) -> int:
        return self._entry.ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._is(stat.S_IFDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._is(stat.S_IFREG, follow_symlinks)

    def is_symlink(self) -> bool:
        return self._entry.kind == stat.S_IFLNK

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        attributes = self._entry.attributes
        if attributes is None or (follow_symlinks and self.is_symlink()):
            return self._files.stat(self.path, follow_symlinks=follow_symlinks)
        return stat_result(attributes)

    def __fspath__(self) -> AnyStr:
        return self.path

    def _is(self, kind: int, follow: bool) -> bool:
        if follow and self.is_symlink():
            try:
                return stat.S_IFMT(self._files.stat(self.path).st_mode) == kind
            except FileNotFoundError:
                return False
        return self._entry.kind == kind


class Scan(Iterator[DirEntry[Any]]):
    """What `Files.scandir` gives."""

    def __init__(self, files: Files, source: Callable[[], FileSystem], handle: int, path: str | bytes) -> None:
        self._files = files
        self._source = source
        self._handle: int | None = handle
        self._cookie = 0
        # What a path in the directory begins with.
        self._above: Any = os.path.join(path, b"") if isinstance(path, bytes) else os.path.join(path, "")
        self._batch: Iterator[DirEntry[Any]] = iter(())

    def __next__(self) -> DirEntry[Any]:
        while True:
            for entry in self._batch:
                return entry
            if self._handle is None:
                raise StopIteration
            found = self._source().readdirplus(self._handle, self._cookie, _BATCH)
            if not found:
                self.close()
                raise StopIteration
            self._cookie = found[-1].cookie
            self._batch = self._shown([entry for entry in found if entry.name not in (b".", b"..")])

    def _shown(self, entries: list[DirectoryEntry]) -> Iterator[DirEntry[Any]]:
        above, files = self._above, self._files
        names: list[Any] = [entry.name for entry in entries]
        if not isinstance(above, bytes):
            names = as_texts(names)
        for name, entry in zip(names, entries, strict=True):
            yield DirEntry(name, above + name, entry, files)

    def close(self) -> None:
        """Ends the listing; doing it again does nothing."""
        handle, self._handle = self._handle, None
        self._batch = iter(())
        if handle is not None:
            self._source().releasedir(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._handle is not None:
            try:
                self.close()
            except Exception:  # noqa: BLE001 - the volume is closed, and its handles with it
                self._handle = None


def stat_result(found: Attributes) -> os.stat_result:
    seconds = (found.atime_ns / 1e9, found.mtime_ns / 1e9, found.ctime_ns / 1e9)
    whole = tuple(ns // 1_000_000_000 for ns in (found.atime_ns, found.mtime_ns, found.ctime_ns))
    return os.stat_result(
        (found.mode, found.ino, 0, found.nlink, found.uid, found.gid, found.size, *whole),
        {
            "st_atime": seconds[0],
            "st_mtime": seconds[1],
            "st_ctime": seconds[2],
            "st_atime_ns": found.atime_ns,
            "st_mtime_ns": found.mtime_ns,
            "st_ctime_ns": found.ctime_ns,
            "st_blksize": BLOCK_SIZE,
            "st_blocks": found.blocks,
            "st_rdev": found.rdev,
        },
    )
