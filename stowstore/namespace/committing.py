"""Commit: freezing a moment, writing it while operations go on, and taking it up or giving it up."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from stowstore.index.keys import (
    SUPERBLOCK,
    entry_key,
    extents_prefix,
    inode_key,
    xattr_key,
    xattr_prefix,
)
from stowstore.index.records import EntryRecord, InodeRecord, Superblock
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.inodes import Inode
from stowstore.namespace.interfaces import Extents
from stowstore.namespace.journal import Journal
from stowstore.namespace.kernel import KernelOperations
from stowstore.namespace.overlay import Frozen

__all__ = ["Changes", "CommitOperations", "FrozenChanges"]

#: Inodes looked at before the lock is given to others.
_BATCH: Final = 256


class Changes(NamedTuple):
    """What differs from a snapshot: entries by directory and name, and of files their directory and size in bytes.

    None stands for what is gone, and for directories, which have no size.
    """

    snapshot: Snapshot
    entries: dict[int, dict[bytes, EntryRecord | None]]
    sizes: dict[int, tuple[int, int] | None]


class CommitOperations(KernelOperations):
    """`freeze` and what ends it.  One commit is written at a time."""

    journal: Journal | None = None

    def freeze(self) -> FrozenChanges:
        """Takes the present state to be committed, in constant time; operations go on over it.

        End it with `commit_done` or `commit_failed`.
        """
        with self._lock:
            self._require_writable()
            return FrozenChanges(self, self._overlay.freeze(), self._usage.record())

    def changes(self) -> Changes:
        """What differs now from the version below, as far as names and sizes go; copied, in time with what changed."""
        with self._lock:
            overlay = self._overlay
            entries: dict[int, dict[bytes, EntryRecord | None]] = {}
            sizes: dict[int, tuple[int, int] | None] = {}
            for layer in (overlay.frozen, overlay.live):
                if layer is None:
                    continue
                for parent, named in layer.entries.items():
                    entries.setdefault(parent, {}).update(named)
                for ino, node in layer.inodes.items():
                    is_file = node is not None and not node.is_directory
                    sizes[ino] = (node.parent, node.allocated) if node is not None and is_file else None
            return Changes(overlay.snapshot, entries, sizes)

    def commit_done(self, snapshot: Snapshot, meta: Mapping[str, bytes] | None = None) -> None:
        """Goes on over the snapshot that the frozen changes have become.

        The journal keeps only what has changed since, and with it the named values of ``meta``, such as the version
        that its records now lie over.
        """
        raw = snapshot.get(SUPERBLOCK)
        superblock = Superblock() if raw is None else Superblock.decode(raw)
        with self._lock:
            self._overlay.advance(snapshot, superblock.next_ino, self._settle)
            checkpoint = self.content.checkpoint()
        if self.journal is not None:
            self.journal.start_over(meta or {})
        else:
            self.content.reclaim(checkpoint)

    def commit_failed(self) -> None:
        """Puts the frozen changes back below those made since; nothing is lost, and a later commit has them all."""
        with self._lock:
            frozen = self._overlay.frozen
            if frozen is None:
                return
            for captured in frozen.captured.values():
                if captured.extents is not None:
                    self.content.forget(captured.extents)
            self._overlay.thaw()

    def replace_snapshot(self, snapshot: Snapshot) -> None:
        """Goes on over another form of the same snapshot, such as one whose segments have been merged."""
        with self._lock:
            self._overlay.replace_snapshot(snapshot)

    @property
    def changed_inodes(self) -> int:
        """How many inodes a commit would write now."""
        return len(self._overlay.live.inodes)

    @property
    def open_handles(self) -> int:
        """How many files and directories are open."""
        return len(self._files) + len(self._directories)

    def _settle(self, node: Inode, captured: Inode) -> None:
        flushed = captured.extents
        if flushed is not None:
            if node.extents is not None:
                self.content.settle(node.extents, flushed)
            self.content.forget(flushed)
            # It holds staged data: given up before the journal starts over, their room is free with the commit.
            captured.extents = None


class FrozenChanges:
    """One moment of a file system, to be written: first `flush`, then `records`.  For one thread at a time."""

    def __init__(self, files: CommitOperations, layer: Frozen, superblock: Superblock) -> None:
        self._files = files
        self._layer = layer
        self._lock = files._lock
        self._snapshot = files._overlay.snapshot
        self._first_new_ino = files._overlay.first_new_ino
        self.superblock = superblock

    @property
    def is_empty(self) -> bool:
        """Whether nothing has changed, so that the version would equal the one below."""
        if self._layer:
            return False
        raw = self._snapshot.get(SUPERBLOCK)
        # Numbers that were only set aside for inodes change nothing anybody can see.
        return raw is not None and msgspec.structs.replace(
            Superblock.decode(raw), next_ino=0
        ) == msgspec.structs.replace(self.superblock, next_ino=0)

    def flush(self, writer: Any) -> None:
        """Writes staged content into blocks, in directory order; when it raises, it can be tried again."""
        files = self._staged_files()
        if files:
            self._files.content.flush(files, writer)

    def records(self) -> dict[bytes, bytes | None]:
        """The index records that make the snapshot below this moment's; None deletes.

        What was made and removed since that snapshot leaves nothing.  The journal is brought up to date first, so that
        its records go with the old snapshot and with the new one alike, whichever a crash leaves behind.
        """
        if self._files.journal is not None:
            self._files.journal.write()
        changes: dict[bytes, bytes | None] = {}
        for parent, entries in self._layer.entries.items():
            fresh = parent >= self._first_new_ino
            for name, entry in entries.items():
                if entry is not None:
                    changes[entry_key(parent, name)] = entry.encode()
                elif not fresh:
                    changes[entry_key(parent, name)] = None
        for ino, values in self._layer.xattrs.items():
            if self._layer.inodes.get(ino) is not None:
                for name, value in values.items():
                    if value is not None or ino < self._first_new_ino:
                        changes[xattr_key(ino, name)] = value
        waiting = iter(self._layer.inodes.items())
        while batch := list(islice(waiting, _BATCH)):
            with self._lock:
                for ino, node in batch:
                    if node is not None:
                        # Captured whenever there are extents, so that they learn what has been written of them.
                        captured = self._layer.captured.get(ino, node)
                        if captured is node and node.extents is not None:
                            captured = self._layer.capture(node)
                        self._add_inode(changes, captured)
            for ino, node in batch:
                if node is None and ino < self._first_new_ino:
                    self._add_removal(changes, ino)
        superblock = self.superblock.encode()
        if changes or self._snapshot.get(SUPERBLOCK) != superblock:
            changes[SUPERBLOCK] = superblock
        return changes

    def _staged_files(self) -> list[tuple[int, int, Extents]]:
        files: list[tuple[int, int, Extents]] = []
        waiting = self._in_directory_order()
        while batch := list(islice(waiting, _BATCH)):
            with self._lock:
                for ino in batch:
                    node = self._layer.inodes.get(ino)
                    if node is None:
                        continue
                    extents = self._layer.captured.get(ino, node).extents
                    if extents is not None and extents.staged:
                        captured = self._layer.capture(node)
                        assert captured.extents is not None
                        files.append((ino, captured.size, captured.extents))
        return files

    def _in_directory_order(self) -> Iterator[int]:
        """The changed inodes as listings meet them, then those whose names have not changed."""
        named: set[int] = set()
        for parent in sorted(self._layer.entries):
            entries = self._layer.entries[parent]
            for name in sorted(entries):
                entry = entries[name]
                if entry is not None and entry.kind == stat.S_IFREG and entry.ino not in named:
                    named.add(entry.ino)
                    yield entry.ino
        for ino in sorted(self._layer.inodes):
            if ino not in named:
                yield ino

    def _add_inode(self, changes: dict[bytes, bytes | None], node: Inode) -> None:
        if node.extents is None:
            record = node.record()
        else:
            encoded = node.extents.encode(node.ino)
            changes.update(encoded.changes)
            record = node.record(encoded.inline, encoded.many)
        changes[inode_key(node.ino)] = record.encode()

    def _add_removal(self, changes: dict[bytes, bytes | None], ino: int) -> None:
        raw = self._snapshot.get(inode_key(ino))
        if raw is None:
            return
        record = InodeRecord.decode(raw)
        changes[inode_key(ino)] = None
        for wanted, prefix in ((record.many_extents, extents_prefix), (record.xattrs, xattr_prefix)):
            if wanted:
                for key, _ in self._snapshot.scan(prefix(ino), prefix(ino + 1)):
                    changes[key] = None
