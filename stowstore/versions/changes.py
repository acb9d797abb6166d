"""Differences of versions as people see them: paths, and what happened to them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum

from attrs import frozen

from stowstore.index import keys
from stowstore.index.diff import diff_snapshots
from stowstore.index.records import EntryRecord, InodeRecord, unpack_extents
from stowstore.index.snapshot import Snapshot

__all__ = ["Change", "ChangeKind", "PathFinder", "path_changes"]


class ChangeKind(StrEnum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    CONTENT = "content"
    """Other bytes, another size, or another link target."""
    ATTRIBUTES = "attributes"
    """Mode, owner, times of a file or extended attributes; times of directories alone are not told."""
    REPLACED = "replaced"
    """Another kind of file stands there now."""


@frozen(order=True)
class Change:
    """One path that differs; ``path`` is relative to the root of the volume, bytes that are no UTF-8 as surrogates."""

    path: str
    kind: ChangeKind
    is_directory: bool = False


class PathFinder:
    """Finds the paths of inodes in one snapshot; remembers directories.  Not thread-safe."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._paths: dict[int, bytes | None] = {keys.ROOT_INODE: b""}
        #: Names found ahead, with the directories they are in.
        self._steps: dict[int, tuple[int, bytes]] = {}

    def path(self, ino: int) -> bytes | None:
        """A path of an inode, of a file with several names one of them; None when it has none."""
        try:
            return self._paths[ino]
        except KeyError:
            pass
        chain: list[tuple[int, bytes]] = []
        seen: set[int] = set()
        current = ino
        while current not in self._paths:
            if current in seen:
                # Directories of a damaged index may run in a circle.
                return None
            step = self._step(current)
            if step is None:
                self._paths[current] = None
                break
            chain.append((current, step[1]))
            seen.add(current)
            current = step[0]
        path = self._paths[current]
        for child, name in reversed(chain):
            path = None if path is None else (path + b"/" + name if path else name)
            self._paths[child] = path
        return self._paths.get(ino)

    def prepare(self, inodes: Mapping[int, bytes | None]) -> None:
        """Finds the names of many inodes together, and of the directories above them.

        Each directory is looked through once for all its inodes.  Where the record of an inode is known it is given.
        """
        level = dict(inodes)
        while level:
            wanted: dict[int, dict[bytes, int]] = {}
            for ino in sorted(level):
                if ino in self._paths or ino in self._steps:
                    continue
                raw = level[ino]
                if raw is None:
                    raw = self._snapshot.get(keys.inode_key(ino))
                if raw is not None:
                    record = InodeRecord.decode(raw)
                    entry = EntryRecord(ino, stat.S_IFMT(record.mode)).encode()
                    wanted.setdefault(record.parent, {})[entry] = ino
            for parent in sorted(wanted):
                self._find_names(parent, wanted[parent])
            # What was found is not asked for again, so directories in a circle end this, too.
            level = {parent: None for parent, entries in wanted.items() if self._steps.keys() & entries.values()}

    def child(self, parent: int, name: bytes) -> bytes | None:
        """The path of a name in a directory."""
        above = self.path(parent)
        if above is None:
            return None
        return above + b"/" + name if above else name

    def _step(self, ino: int) -> tuple[int, bytes] | None:
        known = self._steps.get(ino)
        if known is not None:
            return known
        raw = self._snapshot.get(keys.inode_key(ino))
        if raw is None:
            return None
        record = InodeRecord.decode(raw)
        entry = {EntryRecord(ino, stat.S_IFMT(record.mode)).encode()}
        found = self._named(entry, keys.entry_prefix(record.parent))
        if found is None and not stat.S_ISDIR(record.mode):
            # The name it was given last is gone, others may be left: only then the whole index is looked through.
            found = self._named(entry, keys.ENTRY)
        return found

    def _find_names(self, parent: int, entries: dict[bytes, int]) -> None:
        """Notes the names of a directory that have these entries."""
        prefix = keys.entry_prefix(parent)
        left = dict(entries)
        for key, value in self._snapshot.having(left.keys(), prefix, keys.after_prefix(prefix)):
            if value in left:
                self._steps[left.pop(value)] = (parent, keys.name_of(key))
            if not left:
                break

    def _named(self, entry: AbstractSet[bytes], prefix: bytes) -> tuple[int, bytes] | None:
        for key, _ in self._snapshot.having(entry, prefix, keys.after_prefix(prefix)):
            return keys.inode_of(key), keys.name_of(key)
        return None


def path_changes(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    """What differs between two versions, ascending by path, at a cost that grows with what differs.

    A file with several names is told under one of them; a renamed file as removed and added.  What stands at a path is
    compared, whichever inode it is: a file that was written anew and renamed over the old one has other content.
    """
    sides = _Sides(old, new)
    found: dict[bytes, Change] = {}
    for path in sides.gone.keys() | sides.come.keys():
        was, now = sides.gone.get(path), sides.come.get(path)
        there = was if now is None else now
        assert there is not None
        kind = _entry_change(was, now, sides)
        if kind is not None:
            found[path] = Change(_text(path), kind, stat.S_ISDIR(there.kind))
    kept = sides.kept()
    sides.after.prepare({ino: now for ino, (_, now) in kept.items()})
    for ino, (before, after) in kept.items():
        changed = sides.after.path(ino)
        if changed is not None:
            record = InodeRecord.decode(after)
            kind = _difference(InodeRecord.decode(before), record, has_other_xattrs=ino in sides.attributed)
            if kind is not None:
                found.setdefault(changed, Change(_text(changed), kind, stat.S_ISDIR(record.mode)))
    for path in sorted(found):
        yield found[path]


class _Sides:
    """What two versions differ in, record by record: entries by path, inodes by number."""

    def __init__(self, old: Snapshot, new: Snapshot) -> None:
        self._old, self._new = old, new
        self.after = PathFinder(new)
        self.gone: dict[bytes, EntryRecord] = {}
        self.come: dict[bytes, EntryRecord] = {}
        self.attributed: set[int] = set()
        # The records on both sides where the difference has told them.
        self._touched: dict[int, tuple[bytes | None, bytes | None] | None] = {}
        before = PathFinder(old)
        for key, was, now in diff_snapshots(old, new):
            kind = key[:1]
            if kind == keys.ENTRY:
                _note_entry(key, was, before, self.gone)
                _note_entry(key, now, self.after, self.come)
            elif kind == keys.INODE:
                self._touched[keys.inode_of(key)] = (was, now)
            elif kind == keys.EXTENTS:
                self._touched.setdefault(keys.inode_of(key))
            elif kind == keys.XATTR:
                self._touched.setdefault(keys.inode_of(key))
                self.attributed.add(keys.inode_of(key))

    def records(self, ino: int) -> tuple[bytes | None, bytes | None]:
        """What an inode is on both sides."""
        key = keys.inode_key(ino)
        return self._touched.get(ino) or (self._old.get(key), self._new.get(key))

    def kept(self) -> dict[int, tuple[bytes, bytes]]:
        """The inodes that differ and are on both sides, without those whose entries tell of it."""
        told = {entry.ino for entry in self.come.values()}
        found: dict[int, tuple[bytes, bytes]] = {}
        for ino in self._touched.keys() - told:
            was, now = self.records(ino)
            if was is not None and now is not None:
                found[ino] = was, now
        return found


def _note_entry(key: bytes, raw: bytes | None, finder: PathFinder, found: dict[bytes, EntryRecord]) -> None:
    if raw is not None:
        path = finder.child(keys.inode_of(key), keys.name_of(key))
        if path is not None:
            found[path] = EntryRecord.decode(raw)


def _entry_change(was: EntryRecord | None, now: EntryRecord | None, sides: _Sides) -> ChangeKind | None:
    """What the entries at one path tell; None where they are of directories that look the same."""
    if was is None:
        return ChangeKind.ADDED
    if now is None:
        return ChangeKind.REMOVED
    left, right = sides.records(was.ino)[0], sides.records(now.ino)[1]
    if was.kind != now.kind or left is None or right is None:
        return ChangeKind.REPLACED
    before, after = InodeRecord.decode(left), InodeRecord.decode(right)
    if not stat.S_ISDIR(was.kind) and (before.many_extents or after.many_extents):
        # What they hold lies under the numbers of each.
        return ChangeKind.CONTENT
    return _difference(before, after, has_other_xattrs=before.xattrs or after.xattrs)


def _difference(before: InodeRecord, after: InodeRecord, *, has_other_xattrs: bool) -> ChangeKind | None:
    if stat.S_ISDIR(after.mode):
        return ChangeKind.ATTRIBUTES if has_other_xattrs or _owner(before) != _owner(after) else None
    if _content(before) != _content(after) or before.many_extents != after.many_extents:
        return ChangeKind.CONTENT
    if after.many_extents and before.mtime_ns != after.mtime_ns:
        return ChangeKind.CONTENT
    return ChangeKind.ATTRIBUTES


def _content(record: InodeRecord) -> tuple[object, ...]:
    # Blocks are named by what they hold; wherever they lie, it is the same.
    extents = [(*extent[:-1], extent.block.name) for extent in unpack_extents(record.extents)]
    return record.size, record.target, record.rdev, extents


def _owner(record: InodeRecord) -> tuple[int, int, int]:
    return record.mode, record.uid, record.gid


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
