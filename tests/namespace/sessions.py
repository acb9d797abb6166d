"""A file system in memory that can be committed, opened again, and left as a crash leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes, merge_deltas
from stowstore.namespace.filesystem import FileSystem
from tests.index.nodes import MemoryNodes
from tests.namespace.memory_content import MemoryContent


class MemoryMetaStore:
    """A journal in memory that outlives the file system it belongs to."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes | None] = {}
        self.meta: dict[str, bytes] = {}
        self.batches = 0
        self.fail: Exception | None = None

    def load(self) -> Iterator[tuple[bytes, bytes | None]]:
        return iter(sorted(self.records.items()))

    def apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        if self.fail is not None:
            raise self.fail
        self.batches += 1
        self.records.update(batch)

    def replace(self, batch: Mapping[bytes, bytes | None], meta: Mapping[str, bytes]) -> None:
        self.records = dict(batch)
        self.meta.update(meta)

    def sync(self) -> None: ...

    def clear(self) -> None:
        self.records = {}

    def get_meta(self, name: str) -> bytes | None:
        return self.meta.get(name)

    def set_meta(self, name: str, value: bytes) -> None:
        self.meta[name] = value

    def close(self) -> None: ...

    def destroy(self) -> None: ...


class Session:
    """One file system over an index and content in memory."""

    #: What content is flushed to.
    writer: Any = None

    def __init__(self, *, journal: bool = False) -> None:
        self.nodes = MemoryNodes()
        self.content: Any = MemoryContent()
        self.metastore: Any = MemoryMetaStore() if journal else None
        self.ref = SnapshotRef()
        self.files: FileSystem = self._open(self.ref)

    def commit(self) -> dict[bytes, bytes | None]:
        """Writes what has changed as the next snapshot and goes on over it."""
        frozen = self.files.freeze()
        frozen.flush(self.writer)
        changes = frozen.records()
        self.publish(changes)
        return changes

    def publish(self, changes: Mapping[bytes, bytes | None]) -> None:
        """What ends a commit that has been frozen and flushed."""
        snapshot = self.files.snapshot
        self.ref = commit_changes(snapshot, changes, self.nodes)
        self.files.commit_done(snapshot.with_changes(self.ref, changes))

    def merge(self) -> None:
        """Merges the segments of the snapshot into its tree, and goes on over that."""
        self.ref = merge_deltas(self.files.snapshot, self.nodes)
        self.files.replace_snapshot(Snapshot(self.ref, self.nodes.cache()))

    def reopen(self, **options: Any) -> FileSystem:
        """Opens the last version (and the journal, if there is one) as another process does."""
        self.files.close()
        self.files = self._open(self.ref, **options)
        return self.files

    def crash(self) -> FileSystem:
        """Opens what fsync and commit have left, without a goodbye."""
        self.files = self._open(self.ref)
        return self.files

    def close(self) -> None:
        """Ends the session."""
        self.files.close()

    def reader(self, ref: SnapshotRef | None = None) -> FileSystem:
        """A read-only file system over a version."""
        return FileSystem(Snapshot(ref or self.ref, self.nodes.cache()), self.content, read_only=True)

    def _open(self, ref: SnapshotRef, **options: Any) -> FileSystem:
        snapshot = Snapshot(ref, self.nodes.cache())
        return FileSystem(snapshot, self.content, metastore=self.metastore, journal_interval=None, **options)
