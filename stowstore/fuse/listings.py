"""Listings: directories as streams of entries, each reply as full as it can be."""

from __future__ import annotations

from typing import Final

from stowstore.chunks.patience import WouldWait, must_not_wait
from stowstore.fuse.options import FuseOptions
from stowstore.fuse.wire import DIRENT, ENTRY, NO_ATTR, entry_tail
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.handles import DirectoryEntry

__all__ = ["Listings"]

#: Entries fetched at a time; what one reply does not hold waits for the next.
_BATCH: Final = 512

_NOTHING: Final = bytes(ENTRY.size) + NO_ATTR
_PLUS: Final = len(_NOTHING)
_PAD: Final = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")


class Listings:
    """Open listings by handle.  A handle is read by one thread at a time, as the kernel does."""

    def __init__(self, options: FuseOptions) -> None:
        self._tail = entry_tail(options.entry_seconds, options.attr_seconds)
        #: Entries that were read and not delivered yet.
        self._waiting: dict[int, list[DirectoryEntry]] = {}

    def forget(self, handle: int) -> None:
        """Ends a listing."""
        self._waiting.pop(handle, None)

    def plain(self, files: FileSystem, handle: int, offset: int, room: int) -> bytes:
        """Names, numbers and kinds behind an offset."""
        entries, padded = self._fitting(files, handle, offset, room, DIRENT.size)
        out: list[bytes] = []
        for (name, ino, kind, cookie, _), pad in zip(entries, padded, strict=True):
            out += (DIRENT.pack(ino, cookie, len(name), kind >> 12), name, pad)
        return b"".join(out)

    def plus(self, files: FileSystem, node: int, handle: int, offset: int, room: int) -> bytes:
        """The same with attributes, each of which counts as a lookup."""
        entries, padded = self._fitting(files, handle, offset, room, _PLUS + DIRENT.size)
        out: list[bytes] = []
        tail = self._tail
        try:
            attributes = files.present(node, entries)
        except WouldWait:
            self._waiting[handle] = entries + self._waiting[handle]
            raise
        for (name, ino, kind, cookie, _), found, pad in zip(entries, attributes, padded, strict=True):
            if found is None:
                out += (_NOTHING, DIRENT.pack(ino, cookie, len(name), kind >> 12), name, pad)
            else:
                out += (
                    found[:8],
                    tail,
                    found,
                    DIRENT.pack(ino, cookie, len(name), kind >> 12),
                    name,
                    pad,
                )
        return b"".join(out)

    def _fitting(
        self, files: FileSystem, handle: int, offset: int, room: int, overhead: int
    ) -> tuple[list[DirectoryEntry], list[bytes]]:
        """The entries behind an offset that a reply has room for, with the padding of their names."""
        waiting = self._waiting.get(handle)
        if not waiting or not offset or waiting[0].cookie != offset + 1:
            if must_not_wait() and files.may_wait_for_listing(handle):
                raise WouldWait
            waiting = files.readdir(handle, offset, _BATCH)
        taken = 0
        padded: list[bytes] = []
        for entry in waiting:
            length = len(entry.name)
            room -= overhead + ((length + 7) & ~7)
            if room < 0:
                break
            padded.append(_PAD[length & 7])
            taken += 1
        entries, self._waiting[handle] = waiting[:taken], waiting[taken:]
        return entries, padded
