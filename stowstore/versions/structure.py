"""The invariants of a namespace, checked in one walk over its records.

Entries come first in key order and are kept as 18 bytes each, in sorted runs; inodes, extents and attributes are then
walked together with them by inode number.  So memory grows by 18 bytes a name and some 100 a directory, whatever the
files hold.
"""

from __future__ import annotations

import heapq
import stat
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from stowstore.index.keys import (
    ENTRY,
    EXTENTS,
    INODE,
    ROOT_INODE,
    SUPERBLOCK,
    XATTR,
    after_prefix,
    extents_key,
    inode_key,
    inode_of,
    name_of,
    offset_of,
)
from stowstore.index.records import (
    NAME_BYTES,
    CorruptRecord,
    EntryRecord,
    Extent,
    InodeRecord,
    Superblock,
    unpack_extents,
)
from stowstore.versions.salvage import DAMAGE, SalvageView

__all__ = ["Problem", "ProblemKind", "StructureCheck", "is_good_name"]

_LINK = struct.Struct(">QQH")
_RUN = 1 << 20
_END: Final = 1 << 65
_TYPES = frozenset((stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))


class ProblemKind(StrEnum):
    """What is wrong with a record."""

    NO_ROOT = "no_root"
    BAD_RECORD = "bad_record"
    """It cannot be what its key says."""
    BAD_NAME = "bad_name"
    DANGLING_ENTRY = "dangling_entry"
    """A name of an inode that does not exist."""
    NO_DIRECTORY = "no_directory"
    """Entries of what is no directory, or does not exist."""
    WRONG_TYPE = "wrong_type"
    """An entry says another type than its inode."""
    EXTRA_NAME = "extra_name"
    """A directory has several names, or the root has one."""
    ORPHAN = "orphan"
    """An inode without a name."""
    CIRCLE = "circle"
    """Directories that contain each other, out of reach."""
    WRONG_PARENT = "wrong_parent"
    WRONG_NLINK = "wrong_nlink"
    BAD_EXTENTS = "bad_extents"
    """Extents overlap, reach past the end of the file, or belong to no file."""
    WRONG_ALLOCATED = "wrong_allocated"
    STRAY_RECORD = "stray_record"
    """Extents or attributes of an inode that does not exist, or says it has none."""
    WRONG_COUNTERS = "wrong_counters"


class Problem(NamedTuple):
    """One thing that is wrong: with an inode, or with the record of a key."""

    kind: ProblemKind
    message: str
    ino: int = 0
    key: bytes = b""


class StructureCheck:
    """One check of one view; ``counters`` says afterwards what the superblock should."""

    def __init__(self, view: SalvageView, *, first_ino: int = 0, on_extent: Callable[[Extent], None] | None = None):
        self._view = view
        self._first_ino = first_ino
        self._on_extent = on_extent or _ignore
        self._links = _Links()
        self._parents: array[int] = array("Q")
        self._subdirectories: Counter[int] = Counter()
        self._above: dict[int, int] = {}
        self.inodes = 0
        self.used_bytes = 0
        self.highest_ino = 0

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong, as it is found.

        Raises:
            StoreError: the index cannot be read for another reason than damage.
        """
        yield from self._unknown_keys()
        yield from self._entries()
        yield from self._inodes()
        yield from self._circles()
        yield from self._counters()

    def counters(self, old: Superblock) -> Superblock:
        """The superblock as it should be."""
        return Superblock(
            next_ino=max(old.next_ino, self.highest_ino + 1, ROOT_INODE + 1),
            used_bytes=self.used_bytes,
            inode_count=self.inodes,
            limit_bytes=old.limit_bytes,
            limit_inodes=old.limit_inodes,
        )

    def _unknown_keys(self) -> Iterator[Problem]:
        edges = [b"", ENTRY, after_prefix(ENTRY), EXTENTS, after_prefix(EXTENTS), INODE, after_prefix(INODE)]
        edges += [SUPERBLOCK, SUPERBLOCK + b"\0", XATTR, after_prefix(XATTR)]
        for start, stop in zip(edges[::2], [*edges[1::2], None], strict=True):
            for key, _ in self._view.scan(start, stop):
                yield Problem(ProblemKind.BAD_RECORD, f"a record has the unknown key {key[:40].hex()}", key=key)

    def _entries(self) -> Iterator[Problem]:
        for key, value in self._view.scan(ENTRY, after_prefix(ENTRY)):
            if len(key) < 9:
                yield Problem(ProblemKind.BAD_RECORD, "the key of an entry is cut off", key=key)
                continue
            parent, name = inode_of(key), name_of(key)
            try:
                entry = EntryRecord.decode(value)
                if not (0 < entry.ino < 1 << 64 and 0 <= entry.kind < 1 << 16):
                    raise CorruptRecord("an entry has impossible values")
            except CorruptRecord as error:
                yield Problem(ProblemKind.BAD_RECORD, f"name {name!r} in directory {parent}: {error.message}", key=key)
                continue
            if not is_good_name(name):
                message = f"an entry of directory {parent} has the impossible name {name[:300]!r}"
                yield Problem(ProblemKind.BAD_NAME, message, entry.ino, key)
            if not self._parents or self._parents[-1] != parent:
                self._parents.append(parent)
            self._links.add(entry.ino, parent, entry.kind)
            if entry.kind == stat.S_IFDIR:
                self._subdirectories[parent] += 1

    def _inodes(self) -> Iterator[Problem]:
        view = self._view
        inodes = _Ahead(view.scan(INODE, after_prefix(INODE)))
        extents = _Ahead(view.scan(EXTENTS, after_prefix(EXTENTS)))
        xattrs = _Ahead(view.scan(XATTR, after_prefix(XATTR)))
        links = self._links.sorted()
        link = next(links, None)
        parents = iter(self._parents)
        parent = next(parents, _END)
        while True:
            ino = min(inodes.ino, extents.ino, xattrs.ino, link[0] if link else _END, parent)
            if ino == _END:
                return
            names: list[tuple[int, int]] = []
            while link is not None and link[0] == ino:
                names.append(link[1:])
                link = next(links, None)
            has_entries = parent == ino
            if has_entries:
                parent = next(parents, _END)
            record = None
            for key, value in inodes.take(ino):
                try:
                    if len(key) != 9:
                        raise CorruptRecord("the key of an inode has another length")
                    record = InodeRecord.decode(value)
                    if stat.S_IFMT(record.mode) not in _TYPES:
                        raise CorruptRecord(f"an inode has the impossible mode {record.mode:o}")
                except CorruptRecord as error:
                    record = None if len(key) == 9 else record
                    yield Problem(ProblemKind.BAD_RECORD, f"inode {ino}: {error.message}", ino, key)
            if record is None:
                yield from self._without_inode(ino, names, has_entries, extents, xattrs)
            else:
                yield from self._with_inode(ino, record, names, has_entries, extents, xattrs)

    def _without_inode(
        self, ino: int, names: list[tuple[int, int]], has_entries: bool, extents: _Ahead, xattrs: _Ahead
    ) -> Iterator[Problem]:
        if ino == ROOT_INODE:
            yield Problem(ProblemKind.NO_ROOT, "the root directory does not exist", ino)
        if names:
            yield Problem(ProblemKind.DANGLING_ENTRY, f"inode {ino} has a name and does not exist", ino)
        if has_entries and ino != ROOT_INODE:
            yield Problem(ProblemKind.NO_DIRECTORY, f"there are names in directory {ino}, which does not exist", ino)
        for key, _ in (*extents.take(ino), *xattrs.take(ino)):
            what = "extents" if key[:1] == EXTENTS else "attributes"
            yield Problem(ProblemKind.STRAY_RECORD, f"{what} of inode {ino}, which does not exist", ino, key)

    def _with_inode(
        self,
        ino: int,
        record: InodeRecord,
        names: list[tuple[int, int]],
        has_entries: bool,
        extents: _Ahead,
        xattrs: _Ahead,
    ) -> Iterator[Problem]:
        kind = stat.S_IFMT(record.mode)
        self.inodes += 1
        self.highest_ino = max(self.highest_ino, ino)
        is_directory = kind == stat.S_IFDIR
        if has_entries and not is_directory:
            yield Problem(ProblemKind.NO_DIRECTORY, f"there are names in inode {ino}, which is no directory", ino)
        if any(found != kind for _, found in names):
            yield Problem(ProblemKind.WRONG_TYPE, f"a name of inode {ino} says another type than {kind:o}", ino)
        if ino == ROOT_INODE:
            if not is_directory:
                yield Problem(ProblemKind.NO_ROOT, "the root is no directory", ino)
            if names:
                yield Problem(ProblemKind.EXTRA_NAME, "the root directory has a name", ino)
        elif not names:
            yield Problem(ProblemKind.ORPHAN, f"inode {ino} has no name", ino)
        elif is_directory:
            yield from self._directory(ino, record, names)
        nlink = 2 + self._subdirectories[ino] if is_directory else len(names)
        if (names or ino == ROOT_INODE) and record.nlink != nlink:
            yield Problem(ProblemKind.WRONG_NLINK, f"inode {ino} counts {record.nlink} links and has {nlink}", ino)
        yield from self._content(ino, record, extents)
        for key, _ in xattrs.take(ino):
            if not record.xattrs:
                message = f"attributes of inode {ino}, which says it has none"
                yield Problem(ProblemKind.STRAY_RECORD, message, ino, key)

    def _directory(self, ino: int, record: InodeRecord, names: list[tuple[int, int]]) -> Iterator[Problem]:
        parent = names[0][0]
        if len(names) > 1:
            yield Problem(ProblemKind.EXTRA_NAME, f"directory {ino} has {len(names)} names", ino)
        elif record.parent != parent:
            message = f"directory {ino} lies in {parent} and says it lies in {record.parent}"
            yield Problem(ProblemKind.WRONG_PARENT, message, ino)
        self._above[ino] = parent

    def _content(self, ino: int, record: InodeRecord, extents: _Ahead) -> Iterator[Problem]:
        pieces: Iterator[tuple[bytes, bytes]] = extents.take(ino)
        if not record.many_extents:
            for key, _ in pieces:
                message = f"extents of inode {ino}, which says it has none there"
                yield Problem(ProblemKind.STRAY_RECORD, message, ino, key)
            pieces = iter(((extents_key(ino, 0), record.extents),)) if record.extents else iter(())
        elif record.extents:
            yield Problem(ProblemKind.BAD_EXTENTS, f"inode {ino} has extents in two places", ino, inode_key(ino))
        end = covered = 0
        for key, raw in pieces:
            try:
                if len(key) != 17:
                    raise CorruptRecord("the key of extents has another length")
                for extent in unpack_extents(raw):
                    if extent.offset < max(end, offset_of(key)):
                        raise CorruptRecord("extents overlap")
                    end = extent.offset + extent.length
                    covered += extent.length
                    self._on_extent(extent)
            except DAMAGE as error:
                where = inode_key(ino) if not record.many_extents else key
                yield Problem(ProblemKind.BAD_EXTENTS, f"inode {ino}: {error.message}", ino, where)
        if end and not stat.S_ISREG(record.mode):
            yield Problem(ProblemKind.BAD_EXTENTS, f"inode {ino} is no file and has extents", ino)
        elif end > record.size:
            message = f"inode {ino} has extents up to {end}, past its size of {record.size}"
            yield Problem(ProblemKind.BAD_EXTENTS, message, ino)
        if covered != record.allocated:
            message = f"inode {ino} counts {record.allocated} bytes and has {covered}"
            yield Problem(ProblemKind.WRONG_ALLOCATED, message, ino)
        self.used_bytes += covered

    def _circles(self) -> Iterator[Problem]:
        """Directories that are reached from none: every walk upwards has to end outside of the known ones."""
        above = self._above
        done: set[int] = set()
        for ino in above:
            path: list[int] = []
            current = ino
            on_path: set[int] = set()
            while current in above and current not in done and current not in on_path:
                path.append(current)
                on_path.add(current)
                current = above[current]
            if current in on_path:
                circle = path[path.index(current) :]
                listed = ", ".join(map(str, circle[:10]))
                yield Problem(ProblemKind.CIRCLE, f"directories contain each other: {listed}", min(circle))
            done |= on_path

    def _counters(self) -> Iterator[Problem]:
        raw = self._view.get(SUPERBLOCK)
        try:
            found = None if raw is None else Superblock.decode(raw)
        except CorruptRecord as error:
            yield Problem(ProblemKind.WRONG_COUNTERS, error.message, key=SUPERBLOCK)
            return
        if found is None:
            yield Problem(ProblemKind.WRONG_COUNTERS, "there is no superblock", key=SUPERBLOCK)
        elif (found.inode_count, found.used_bytes) != (self.inodes, self.used_bytes):
            message = (
                f"the superblock counts {found.inode_count} inodes and {found.used_bytes} bytes, "
                f"there are {self.inodes} and {self.used_bytes}"
            )
            yield Problem(ProblemKind.WRONG_COUNTERS, message, key=SUPERBLOCK)
        elif max(found.next_ino, self._first_ino) <= self.highest_ino:
            message = f"the next inode would be {found.next_ino}, and there is {self.highest_ino} already"
            yield Problem(ProblemKind.WRONG_COUNTERS, message, key=SUPERBLOCK)


def is_good_name(name: bytes) -> bool:
    """Whether a directory may have an entry of this name."""
    return 0 < len(name) <= NAME_BYTES and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


class _Links:
    """Every entry by the inode it names, sorted in runs."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._runs: list[bytes] = []

    def add(self, ino: int, parent: int, kind: int) -> None:
        self._open.append(_LINK.pack(ino, parent, kind))
        if len(self._open) >= _RUN:
            self._close()

    def sorted(self) -> Iterator[tuple[int, int, int]]:
        self._close()
        return heapq.merge(*map(_LINK.iter_unpack, self._runs))

    def _close(self) -> None:
        self._open.sort()
        self._runs.append(b"".join(self._open))
        self._open = []


class _Ahead:
    """Records by inode, one of them looked at ahead."""

    def __init__(self, pairs: Iterator[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._next: tuple[bytes, bytes] | None = None
        self.ino = 0
        self._step()

    def take(self, ino: int) -> Iterator[tuple[bytes, bytes]]:
        """The records of an inode, which has to be the next one or none of these."""
        while self.ino == ino:
            assert self._next is not None
            found = self._next
            self._step()
            yield found

    def _step(self) -> None:
        self._next = next(self._pairs, None)
        if self._next is None:
            self.ino = _END
        else:
            # A key that is cut off counts for the first inode it could be of.
            self.ino = int.from_bytes(self._next[0][1:9].ljust(8, b"\0"), "big")


def _ignore(extent: Extent) -> None:
    """Forgets an extent."""
