"""Mending the structure of a namespace: small changes that make its records agree again.

Every round checks the whole structure and mends what it finds, which may uncover more: a name that is taken away
leaves an orphan, an orphan that is found again changes the links of a directory.  Rounds end when nothing is wrong.
"""

from __future__ import annotations

import stat
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from stowstore.index.keys import (
    ENTRY,
    ROOT_INODE,
    SUPERBLOCK,
    XATTR,
    after_prefix,
    entry_key,
    entry_prefix,
    extents_key,
    extents_prefix,
    inode_key,
    inode_of,
    name_of,
)
from stowstore.index.records import (
    INLINE_EXTENTS,
    NAME_BYTES,
    CorruptRecord,
    EntryRecord,
    Extent,
    InodeRecord,
    Superblock,
    pack_extents,
    unpack_extents,
)
from stowstore.versions.errors import VolumeError
from stowstore.versions.salvage import DAMAGE, PathNames, SalvageView
from stowstore.versions.structure import Problem, ProblemKind, StructureCheck

__all__ = ["LOST_FOUND", "Hole", "Mender"]

LOST_FOUND: Final = b"lost+found"

#: Each round leaves less to do; only a hostile index takes more than a few.
_MAX_ROUNDS = 40

#: Extents kept under one key.
_EXTENTS_A_KEY = 64


class Hole(NamedTuple):
    """A range of a file that is lost and reads as zeros now."""

    ino: int
    offset: int
    length: int


class _Name(NamedTuple):
    key: bytes
    kind: int


class Mender:
    """Collects the changes that mend a view; ``changes`` holds them, ``done`` says in words what was done."""

    def __init__(self, view: SalvageView, first_ino: int) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.done: list[str] = []
        self.counters = Superblock()
        self.holes: list[Hole] = []
        self._view = view
        self._next_ino = first_ino
        self._now = time.time_ns()
        self._lost_found: int | None = None
        self._taken: set[bytes] = set()

    def apply(self, changes: dict[bytes, bytes | None]) -> None:
        """Takes changes over."""
        self.changes.update(changes)
        self._view.lay_over(changes)

    def mend(self) -> None:
        """Makes the structure whole.

        Raises:
            VolumeError: it does not become whole.
        """
        for turn in range(_MAX_ROUNDS):
            check = StructureCheck(self._view, first_ino=self._next_ino)
            problems = list(check.problems())
            self.counters = check.counters(self._superblock())
            self._next_ino = max(self._next_ino, self.counters.next_ino)
            if not problems:
                return
            self._round(problems, check, is_first=turn == 0)
        raise VolumeError("the structure cannot be mended", hint="fork an older version that is whole")

    def move_torn(self) -> None:
        """Moves every file that has a hole now to lost+found, under its number and name."""
        torn = {hole.ino for hole in self.holes}
        if not torn:
            return
        paths = PathNames(self._view).of(torn)
        names = self._names(torn)
        for ino in sorted(torn):
            for name in names[ino]:
                if inode_of(name.key) != self._lost_found_ino():
                    self._put(name.key, None)
                    self._adopt(ino, name.kind, b"#%d-%s" % (ino, name_of(name.key)))
            holes = ", ".join(f"{hole.offset}+{hole.length}" for hole in self.holes if hole.ino == ino)
            listed = ", ".join(paths[ino]) or f"inode {ino}"
            self.done.append(f"moved {listed} to lost+found: bytes {holes} are lost")
        self.mend()

    def rebuild_extents(self, ino: int, *, without: frozenset[object] = frozenset()) -> None:
        """Writes the extents of a file anew: in order, within its size, without blocks that are lost."""
        record = self._view.inode(ino)
        if record is None:
            return
        raws = [(inode_key(ino), record.extents)] if record.extents else []
        prefix = extents_prefix(ino)
        old = list(self._view.scan(prefix, after_prefix(prefix)))
        if record.many_extents:
            raws += old
        found: list[Extent] = []
        torn = False
        for _, raw in raws:
            try:
                found += unpack_extents(raw)
            except DAMAGE:
                torn = True
        kept: list[Extent] = []
        end = 0
        for extent in sorted(found, key=lambda extent: extent.offset):
            if extent.block in without:
                self.holes.append(Hole(ino, extent.offset, min(extent.length, max(record.size - extent.offset, 0))))
            elif extent.offset < end:
                torn = True
            elif stat.S_ISREG(record.mode) and extent.offset < record.size:
                length = min(extent.length, record.size - extent.offset)
                kept.append(extent._replace(length=length))
                end = extent.offset + length
        if torn:
            self.holes.append(Hole(ino, 0, record.size))
        self._write_extents(ino, record, kept, [key for key, _ in old])

    def _write_extents(self, ino: int, record: InodeRecord, extents: list[Extent], old: list[bytes]) -> None:
        many = len(extents) > INLINE_EXTENTS
        changes: dict[bytes, bytes | None] = dict.fromkeys(old)
        for start in range(0, len(extents) if many else 0, _EXTENTS_A_KEY):
            part = extents[start : start + _EXTENTS_A_KEY]
            changes[extents_key(ino, part[0].offset)] = pack_extents(part)
        made = msgspec.structs.replace(
            record,
            extents=b"" if many else pack_extents(extents),
            many_extents=many,
            allocated=sum(extent.length for extent in extents),
        )
        changes[inode_key(ino)] = made.encode()
        self.apply(changes)

    def _round(self, problems: list[Problem], check: StructureCheck, *, is_first: bool) -> None:
        names = self._names(problem.ino for problem in problems if problem.ino)
        mended: set[tuple[ProblemKind, int, bytes]] = set()
        for problem in problems:
            key = (problem.kind, problem.ino, problem.key)
            if key not in mended:
                mended.add(key)
                self._mend(problem, names[problem.ino], check)
                # Counters that are wrong later have only been overtaken by what was mended.
                if is_first or problem.kind is not ProblemKind.WRONG_COUNTERS:
                    self.done.append(f"mended: {problem.message}")

    def _mend(self, problem: Problem, names: list[_Name], check: StructureCheck) -> None:
        ino, key = problem.ino, problem.key
        match problem.kind:
            case ProblemKind.NO_ROOT:
                self._put(inode_key(ROOT_INODE), self._directory(ROOT_INODE, 0o755).encode())
            case ProblemKind.BAD_RECORD | ProblemKind.BAD_NAME:
                self._put(key, None)
            case ProblemKind.DANGLING_ENTRY:
                for name in names:
                    self._put(name.key, None)
            case ProblemKind.NO_DIRECTORY:
                prefix = entry_prefix(ino)
                for found, _ in list(self._view.scan(prefix, after_prefix(prefix))):
                    self._put(found, None)
            case ProblemKind.WRONG_TYPE:
                record = self._view.inode(ino)
                for name in names if record else ():
                    assert record is not None
                    self._put(name.key, EntryRecord(ino, stat.S_IFMT(record.mode)).encode())
            case ProblemKind.EXTRA_NAME:
                self._keep_one_name(ino, names)
            case ProblemKind.ORPHAN:
                record = self._view.inode(ino)
                if record is not None:
                    self._adopt(ino, stat.S_IFMT(record.mode), b"#%d" % ino)
            case ProblemKind.CIRCLE:
                for name in names[:1]:
                    self._put(name.key, None)
            case ProblemKind.WRONG_PARENT | ProblemKind.WRONG_NLINK:
                self._mend_links(ino, names)
            case ProblemKind.BAD_EXTENTS | ProblemKind.WRONG_ALLOCATED:
                self.rebuild_extents(ino)
            case ProblemKind.STRAY_RECORD:
                record = self._view.inode(ino)
                if record is not None and key[:1] == XATTR:
                    self._put(inode_key(ino), msgspec.structs.replace(record, xattrs=True).encode())
                else:
                    self._put(key, None)
            case ProblemKind.WRONG_COUNTERS:
                counters = check.counters(self._superblock())
                next_ino = max(counters.next_ino, self._next_ino)
                self._put(SUPERBLOCK, msgspec.structs.replace(counters, next_ino=next_ino).encode())

    def _keep_one_name(self, ino: int, names: list[_Name]) -> None:
        record = self._view.inode(ino)
        parent = None if record is None or ino == ROOT_INODE else record.parent
        kept = None
        if ino != ROOT_INODE:
            kept = next((name for name in names if inode_of(name.key) == parent), names[0] if names else None)
        for name in names:
            if name != kept:
                self._put(name.key, None)

    def _mend_links(self, ino: int, names: list[_Name]) -> None:
        record = self._view.inode(ino)
        if record is None:
            return
        nlink = len(names)
        if stat.S_ISDIR(record.mode):
            nlink = 2 + sum(entry.kind == stat.S_IFDIR for _, entry in self._view.entries(ino))
        parent = record.parent
        if names and inode_of(names[0].key) != parent and stat.S_ISDIR(record.mode):
            parent = inode_of(names[0].key)
        self._put(inode_key(ino), msgspec.structs.replace(record, nlink=nlink, parent=parent).encode())

    def _adopt(self, ino: int, kind: int, name: bytes) -> None:
        """Gives an inode a name in lost+found."""
        home = self._lost_found_ino()
        name = name[:NAME_BYTES]
        number = 0
        wanted = name
        while wanted in self._taken:
            number += 1
            suffix = b".%d" % number
            wanted = name[: NAME_BYTES - len(suffix)] + suffix
        self._taken.add(wanted)
        self._put(entry_key(home, wanted), EntryRecord(ino, kind).encode())
        record = self._view.inode(ino)
        if record is not None and kind == stat.S_IFDIR:
            self._put(inode_key(ino), msgspec.structs.replace(record, parent=home).encode())

    def _lost_found_ino(self) -> int:
        """The directory where things without a place go, made when it is needed."""
        if self._lost_found is None:
            entries = dict(self._view.entries(ROOT_INODE))
            name, number = LOST_FOUND, 0
            while name in entries and entries[name].kind != stat.S_IFDIR:
                number += 1
                name = b"%s.%d" % (LOST_FOUND, number)
            if name in entries:
                self._lost_found = entries[name].ino
                self._taken = {found for found, _ in self._view.entries(self._lost_found)}
            else:
                self._lost_found = self._next_ino
                self._next_ino += 1
                self._put(inode_key(self._lost_found), self._directory(ROOT_INODE, 0o700).encode())
                self._put(entry_key(ROOT_INODE, name), EntryRecord(self._lost_found, stat.S_IFDIR).encode())
        return self._lost_found

    def _directory(self, parent: int, mode: int) -> InodeRecord:
        now = self._now
        return InodeRecord(stat.S_IFDIR | mode, 0, 0, 2, 0, now, now, now, now, parent=parent)

    def _names(self, inos: Iterable[int]) -> defaultdict[int, list[_Name]]:
        """The entries of inodes, in one walk."""
        wanted = set(inos)
        found: defaultdict[int, list[_Name]] = defaultdict(list)
        for key, value in self._view.scan(ENTRY, after_prefix(ENTRY)) if wanted else ():
            try:
                entry = EntryRecord.decode(value)
            except CorruptRecord:
                continue
            if entry.ino in wanted and len(key) >= 9:
                found[entry.ino].append(_Name(key, entry.kind))
        return found

    def _superblock(self) -> Superblock:
        raw = self._view.get(SUPERBLOCK)
        try:
            return Superblock() if raw is None else Superblock.decode(raw)
        except CorruptRecord:
            return Superblock()

    def _put(self, key: bytes, value: bytes | None) -> None:
        self.apply({key: value})
