"""Merging forks: three-way, by path, with every conflict told.

Both sides grew from one past, and inodes made since have different numbers on the two sides (forks number theirs from a
random distance on).  What only one side changed is taken; directories both sides changed are joined entry by entry,
also where both made one of the same name.  What both changed differently is a conflict, decided for our side, for
theirs, or not at all.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

import msgspec
from attrs import define, field, frozen

from stowstore.index import keys
from stowstore.index.merge import three_way
from stowstore.index.records import EntryRecord, InodeRecord, Superblock, unpack_extents
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
    #: Directories that were moved, or whose move was taken back, and where they lie now.
    lies_in: dict[int, int] = field(factory=dict)

    def run(self) -> None:
        found = three_way(self.base, self.ours, self.theirs)
        incoming = {**found.changes, **{conflict.key: conflict.theirs for conflict in found.conflicts}}
        both = {conflict.key for conflict in found.conflicts}
        entries = {key: value for key, value in incoming.items() if key[:1] == keys.ENTRY}
        self._entries(entries, both)
        self._uncross()
        self._records(incoming, both)
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

    # -- directories moved into each other -----------------------------------------------------------------------------

    def _uncross(self) -> None:
        """Takes moves back that together would give a directory two places, or put it into itself, out of reach.

        Each is right for itself: both sides moved ``a``; or one moved ``a`` into ``b``, the other ``b`` into ``a``.
        """
        placed = {
            EntryRecord.decode(value).ino: key
            for key, value in self.changes.items()
            if key[:1] == keys.ENTRY and value is not None and stat.S_ISDIR(EntryRecord.decode(value).kind)
        }
        for ino in sorted(placed):
            record = self._inode(self.ours, ino)
            for mine in () if record is None else list(self._entries_of(self.ours, record.parent, ino)):
                if mine == placed[ino] or (mine in self.changes and self.changes[mine] is None):
                    continue
                self._note(ino, placed)
                if self.policy is Conflicts.THEIRS:
                    self.changes[mine] = None
                else:
                    self._put_theirs_back(ino, placed)
                break
        # A move that is taken back may close another circle, so all are looked at again.
        while found := next(((ino, circle) for ino in sorted(placed) if (circle := self._circle(ino, placed))), None):
            ino, circle = found
            self._note(ino, placed)
            if self.policy is not Conflicts.THEIRS or not self._put_ours_back(circle, placed):
                self._put_theirs_back(ino, placed)
        self.lies_in.update((ino, keys.inode_of(key)) for ino, key in placed.items())

    def _note(self, ino: int, placed: dict[int, bytes]) -> None:
        path = PathFinder(self.ours).path(ino)
        self.paths.add((path or keys.name_of(placed[ino])).decode("utf-8", "surrogateescape"))

    def _circle(self, ino: int, placed: dict[int, bytes]) -> list[int]:
        """The directories above one as merged so far, if they lead back to it."""
        above = self._above(ino, placed)
        return above if above and self._parent(above[-1], placed) == ino else []

    def _above(self, ino: int, placed: dict[int, bytes]) -> list[int]:
        """A directory and those above it, up to the root or to where they repeat."""
        above: list[int] = []
        current: int | None = ino
        while current is not None and current != keys.ROOT_INODE and current not in above:
            above.append(current)
            current = self._parent(current, placed)
        return above

    def _parent(self, ino: int, placed: dict[int, bytes]) -> int | None:
        if ino in placed:
            return keys.inode_of(placed[ino])
        if ino in self.lies_in:
            return self.lies_in[ino]
        record = self._inode(self.ours, ino)
        return None if record is None else record.parent

    def _put_theirs_back(self, ino: int, placed: dict[int, bytes]) -> None:
        """Leaves a directory where it lies on our side."""
        del self.changes[placed.pop(ino)]
        record = self._inode(self.ours, ino)
        if record is None:
            return
        for key in self._entries_of(self.ours, record.parent, ino):
            self.changes.pop(key, None)
        self.lies_in[ino] = record.parent

    def _put_ours_back(self, circle: list[int], placed: dict[int, bytes]) -> bool:
        """Puts the directory of a circle that we have moved back to where it was, if that is there and free."""
        for ino in circle:
            mine, before = self._inode(self.ours, ino), self._inode(self.base, ino)
            if ino in placed or mine is None or before is None or mine.parent == before.parent:
                continue
            origins = list(self._entries_of(self.base, before.parent, ino))
            free = all(self.changes.get(key, self.ours.get(key)) is None for key in origins)
            if (
                free
                and origins
                and self._now(before.parent) is not None
                and ino not in self._above(before.parent, placed)
            ):
                for key in self._entries_of(self.ours, mine.parent, ino):
                    self.changes[key] = None
                for key in origins:
                    self.changes[key] = self.base.get(key)
                self.lies_in[ino] = before.parent
                return True
        return False

    def _entries_of(self, snapshot: Snapshot, parent: int, ino: int) -> Iterator[bytes]:
        prefix = keys.entry_prefix(parent)
        for key, value in snapshot.scan(prefix, keys.after_prefix(prefix)):
            if EntryRecord.decode(value).ino == ino:
                yield key

    # -- inodes and what belongs to them -----------------------------------------------------------------------------

    def _records(self, incoming: dict[bytes, bytes | None], both: set[bytes]) -> None:
        """Takes what belongs to their inodes, an inode at a time: nothing of two versions of one file may mix."""
        groups: dict[int, list[bytes]] = {}
        for key in incoming:
            if key[:1] in (keys.INODE, keys.EXTENTS, keys.XATTR):
                groups.setdefault(keys.inode_of(key), []).append(key)
        for ino, found in sorted(groups.items()):
            if ino in self.refused or ino in self.joined:
                continue
            key = keys.inode_key(ino)
            if key in both and not self._merge_directory(ino, incoming[key]):
                self._inode_conflict(ino)
                if self.policy is Conflicts.THEIRS:
                    self._take_theirs(ino)
                continue
            self.changes.update((other, incoming[other]) for other in found if other not in both)

    def _take_theirs(self, ino: int) -> None:
        for key, _ in self._belongings(self.ours, ino):
            self.changes[key] = None
        self.changes.update(self._belongings(self.theirs, ino))

    def _merge_directory(self, ino: int, other: bytes | None) -> bool:
        mine = self.ours.get(keys.inode_key(ino))
        merged = None if mine is None or other is None else self._merged_directory(ino, mine, other)
        if merged is not None:
            self.changes[keys.inode_key(ino)] = merged
        return merged is not None

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
        for ino, parent in self.lies_in.items():
            record = self._now(ino)
            if record is not None and record.parent != parent:
                self.changes[keys.inode_key(ino)] = msgspec.structs.replace(record, parent=parent).encode()
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
        # A record that was taken from the other side counts what lies there, which may not all have been taken.
        taken = {keys.inode_of(key) for key, value in self.changes.items() if key[:1] == keys.INODE and value}
        for ino in sorted(subdirectories.keys() | taken):
            record = self._now(ino)
            if record is not None and stat.S_ISDIR(record.mode):
                mine = self._inode(self.ours, ino)
                nlink = (2 if mine is None else mine.nlink) + subdirectories.get(ino, 0)
                if record.nlink != nlink:
                    self.changes[keys.inode_key(ino)] = msgspec.structs.replace(record, nlink=nlink).encode()

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

    def _drop(self, top: int, record: InodeRecord) -> None:
        """Drops an inode, and of a directory all below it that the merge has not named elsewhere."""
        named = Counter(
            EntryRecord.decode(value).ino
            for key, value in self.changes.items()
            if key[:1] == keys.ENTRY and value is not None
        )
        waiting = [(top, record)]
        seen = {top}
        while waiting:
            ino, record = waiting.pop()
            for snapshot in (self.ours, self.theirs):
                for key, _ in self._belongings(snapshot, ino):
                    self.changes[key] = None
            if not stat.S_ISDIR(record.mode):
                continue
            prefix = keys.entry_prefix(ino)
            for snapshot in (self.ours, self.theirs):
                for key, value in list(snapshot.scan(prefix, keys.after_prefix(prefix))):
                    known = self.changes.get(key)
                    if known is not None:
                        named[EntryRecord.decode(known).ino] -= 1
                    self.changes[key] = None
                    child = EntryRecord.decode(value).ino
                    below = self._inode(snapshot, child)
                    if below is not None and not named[child] and child not in seen:
                        seen.add(child)
                        waiting.append((child, below))

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
        ours, theirs = (
            Superblock() if raw is None else Superblock.decode(raw)
            for raw in (side.get(keys.SUPERBLOCK) for side in (self.ours, self.theirs))
        )
        touched = {keys.inode_of(key) for key in self.changes if key[:1] in (keys.INODE, keys.EXTENTS)}
        inodes = allocated = 0
        for ino in touched:
            before, after = self._inode(self.ours, ino), self._now(ino)
            inodes += (after is not None) - (before is not None)
            allocated += self._allocated(ino, after, self.changes) - self._allocated(ino, before, {})
        merged = Superblock(
            next_ino=max(ours.next_ino, theirs.next_ino),
            used_bytes=ours.used_bytes + allocated,
            inode_count=ours.inode_count + inodes,
            limit_bytes=ours.limit_bytes,
            limit_inodes=ours.limit_inodes,
        )
        if merged != ours:
            self.changes[keys.SUPERBLOCK] = merged.encode()

    def _allocated(self, ino: int, record: InodeRecord | None, changes: dict[bytes, bytes | None]) -> int:
        """Bytes that the extents of an inode cover, on our side with changes."""
        if record is None:
            return 0
        if not record.many_extents:
            return sum(extent.length for extent in unpack_extents(record.extents))
        prefix = keys.extents_prefix(ino)
        packed: dict[bytes, bytes | None] = dict(self.ours.scan(prefix, keys.after_prefix(prefix)))
        packed.update((key, value) for key, value in changes.items() if key.startswith(prefix))
        return sum(extent.length for raw in packed.values() if raw is not None for extent in unpack_extents(raw))
