"""Differences of versions as people see them: paths, and what happened to them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum

from attrs import frozen

from stowstore.index import keys
from stowstore.index.diff import diff_snapshots
from stowstore.index.records import EntryRecord, InodeRecord
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
    """Another file, or another kind of file, stands there now."""


#: The records of an inode on both sides, where a difference has told them.
_Records = tuple[bytes | None, bytes | None] | None


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

    A file with several names is told under one of them; a renamed file as removed and added.
    """
    before, after = PathFinder(old), PathFinder(new)
    found: dict[bytes, Change] = {}
    touched: dict[int, _Records] = {}
    attributed: set[int] = set()
    told: set[int] = set()
    for key, was, now in diff_snapshots(old, new):
        kind = key[:1]
        if kind == keys.ENTRY:
            _tell_entry(key, was, now, before, after, found, told)
        elif kind == keys.INODE:
            touched[keys.inode_of(key)] = (was, now)
        elif kind == keys.EXTENTS:
            touched.setdefault(keys.inode_of(key))
        elif kind == keys.XATTR:
            attributed.add(keys.inode_of(key))
    for ino in attributed:
        touched.setdefault(ino)
    for ino in told:
        touched.pop(ino, None)
    for ino in [ino for ino, records in touched.items() if records and None in records]:
        # Its entry tells of that.
        del touched[ino]
    after.prepare({ino: records and records[1] for ino, records in touched.items()})
    for ino, records in touched.items():
        was, now = records or (old.get(keys.inode_key(ino)), new.get(keys.inode_key(ino)))
        change = _inode_change(ino, was, now, after, has_other_xattrs=ino in attributed)
        if change is not None:
            found.setdefault(change.path.encode("utf-8", "surrogateescape"), change)
    for path in sorted(found):
        yield found[path]


def _tell_entry(
    key: bytes,
    was: bytes | None,
    now: bytes | None,
    before: PathFinder,
    after: PathFinder,
    found: dict[bytes, Change],
    told: set[int],
) -> None:
    parent, name = keys.inode_of(key), keys.name_of(key)
    old_entry = None if was is None else EntryRecord.decode(was)
    new_entry = None if now is None else EntryRecord.decode(now)
    old_path = None if old_entry is None else before.child(parent, name)
    new_path = None if new_entry is None else after.child(parent, name)
    if new_entry is not None:
        told.add(new_entry.ino)
    if old_path is not None and old_path == new_path and new_entry is not None:
        found[old_path] = Change(_text(old_path), ChangeKind.REPLACED, _is_directory(new_entry))
        return
    if old_path is not None and old_entry is not None:
        known = found.get(old_path)
        kind = ChangeKind.REPLACED if known and known.kind is ChangeKind.ADDED else ChangeKind.REMOVED
        found[old_path] = Change(_text(old_path), kind, _is_directory(old_entry))
    if new_path is not None and new_entry is not None:
        known = found.get(new_path)
        kind = ChangeKind.REPLACED if known and known.kind is ChangeKind.REMOVED else ChangeKind.ADDED
        found[new_path] = Change(_text(new_path), kind, _is_directory(new_entry))


def _inode_change(
    ino: int, was: bytes | None, now: bytes | None, finder: PathFinder, *, has_other_xattrs: bool
) -> Change | None:
    if now is None or was is None:
        # Its entry tells of that.
        return None
    path = finder.path(ino)
    if path is None:
        return None
    before, after = InodeRecord.decode(was), InodeRecord.decode(now)
    if stat.S_ISDIR(after.mode):
        if _owner(before) == _owner(after) and not has_other_xattrs:
            return None
        return Change(_text(path), ChangeKind.ATTRIBUTES, True)
    same = (before.size, before.target, before.extents, before.rdev) == (
        after.size,
        after.target,
        after.extents,
        after.rdev,
    )
    if same and before.many_extents == after.many_extents and before.mtime_ns == after.mtime_ns:
        return Change(_text(path), ChangeKind.ATTRIBUTES)
    if same and not after.many_extents:
        return Change(_text(path), ChangeKind.ATTRIBUTES)
    return Change(_text(path), ChangeKind.CONTENT)


def _owner(record: InodeRecord) -> tuple[int, int, int]:
    return record.mode, record.uid, record.gid


def _is_directory(entry: EntryRecord) -> bool:
    return stat.S_ISDIR(entry.kind)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
