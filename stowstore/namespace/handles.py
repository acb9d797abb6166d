"""What is open: files with their flags, and directories as they were when they were begun to be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple

from stowstore.index.keys import ENTRY_NAME, entry_key, entry_prefix
from stowstore.index.records import NAME_BYTES, CorruptRecord, EntryRecord
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.inodes import Attributes, Inode
from stowstore.namespace.overlay import DirectoryChanges

__all__ = ["DirectoryEntry", "DirectoryStream", "OpenDirectory", "OpenFile", "directory_entries", "stored_entries"]

_DIRECTORY: Final = 0o040000

_NAME: Final = itemgetter(slice(ENTRY_NAME, None))
_INO: Final = attrgetter("ino")

#: What no entry is called.
_NO_NAMES: Final = frozenset((b"", b".", b".."))

#: Entries between two places a stream can return to.
_STEP: Final = 1024


class OpenFile:
    """An open regular file."""

    __slots__ = ("append", "node", "readable", "writable")

    def __init__(self, node: Inode, flags: int) -> None:
        mode = flags & os.O_ACCMODE
        self.node = node
        self.readable = mode != os.O_WRONLY
        self.writable = mode != os.O_RDONLY
        self.append = bool(flags & os.O_APPEND)


class OpenDirectory:
    """An open directory; what it lists is settled when it is first read, and whenever it is read from the start."""

    __slots__ = ("node", "stream")

    def __init__(self, node: Inode) -> None:
        self.node = node
        self.stream: DirectoryStream | None = None


class DirectoryEntry(NamedTuple):
    """One name of a directory; ``cookie`` is where a listing continues behind it.

    ``kind`` is the file type, the upper four bits of a mode.  ``attributes`` are there when they were asked for and the
    inode still exists.
    """

    name: bytes
    ino: int
    kind: int
    cookie: int
    attributes: Attributes | None = None


class DirectoryStream:
    """The entries of a directory as of one moment, read in pieces and from any cookie given out before.

    It holds the changes of its own directory and the immutable snapshot below, so its memory does not grow with a
    directory that is merely long.  Thread-safe; fetches run without the file system's lock.
    """

    def __init__(self, node: Inode, snapshot: Snapshot | None, changes: DirectoryChanges) -> None:
        self._ino = node.ino
        self._parent = node.parent
        self._snapshot = snapshot
        self._changes = changes
        self._removed = not node.nlink
        self._lock = threading.Lock()
        # The name before every _STEP-th entry, as far as the stream has been read.
        self._marks: list[bytes | None] = [None]
        self._position = 0
        self._entries: Iterator[tuple[bytes, EntryRecord]] = iter(())
        self._last: bytes | None = None
        self._rewind(0)

    def read(self, cookie: int, count: int) -> list[DirectoryEntry]:
        """Up to so many entries behind a cookie; 0 is the start.  An empty list is the end."""
        if self._removed:
            return []
        found: list[DirectoryEntry] = []
        if cookie < 2:
            dots = ((b".", self._ino), (b"..", self._parent))
            found = [DirectoryEntry(name, ino, _DIRECTORY, at + 1) for at, (name, ino) in enumerate(dots)][cookie:]
            found = found[:count]
            cookie += len(found)
        wanted = count - len(found)
        if wanted > 0:
            found += self._read(cookie - 2, wanted)
        return found

    def _read(self, position: int, count: int) -> list[DirectoryEntry]:
        with self._lock:
            if position != self._position:
                self._seek(position)
            found: list[DirectoryEntry] = []
            while count > 0:
                # Up to the next mark only, so that marks are kept without looking at each entry.
                step = min(count, _STEP - self._position % _STEP)
                cookie = self._position + 3
                made = [
                    DirectoryEntry(name, entry.ino, entry.kind, cookie + at)
                    for at, (name, entry) in enumerate(islice(self._entries, step))
                ]
                if not made:
                    break
                found += made
                self._advance(len(made), made[-1].name)
                count -= len(made)
            return found

    def _advance(self, count: int, last: bytes) -> None:
        self._position += count
        self._last = last
        if self._position % _STEP == 0 and self._position // _STEP == len(self._marks):
            self._marks.append(last)

    def _seek(self, position: int) -> None:
        mark = min(position // _STEP, len(self._marks) - 1)
        if position < self._position or mark > self._position // _STEP:
            self._rewind(mark)
        while self._position < position:
            step = min(position - self._position, _STEP - self._position % _STEP)
            skipped = [name for name, _ in islice(self._entries, step)]
            if not skipped:
                break
            self._advance(len(skipped), skipped[-1])

    def _rewind(self, mark: int) -> None:
        self._position = mark * _STEP
        self._entries = directory_entries(self._snapshot, self._ino, self._changes, self._marks[mark])


def directory_entries(
    snapshot: Snapshot | None, ino: int, changes: DirectoryChanges, after: bytes | None = None
) -> Iterator[tuple[bytes, EntryRecord]]:
    """The entries of a directory in the order of their names, changes over the snapshot, behind a name.

    Raises:
        CorruptRecord: the snapshot holds a name that cannot be one.
    """
    stored: Iterator[tuple[bytes, EntryRecord]] = iter(())
    if snapshot is not None:
        start = entry_prefix(ino) if after is None else entry_key(ino, after) + b"\0"
        stored = _stored(snapshot, start, entry_prefix(ino + 1))
    if not changes:
        return stored
    names = sorted(changes) if after is None else sorted(name for name in changes if name > after)
    return _merged(stored, changes, names)


def _stored(snapshot: Snapshot, start: bytes, stop: bytes) -> Iterator[tuple[bytes, EntryRecord]]:
    for names, entries in stored_entries(snapshot, start, stop):
        yield from zip(names, entries, strict=True)


def stored_entries(snapshot: Snapshot, start: bytes, stop: bytes) -> Iterator[tuple[list[bytes], list[EntryRecord]]]:
    """The names and entries of a version between two keys, some hundred at a time.

    Raises:
        CorruptRecord: there is a name that cannot be one, or an entry that cannot.
    """
    for keys, values in snapshot.leaves(start, stop):
        names = list(map(_NAME, keys))
        entries = EntryRecord.decode_all(values)
        # Of all at once, since that is faster.
        together = b"".join(names)
        impossible = b"/" in together or b"\0" in together or not _NO_NAMES.isdisjoint(names)
        if impossible or max(map(len, names)) > NAME_BYTES:
            _refuse_names(names)
        if min(map(_INO, entries)) < 0:
            raise CorruptRecord("a directory of the volume has an entry with an impossible inode")
        yield names, entries


def _refuse_names(names: list[bytes]) -> None:
    """Names the first of names that cannot be one."""
    for name in names:
        if b"/" in name or b"\0" in name or name in _NO_NAMES or len(name) > NAME_BYTES:
            raise CorruptRecord(f"a directory of the volume has an entry with an impossible name: {name[:300]!r}")


def _merged(
    stored: Iterator[tuple[bytes, EntryRecord]], changes: DirectoryChanges, names: list[bytes]
) -> Iterator[tuple[bytes, EntryRecord]]:
    waiting = next(stored, None)
    for name in names:
        while waiting is not None and waiting[0] < name:
            yield waiting
            waiting = next(stored, None)
        if waiting is not None and waiting[0] == name:
            waiting = next(stored, None)
        entry = changes[name]
        if entry is not None:
            yield name, entry
    if waiting is not None:
        yield waiting
        yield from stored
