"""The directories that hold most, from the index and what has changed since: no file is looked at."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, frozen

from stowstore.index.keys import ENTRY, INODE, ROOT_INODE, after_prefix, inode_of, name_of
from stowstore.index.records import EntryRecord, InodeRecord
from stowstore.namespace.committing import Changes
from stowstore.namespace.filesystem import FileSystem

__all__ = ["STEP", "DirectorySize", "DirectorySum", "directory_sums", "largest_directories"]

#: How many records are read between two words of progress.
STEP: Final = 4096


@frozen(kw_only=True)
class DirectorySize:
    """What lies below a directory: bytes as quotas count them, and names of files."""

    path: bytes
    size: int
    files: int


def largest_directories(files: FileSystem, count: int, top: int = ROOT_INODE) -> list[DirectorySize]:
    """The directories below one, itself included, that hold most; changes that are not committed count.

    Two passes over the index, and memory for the directories only.
    """
    sums = directory_sums(files.changes())
    inside = [ino for ino in sums if _is_below(sums, ino, top)]
    inside.sort(key=lambda ino: (-sums[ino].size, -sums[ino].files, ino))
    return [
        DirectorySize(path=b"/" + _path(sums, ino), size=sums[ino].size, files=sums[ino].files)
        for ino in inside[:count]
    ]


def directory_sums(changed: Changes, told: Callable[[int], None] | None = None) -> dict[int, DirectorySum]:
    """What lies below every directory, by its inode.

    ``told`` hears after every `STEP` records how many were read, of twice as many as there are inodes; what it raises
    ends this.
    """
    sums: dict[int, DirectorySum] = {ROOT_INODE: DirectorySum()}
    names: Counter[int] = Counter()
    done = 0
    for parent, name, entry in _entries(changed):
        if stat.S_ISDIR(entry.kind):
            sums[entry.ino] = DirectorySum(parent=parent, name=name)
        else:
            names[parent] += 1
        done += 1
        if told is not None and done % STEP == 0:
            told(done)
    for parent, size in _files(changed):
        if parent in sums:
            sums[parent].size += size
        done += 1
        if told is not None and done % STEP == 0:
            told(done)
    for ino, number in names.items():
        if ino in sums:
            sums[ino].files += number
    for ino in sorted(sums, key=lambda found: _depth(sums, found), reverse=True):
        found = sums[ino]
        if ino != ROOT_INODE and found.parent in sums:
            sums[found.parent].size += found.size
            sums[found.parent].files += found.files
    return sums


@define
class DirectorySum:
    """What lies in a directory: right in it, and then below it too."""

    size: int = 0
    files: int = 0
    parent: int = 0
    name: bytes = b""
    #: How deep it lies, -1 until it is known.
    depth: int = -1


def _entries(changed: Changes) -> Iterator[tuple[int, bytes, EntryRecord]]:
    for key, value in changed.snapshot.scan(ENTRY, after_prefix(ENTRY)):
        parent, name = inode_of(key), name_of(key)
        if name not in changed.entries.get(parent, {}):
            yield parent, name, EntryRecord.decode(value)
    for parent, entries in changed.entries.items():
        for name, entry in entries.items():
            if entry is not None:
                yield parent, name, entry


def _files(changed: Changes) -> Iterator[tuple[int, int]]:
    """The parent and the size of every inode that is no directory."""
    for key, value in changed.snapshot.scan(INODE, after_prefix(INODE)):
        if inode_of(key) not in changed.sizes:
            record = InodeRecord.decode(value)
            if not stat.S_ISDIR(record.mode):
                yield record.parent, record.allocated
    for found in changed.sizes.values():
        if found is not None:
            yield found


def _depth(sums: dict[int, DirectorySum], ino: int) -> int:
    chain = []
    while ino in sums and sums[ino].depth < 0 and ino != ROOT_INODE:
        # A circle, which a damaged index may have, ends here too.
        sums[ino].depth = 0
        chain.append(ino)
        ino = sums[ino].parent
    depth = sums[ino].depth if ino in sums and ino != ROOT_INODE else 0
    for found in reversed(chain):
        depth += 1
        sums[found].depth = depth
    return depth


def _is_below(sums: dict[int, DirectorySum], ino: int, top: int) -> bool:
    for _ in range(_depth(sums, ino)):
        if ino == top:
            return True
        ino = sums[ino].parent
        if ino not in sums:
            return False
    return ino == top


def _path(sums: dict[int, DirectorySum], ino: int) -> bytes:
    names: list[bytes] = []
    for _ in range(_depth(sums, ino)):
        names.append(sums[ino].name)
        ino = sums[ino].parent
    return b"/".join(reversed(names))
