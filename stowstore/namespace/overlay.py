"""The live state: changes over a snapshot that is read as it is needed.

Changes are kept in two layers: the live one, and while a commit is written a frozen one below it.  Freezing swaps
dictionaries; a frozen inode that is changed afterwards is captured first (copy on write), so the frozen layer stays
what it was.  Entries are kept by directory, so that listing one costs its own changes only.  What was read, clean or
changed, is remembered in caches of bounded count that always hold the present state.

Everything here runs under the file system's lock unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from stowstore.chunks.patience import must_not_wait
from stowstore.index.keys import entry_key, inode_key
from stowstore.index.records import EntryRecord, InodeRecord
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.inodes import Inode

if TYPE_CHECKING:
    from stowstore.namespace.journal_batch import JournalBatch

__all__ = ["DirectoryChanges", "Frozen", "Layer", "Overlay", "RecentlyUsed", "Unjournalled"]

#: Changed entries of one directory; None for a deleted one.
DirectoryChanges = dict[bytes, EntryRecord | None]

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

#: Inodes and entries remembered, about 500 and 250 bytes each.
CACHED_INODES: Final = 32768
CACHED_ENTRIES: Final = 65536


class RecentlyUsed(Generic[_K, _V]):
    """A bounded mapping in two generations: what the older one holds and nobody asks for is dropped at once.

    A hit in the younger generation costs one dictionary access, which a list in order of use would double.
    """

    __slots__ = ("_half", "_old", "young")

    def __init__(self, capacity: int) -> None:
        self._half = max(capacity // 2, 1)
        self.young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def recall(self, key: _K) -> _V | None:
        """What the older generation holds, which makes it young again."""
        found = self._old.pop(key, None)
        if found is not None:
            self.put(key, found)
        return found

    def put(self, key: _K, value: _V) -> None:
        if len(self.young) >= self._half:
            self._old = self.young
            self.young = {}
        self.young[key] = value

    def drop(self, key: _K) -> None:
        self.young.pop(key, None)
        self._old.pop(key, None)


class Layer:
    """Changes over what lies below; None for what is deleted."""

    __slots__ = ("entries", "inodes", "xattrs")

    def __init__(self) -> None:
        self.inodes: dict[int, Inode | None] = {}
        self.entries: dict[int, DirectoryChanges] = {}
        self.xattrs: dict[int, dict[bytes, bytes | None]] = {}

    def __bool__(self) -> bool:
        return bool(self.inodes or self.entries or self.xattrs)

    def take(self, newer: Layer) -> None:
        """Lays a newer layer over this one."""
        self.inodes.update(newer.inodes)
        for parent, changes in newer.entries.items():
            self.entries.setdefault(parent, {}).update(changes)
        for ino, values in newer.xattrs.items():
            self.xattrs.setdefault(ino, {}).update(values)


class Frozen(Layer):
    """A layer that is being written; ``captured`` holds inodes as they were when it was frozen."""

    __slots__ = ("captured",)

    def __init__(self, layer: Layer) -> None:
        self.inodes = layer.inodes
        self.entries = layer.entries
        self.xattrs = layer.xattrs
        self.captured: dict[int, Inode] = {}

    def capture(self, node: Inode) -> Inode:
        """The inode as it was frozen, safe from changes."""
        found = self.captured.get(node.ino)
        if found is None:
            found = self.captured[node.ino] = node.capture()
        return found


class Unjournalled:
    """What has changed since the journal was last written: keys only, their present values are read then."""

    __slots__ = ("entries", "inodes", "xattrs")

    def __init__(self) -> None:
        self.inodes: dict[int, None] = {}
        self.entries: dict[tuple[int, bytes], None] = {}
        self.xattrs: dict[int, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self.inodes) + len(self.entries) + len(self.xattrs)

    @classmethod
    def of(cls, layer: Layer) -> Unjournalled:
        """Everything that a layer has."""
        found = cls()
        found.inodes = dict.fromkeys(layer.inodes)
        found.entries = {(parent, name): None for parent, changes in layer.entries.items() for name in changes}
        found.xattrs = {ino: dict.fromkeys(values) for ino, values in layer.xattrs.items()}
        return found

    def take(self, older: Unjournalled) -> None:
        """Adds what could not be journalled."""
        self.inodes.update(older.inodes)
        self.entries.update(older.entries)
        for ino, names in older.xattrs.items():
            self.xattrs.setdefault(ino, {}).update(names)


#: Records fetched for operations that then did not ask for them.
_MOST_FETCHED: Final = 8192

_ABSENT: Final = EntryRecord(0, 0)


class Overlay:
    """Inodes and entries as they are now."""

    def __init__(self, snapshot: Snapshot, *, first_new_ino: int, journalled: bool) -> None:
        self.snapshot = snapshot
        #: Inodes from this number on do not exist in the snapshot, so it is never asked for them.
        self.first_new_ino = first_new_ino
        self.live = Layer()
        self.frozen: Frozen | None = None
        #: Inodes with open handles, kept whatever becomes of their names.
        self.opened: dict[int, Inode] = {}
        self.inodes: RecentlyUsed[int, Inode] = RecentlyUsed(CACHED_INODES)
        self.entries: RecentlyUsed[tuple[int, bytes], EntryRecord] = RecentlyUsed(CACHED_ENTRIES)
        self.unjournalled: Unjournalled | None = Unjournalled() if journalled else None
        #: What is being journalled: told before anything is changed, since it holds one moment.
        self.batch: JournalBatch | None = None
        # Records fetched without the lock, each for one use, with the snapshot they are from.
        self._fetched: dict[bytes, tuple[Snapshot, bytes | None]] = {}
        self._turn = 1

    def inode(self, ino: int) -> Inode | None:
        """The live inode of a number, or None where there is none (any more)."""
        node = self.inodes.young.get(ino)
        return node if node is not None else self._recall_inode(ino)

    def entry(self, parent: int, name: bytes) -> EntryRecord | None:
        """What a name in a directory stands for now, or None."""
        key = (parent, name)
        found = self.entries.young.get(key) or self.entries.recall(key)
        if found is None:
            found = self._find_entry(parent, name) or _ABSENT
            self.entries.put(key, found)
        return found if found is not _ABSENT else None

    def entry_to_replace(self, parent: int, name: bytes) -> EntryRecord | None:
        """The same for who is about to `set_entry`: in a directory that no version has yet, no cache is asked."""
        changes = self.live.entries.get(parent)
        if changes is not None and name in changes:
            return changes[name]
        if parent >= self.first_new_ino and self.frozen is None:
            return None
        return self.entry(parent, name)

    def warm_entry(self, parent: int, name: bytes) -> None:
        """Fetches a directory, an entry and its inode for who asks next, WITHOUT the lock: nobody waits behind it.

        Each is remembered for itself, so none of them stands for the others.
        """
        if parent >= self.first_new_ino:
            return
        self.warm_inode(parent)
        entry = self.entries.young.get((parent, name))
        if entry is None:
            raw = self._fetch(entry_key(parent, name))
            if raw is None:
                return
            entry = EntryRecord.decode(raw)
        self.warm_inode(entry.ino)

    def warm_inode(self, ino: int) -> None:
        """Fetches an inode for who asks next, WITHOUT the lock."""
        if ino < self.first_new_ino and ino and ino not in self.inodes.young and ino not in self.opened:
            self._fetch(inode_key(ino))

    def warm_inodes(self, inos: Iterable[int]) -> None:
        """Fetches inodes for who asks next, together and WITHOUT the lock."""
        young, first_new = self.inodes.young, self.first_new_ino
        self._fetch_all([ino for ino in inos if ino not in young and 0 < ino < first_new and ino not in self.opened])

    def unchanged_inodes(self, snapshot: Snapshot, inos: Iterable[int]) -> dict[int, InodeRecord]:
        """The records that a version has of those inodes which are not in memory, WITHOUT the lock.

        Where one `is_changed`, or the snapshot is another one by now, the record is not what the inode is.
        """
        young, first_new = self.inodes.young, self.first_new_ino
        wanted = {inode_key(ino): ino for ino in inos if ino not in young and 0 < ino < first_new}
        found = snapshot.find(sorted(wanted))
        return dict(zip(map(wanted.__getitem__, found), InodeRecord.decode_all(found.values()), strict=True))

    def is_changed(self, ino: int) -> bool:
        """Whether an inode may differ from what the snapshot says."""
        return ino in self.live.inodes or ino in self.opened or (self.frozen is not None and ino in self.frozen.inodes)

    def warm(self, key: bytes) -> None:
        """Fetches any record of the version below, WITHOUT the lock."""
        self._fetch(key)

    def changed(self, node: Inode) -> None:
        """Has to be called before an inode is changed."""
        node.shown = None
        if node.stamp != self._turn:
            self._first_change(node)

    def add(self, node: Inode) -> None:
        """Takes in a new inode; one without links is no part of any version yet."""
        node.shown = None
        self.inodes.put(node.ino, node)
        self._first_change(node)

    def remove(self, node: Inode) -> None:
        """Takes an inode that has lost its last link out of the versions to come."""
        ino = node.ino
        if self.batch is not None:
            self.batch.keep_xattrs(ino)
        self.live.inodes[ino] = None
        self.live.xattrs.pop(ino, None)
        self.inodes.drop(ino)
        if self.unjournalled is not None:
            self.unjournalled.inodes[ino] = None

    def set_entry(self, parent: int, name: bytes, entry: EntryRecord | None) -> None:
        key = (parent, name)
        if self.batch is not None:
            self.batch.keep_entry(key)
        changes = self.live.entries.get(parent)
        if changes is None:
            changes = self.live.entries[parent] = {}
        changes[name] = entry
        self.entries.put(key, _ABSENT if entry is None else entry)
        if self.unjournalled is not None:
            self.unjournalled.entries[key] = None

    def set_xattr(self, ino: int, name: bytes, value: bytes | None) -> None:
        if self.batch is not None:
            self.batch.keep_xattrs(ino)
        self.live.xattrs.setdefault(ino, {})[name] = value
        if self.unjournalled is not None:
            self.unjournalled.xattrs.setdefault(ino, {})[name] = None

    def directory_changes(self, parent: int) -> DirectoryChanges:
        """The changed entries of a directory, a copy."""
        live = self.live.entries.get(parent)
        frozen = self.frozen.entries.get(parent) if self.frozen is not None else None
        if frozen is None:
            return {} if live is None else live.copy()
        return frozen.copy() if live is None else {**frozen, **live}

    def xattr_changes(self, ino: int) -> dict[bytes, bytes | None]:
        """The changed extended attributes of an inode."""
        frozen = {} if self.frozen is None else self.frozen.xattrs.get(ino, {})
        return {**frozen, **self.live.xattrs.get(ino, {})}

    def changed_inodes(self) -> dict[int, Inode | None]:
        """Every inode that differs from the snapshot."""
        frozen = {} if self.frozen is None else self.frozen.inodes
        return {**frozen, **self.live.inodes}

    def freeze(self) -> Frozen:
        """Makes the live layer the frozen one, in constant time."""
        if self.frozen is not None:
            raise RuntimeError("a commit is being written already; wait for it, or give it up with commit_failed()")
        self.frozen = frozen = Frozen(self.live)
        self.live = Layer()
        self._turn += 1
        return frozen

    def thaw(self) -> None:
        """Puts the frozen layer back below the live one: nothing of it has been written."""
        frozen = self.frozen
        assert frozen is not None
        self.frozen = None
        merged = Layer()
        merged.inodes, merged.entries, merged.xattrs = frozen.inodes, frozen.entries, frozen.xattrs
        merged.take(self.live)
        self.live = merged
        # Inodes deleted since the freeze have had their attributes dropped from the live layer alone.
        for ino in [ino for ino in merged.xattrs if merged.inodes.get(ino, ino) is None]:
            del merged.xattrs[ino]

    def advance(self, snapshot: Snapshot, first_new_ino: int, settle: Callable[[Inode, Inode], None]) -> None:
        """Takes the snapshot that the frozen layer has become; ``settle`` is told of each inode and its capture."""
        frozen = self.frozen
        assert frozen is not None
        for ino, captured in frozen.captured.items():
            node = frozen.inodes[ino]
            assert node is not None
            settle(node, captured)
        self.frozen = None
        self.first_new_ino = first_new_ino
        self.replace_snapshot(snapshot)

    def replace_snapshot(self, snapshot: Snapshot) -> None:
        """Takes another snapshot of the same content below."""
        self.snapshot = snapshot
        self._fetched.clear()

    def take_unjournalled(self) -> Unjournalled:
        """What has to be journalled, and starts afresh."""
        found = self.unjournalled
        assert found is not None
        self.unjournalled = Unjournalled()
        self._turn += 1
        return found

    def _first_change(self, node: Inode) -> None:
        if self.batch is not None:
            self.batch.keep_inode(node.ino)
        node.stamp = self._turn
        if not node.nlink:
            return
        ino = node.ino
        frozen = self.frozen
        if frozen is not None and frozen.inodes.get(ino) is not None and self.live.inodes.get(ino) is not node:
            frozen.capture(node)
        self.live.inodes[ino] = node
        if self.unjournalled is not None:
            self.unjournalled.inodes[ino] = None

    def _recall_inode(self, ino: int) -> Inode | None:
        node = self.inodes.recall(ino) or self.opened.get(ino)
        if node is not None:
            return node
        if ino in self.live.inodes:
            node = self.live.inodes[ino]
        elif self.frozen is not None and ino in self.frozen.inodes:
            node = self.frozen.inodes[ino]
        elif ino < self.first_new_ino:
            raw = self._stored(inode_key(ino))
            node = None if raw is None else Inode.from_record(ino, InodeRecord.decode(raw))
        if node is not None:
            self.inodes.put(ino, node)
        return node

    def _find_entry(self, parent: int, name: bytes) -> EntryRecord | None:
        changes = self.live.entries.get(parent)
        if changes is not None and name in changes:
            return changes[name]
        if self.frozen is not None:
            changes = self.frozen.entries.get(parent)
            if changes is not None and name in changes:
                return changes[name]
        if parent >= self.first_new_ino:
            return None
        raw = self._stored(entry_key(parent, name))
        return None if raw is None else EntryRecord.decode(raw)

    def _fetch(self, key: bytes) -> bytes | None:
        """Reads a record of the snapshot and leaves it for `_stored`; dictionary operations need no lock here.

        Raises:
            WouldWait: it has to be fetched, and this thread must not wait.
        """
        snapshot = self.snapshot
        raw = snapshot.get_near(key) if must_not_wait() else snapshot.get(key)
        if len(self._fetched) >= _MOST_FETCHED:
            self._fetched.clear()
        self._fetched[key] = (snapshot, raw)
        return raw

    def _fetch_all(self, inos: list[int]) -> None:
        """The same of inodes."""
        if must_not_wait():
            for ino in inos:
                self._fetch(inode_key(ino))
            return
        snapshot = self.snapshot
        keys = list(map(inode_key, inos))
        found = snapshot.find(sorted(keys))
        if len(self._fetched) + len(keys) > _MOST_FETCHED:
            self._fetched.clear()
        self._fetched.update((key, (snapshot, found.get(key))) for key in keys)

    def _stored(self, key: bytes) -> bytes | None:
        fetched = self._fetched.pop(key, None)
        if fetched is not None and fetched[0] is self.snapshot:
            return fetched[1]
        return self.snapshot.get(key)
