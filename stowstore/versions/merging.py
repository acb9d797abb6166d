"""Merging forks: three-way, by path, with every conflict told.

Both sides grew from one past, and inodes made since have different numbers on the two sides (forks number theirs from a
random distance on).  What only one side changed is taken; directories both sides changed are joined entry by entry,
also where both made one of the same name.  What both changed differently is a conflict, decided for our side, for
theirs, or not at all.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from enum import StrEnum

import msgspec
from attrs import define, field, frozen

from stowstore.index import keys
from stowstore.index.merge import three_way
from stowstore.index.records import EntryRecord, InodeRecord, Superblock
from stowstore.index.snapshot import Snapshot
from stowstore.versions.changes import PathFinder
from stowstore.versions.errors import MergeConflict

__all__ = ["Conflicts", "MergeResult", "merge_snapshots"]


class Conflicts(StrEnum):
    """What to do where both sides changed the same path differently."""

    FAIL = "fail"
    OURS = "ours"
    THEIRS = "theirs"


@frozen
class MergeResult:
    """What merging comes to: records to change on our side, and the paths that were in conflict."""

    changes: dict[bytes, bytes | None]
    conflicts: tuple[str, ...]


def merge_snapshots(
    base: Snapshot, ours: Snapshot, theirs: Snapshot, conflicts: Conflicts = Conflicts.FAIL
) -> MergeResult:
    """What to change on our side to take in theirs; both come from ``base``.

    Raises:
        MergeConflict: with ``Conflicts.FAIL``, naming every path both sides changed differently.
    """
    merge = _Merge(base, ours, theirs, conflicts)
    merge.run()
    if merge.paths and conflicts is Conflicts.FAIL:
        paths = tuple(sorted(merge.paths))
        shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        raise MergeConflict(
            f"both sides changed {shown}",
            paths=paths,
            hint="decide with conflicts='ours' or 'theirs', or change one side first",
        )
    return MergeResult(merge.changes, tuple(sorted(merge.paths)))


@define(eq=False)
class _Merge:
    base: Snapshot
    ours: Snapshot
    theirs: Snapshot
    policy: Conflicts
    changes: dict[bytes, bytes | None] = field(factory=dict)
    paths: set[str] = field(factory=set)
    #: Their directories that became one with ours of the same name.
    joined: dict[int, int] = field(factory=dict)
    #: Inodes of theirs whose records are to be taken, or to be left.
    refused: set[int] = field(factory=set)

    def run(self) -> None:
        found = three_way(self.base, self.ours, self.theirs)
        incoming = {**found.changes, **{conflict.key: conflict.theirs for conflict in found.conflicts}}
        both = {conflict.key for conflict in found.conflicts}
        entries = {key: value for key, value in incoming.items() if key[:1] == keys.ENTRY}
        self._entries(entries, both)
        for key in sorted(incoming):
            if key[:1] in (keys.INODE, keys.EXTENTS, keys.XATTR):
                self._record(key, incoming[key], key in both)
        self._settle()
        self._superblock()

    # -- entries --------------------------------------------------------------------------------------------------

    def _entries(self, entries: dict[bytes, bytes | None], both: set[bytes]) -> None:
        """Takes their entries, parents before what lies in them, so that joined directories are known in time."""
        waiting = sorted(entries)
        while waiting:
            later: list[bytes] = []
            for key in waiting:
                parent = keys.inode_of(key)
                if self._is_new_directory(parent) and parent not in self.joined and self._entry_waits(parent, entries):
                    later.append(key)
                else:
                    self._entry(key, entries.pop(key), key in both)
            if len(later) == len(waiting):
                for key in later:
                    self._entry(key, entries.pop(key), key in both)
                return
            waiting = later

    def _entry_waits(self, ino: int, entries: dict[bytes, bytes | None]) -> bool:
        return any(value is not None and EntryRecord.decode(value).ino == ino for value in entries.values())

    def _is_new_directory(self, ino: int) -> bool:
        return self.base.get(keys.inode_key(ino)) is None

    def _entry(self, key: bytes, value: bytes | None, both: bool) -> None:
        parent = keys.inode_of(key)
        target = self.joined.get(parent, parent)
        here = keys.entry_key(target, keys.name_of(key))
        if parent in self.refused:
            if value is not None:
                self.refused.add(EntryRecord.decode(value).ino)
            return
        mine = self.ours.get(here)
        if target != parent:
            both = mine is not None
        if not both or mine == value:
            self.changes[here] = value
            return
        if value is not None and mine is not None:
            their_entry, my_entry = EntryRecord.decode(value), EntryRecord.decode(mine)
            if self._both_directories(their_entry.ino, my_entry.ino):
                self.joined[their_entry.ino] = my_entry.ino
                return
        self._conflict(
            self.ours if mine is not None else self.theirs, target if mine is not None else parent, keys.name_of(key)
        )
        if self.policy is Conflicts.THEIRS:
            self.changes[here] = value
        elif value is not None:
            self.refused.add(EntryRecord.decode(value).ino)

    def _both_directories(self, theirs: int, ours: int) -> bool:
        left, right = self._inode(self.theirs, theirs), self._inode(self.ours, ours)
        return left is not None and right is not None and stat.S_ISDIR(left.mode) and stat.S_ISDIR(right.mode)

    def _conflict(self, snapshot: Snapshot, parent: int, name: bytes) -> None:
        path = PathFinder(snapshot).child(parent, name)
        self.paths.add((path if path is not None else name).decode("utf-8", "surrogateescape"))

    # -- inodes and what belongs to them -----------------------------------------------------------------------------

    def _record(self, key: bytes, value: bytes | None, both: bool) -> None:
        ino = keys.inode_of(key)
        if ino in self.refused or ino in self.joined:
            return
        if not both and not self._decided_for_us(ino):
            self.changes[key] = value
            return
        if key[:1] == keys.INODE:
            mine = self.ours.get(key)
            if mine is not None and value is not None:
                merged = self._merged_directory(ino, mine, value)
                if merged is not None:
                    self.changes[key] = merged
                    return
            self._inode_conflict(ino)
        if self.policy is Conflicts.THEIRS:
            self.changes[key] = value

    def _decided_for_us(self, ino: int) -> bool:
        """Whether the inode itself is in conflict and ours was kept: then nothing of theirs may mix in."""
        if self.policy is not Conflicts.OURS:
            return False
        was, mine, other = (snapshot.get(keys.inode_key(ino)) for snapshot in (self.base, self.ours, self.theirs))
        if mine == was or other in (mine, was):
            return False
        record = None if mine is None else InodeRecord.decode(mine)
        return record is None or not stat.S_ISDIR(record.mode)

    def _merged_directory(self, ino: int, mine: bytes, other: bytes) -> bytes | None:
        """A directory both sides changed: newest times, and the attributes of whichever side changed them."""
        left, right = InodeRecord.decode(mine), InodeRecord.decode(other)
        base = self._inode(self.base, ino)
        if base is None or not (stat.S_ISDIR(left.mode) and stat.S_ISDIR(right.mode)):
            return None
        attributes = {}
        for name in ("mode", "uid", "gid"):
            was, ours, theirs = (getattr(record, name) for record in (base, left, right))
            if ours != was and theirs not in (was, ours):
                return None
            attributes[name] = theirs if ours == was else ours
        return msgspec.structs.replace(
            left,
            mtime_ns=max(left.mtime_ns, right.mtime_ns),
            ctime_ns=max(left.ctime_ns, right.ctime_ns),
            parent=right.parent if left.parent == base.parent else left.parent,
            xattrs=left.xattrs or right.xattrs,
            **attributes,
        ).encode()

    def _inode_conflict(self, ino: int) -> None:
        for snapshot in (self.ours, self.theirs):
            path = PathFinder(snapshot).path(ino)
            if path is not None:
                self.paths.add(path.decode("utf-8", "surrogateescape"))
                return

    # -- what must be true afterwards ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Makes link counts true, and drops inodes and subtrees that no entry leads to any more."""
        links: dict[int, int] = {}
        subdirectories: dict[int, int] = {}
        waiting = sorted(key for key in self.changes if key[:1] == keys.ENTRY)
        while waiting:
            key = waiting.pop()
            self._count(key, self.ours.get(key), -1, links, subdirectories)
            self._count(key, self.changes[key], +1, links, subdirectories)
        for ino, delta in sorted(links.items()):
            record = self._inode(self.ours, ino)
            known = 0 if record is None else (1 if stat.S_ISDIR(record.mode) else record.nlink)
            self._relink(ino, known + delta)
        for ino, delta in sorted(subdirectories.items()):
            record = self._now(ino)
            if record is not None:
                mine = self._inode(self.ours, ino)
                base = 2 if mine is None else mine.nlink
                self.changes[keys.inode_key(ino)] = msgspec.structs.replace(record, nlink=base + delta).encode()

    def _count(
        self, key: bytes, value: bytes | None, step: int, links: dict[int, int], subdirectories: dict[int, int]
    ) -> None:
        if value is None:
            return
        ino = EntryRecord.decode(value).ino
        links[ino] = links.get(ino, 0) + step
        record = self._now(ino) or self._inode(self.ours, ino) or self._inode(self.theirs, ino)
        if record is not None and stat.S_ISDIR(record.mode):
            parent = keys.inode_of(key)
            subdirectories[parent] = subdirectories.get(parent, 0) + step

    def _relink(self, ino: int, count: int) -> None:
        record = self._now(ino) or self._inode(self.ours, ino) or self._inode(self.theirs, ino)
        if record is None:
            return
        if count <= 0:
            self._drop(ino, record)
            return
        if self._now(ino) is None:
            # Removed on one side, kept or linked anew on the other: it lives on with the content it had there.
            for key, value in self._belongings(self.theirs, ino):
                self.changes[key] = value
            record = self._inode(self.theirs, ino) or record
        if not stat.S_ISDIR(record.mode) and record.nlink != count:
            self.changes[keys.inode_key(ino)] = msgspec.structs.replace(record, nlink=count).encode()

    def _drop(self, ino: int, record: InodeRecord) -> None:
        for snapshot in (self.ours, self.theirs):
            for key, _ in self._belongings(snapshot, ino):
                self.changes[key] = None
        if stat.S_ISDIR(record.mode):
            prefix = keys.entry_prefix(ino)
            for snapshot in (self.ours, self.theirs):
                for key, value in list(snapshot.scan(prefix, keys.after_prefix(prefix))):
                    self.changes[key] = None
                    child = EntryRecord.decode(value).ino
                    below = self._inode(snapshot, child)
                    if below is not None and not self._linked_elsewhere(child, key):
                        self._drop(child, below)

    def _linked_elsewhere(self, ino: int, key: bytes) -> bool:
        return any(
            value is not None and other != key and other[:1] == keys.ENTRY and EntryRecord.decode(value).ino == ino
            for other, value in self.changes.items()
        )

    def _belongings(self, snapshot: Snapshot, ino: int) -> Iterator[tuple[bytes, bytes]]:
        raw = snapshot.get(keys.inode_key(ino))
        if raw is not None:
            yield keys.inode_key(ino), raw
        for prefix in (keys.extents_prefix(ino), keys.xattr_prefix(ino)):
            yield from snapshot.scan(prefix, keys.after_prefix(prefix))

    def _inode(self, snapshot: Snapshot, ino: int) -> InodeRecord | None:
        raw = snapshot.get(keys.inode_key(ino))
        return None if raw is None else InodeRecord.decode(raw)

    def _now(self, ino: int) -> InodeRecord | None:
        """The inode as merged so far."""
        key = keys.inode_key(ino)
        raw = self.changes[key] if key in self.changes else self.ours.get(key)
        return None if raw is None else InodeRecord.decode(raw)

    def _superblock(self) -> None:
        base, ours, theirs = (
            Superblock() if raw is None else Superblock.decode(raw)
            for raw in (side.get(keys.SUPERBLOCK) for side in (self.base, self.ours, self.theirs))
        )
        inodes = 0
        for key, value in self.changes.items():
            if key[:1] == keys.INODE:
                inodes += (value is not None) - (self.ours.get(key) is not None)
        merged = Superblock(
            next_ino=max(ours.next_ino, theirs.next_ino),
            used_bytes=max(0, ours.used_bytes + theirs.used_bytes - base.used_bytes),
            inode_count=ours.inode_count + inodes,
            limit_bytes=ours.limit_bytes,
            limit_inodes=ours.limit_inodes,
        )
        if merged != ours:
            self.changes[keys.SUPERBLOCK] = merged.encode()
