"""Volumes made straight of index and chunks, from dictionaries of paths and contents."""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from datastore import DataReference, MemoryStore, Store
from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.writer import PendingBlock
from stowstore.index.keys import (
    ENTRY,
    ROOT_INODE,
    SUPERBLOCK,
    after_prefix,
    entry_key,
    entry_prefix,
    extents_key,
    extents_prefix,
    inode_key,
    name_of,
)
from stowstore.index.node import NodeCache
from stowstore.index.records import (
    INLINE_EXTENTS,
    EntryRecord,
    Extent,
    InodeRecord,
    Superblock,
    pack_extents,
    unpack_extents,
)
from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes, merge_deltas
from stowstore.versions.lease import LeaseRecord
from stowstore.versions.manifest import Manifest, Statistics, VersionName
from stowstore.versions.root import Root

BASE = DataReference("mem://main/root")
Files = Mapping[str, bytes]
Records = dict[bytes, bytes]

#: Small, so that a few kilobytes make a file of many extents.
BLOCK = 1000


class Volumes:
    """A root whose volumes are written whole: every commit says all paths and contents."""

    def __init__(self, store: Store | None = None, base: DataReference = BASE, clock: Clock | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.root = Root.open_or_create(self.store, base)
        self.chunks = ChunkStore(self.store, base, workers=1, max_fetches=4)
        self.clock = clock or Clock()

    def commit(
        self, volume: str, files: Files, *, parent: VersionName | None = None, merge: bool = False, **more: Any
    ) -> VersionName:
        """Publishes a version with exactly these files over the head of the volume, or over another parent."""
        head = self.root.head(volume) if self.root.has_volume(volume) else None
        parent = parent or head
        base = None if parent is None else self.root.load(parent)
        snapshot = self.snapshot(SnapshotRef() if base is None else base.snapshot)
        before = dict(snapshot.scan())
        after = self._records(files, before)
        changes = {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        return self.publish(volume, snapshot, changes, head, parent, merge=merge, **more)

    def publish(
        self,
        volume: str,
        snapshot: Snapshot,
        changes: Mapping[bytes, bytes | None],
        head: VersionName | None,
        parent: VersionName | None,
        *,
        merge: bool = False,
        **more: Any,
    ) -> VersionName:
        """Publishes changed records."""
        writer = self.chunks.index_writer()
        ref = commit_changes(snapshot, changes, writer)
        if merge:
            ref = merge_deltas(snapshot.with_changes(ref, changes), writer)
        writer.flush()
        manifest = Manifest(
            volume=volume,
            snapshot=ref,
            parents=() if parent is None else (parent,),
            statistics=Statistics(index_bytes=writer.stored_bytes),
            **more,
        )
        name = self.root.write_manifest(manifest)
        self.root.set_head(volume, name, head)
        return name

    def files(self, name: VersionName) -> dict[str, bytes]:
        """Every path of a version and its content, read from the store past every cache."""
        with ChunkStore(self.store, self.root.base, max_fetches=2) as chunks:
            snapshot = Snapshot(self.root.load(name).snapshot, NodeCache(chunks.index_reader))
            return dict(self._walk(snapshot, chunks, ROOT_INODE, ""))

    def snapshot(self, ref: SnapshotRef) -> Snapshot:
        return Snapshot(ref, NodeCache(self.chunks.index_reader))

    def lease(self, volume: str, base: VersionName | None, *, seconds: float = 60.0) -> None:
        """Leaves a lease as a writer of another machine holds it from now on."""
        now = self.clock.time()
        record = LeaseRecord(
            token=f"token of {volume}",
            holder="somebody",
            host="elsewhere",
            pid=1,
            process="1",
            base=None if base is None else base.id,
            started=now,
            expires=now + seconds,
        )
        self.store.write_bytes(self.root.lease_reference(volume), record.encode())

    def renew(self, volume: str, seconds: float = 60.0) -> None:
        """Renews such a lease."""
        raw = self.store.read_bytes(self.root.lease_reference(volume))
        record = evolve(LeaseRecord.decode(raw), expires=self.clock.time() + seconds)
        self.store.write_bytes(self.root.lease_reference(volume), record.encode())

    def packs(self) -> dict[PackKind, set[bytes]]:
        return {kind: {entry.pack for entry in self.chunks.list_packs(kind)} for kind in PackKind}

    def pack_of(self, name: VersionName, path: str) -> DataReference:
        """Where the first block of a file lies."""
        snapshot = self.snapshot(self.root.load(name).snapshot)
        record = InodeRecord.decode(snapshot.get(inode_key(self.ino_of(name, path))) or b"")
        return self.chunks.pack_reference(PackKind.DATA, unpack_extents(record.extents)[0].block.pack)

    def ino_of(self, name: VersionName, path: str) -> int:
        snapshot = self.snapshot(self.root.load(name).snapshot)
        ino = ROOT_INODE
        for part in path.split("/"):
            ino = EntryRecord.decode(snapshot.get(entry_key(ino, part.encode())) or b"").ino
        return ino

    def close(self) -> None:
        self.chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _records(self, files: Files, before: Records) -> Records:
        """The records of files; what is there already keeps its inode number and, if equal, its blocks."""
        known = _paths(before)
        superblock = Superblock.decode(before[SUPERBLOCK]) if before else Superblock()
        records: Records = {}
        next_ino = superblock.next_ino
        numbers = {"": ROOT_INODE}
        subdirectories: dict[str, int] = {"": 0}
        contents: dict[str, list[Extent]] = {}
        writer = self.chunks.writer()
        pending: list[tuple[str, int, PendingBlock]] = []
        for path, content in sorted(files.items()):
            parts = path.split("/")
            for depth in range(1, len(parts) + 1):
                current = "/".join(parts[:depth])
                if current in numbers:
                    continue
                above = "/".join(parts[: depth - 1])
                is_directory = depth < len(parts)
                number = known.get(current)
                if number is None or _is_directory(before, number) != is_directory:
                    number, next_ino = next_ino, next_ino + 1
                numbers[current] = number
                if is_directory:
                    subdirectories[current] = 0
                    subdirectories[above] += 1
                mode = stat.S_IFDIR if is_directory else stat.S_IFREG
                records[entry_key(numbers[above], parts[depth - 1].encode())] = EntryRecord(number, mode).encode()
            if numbers[path] in known.values() and self._content(before, numbers[path]) == content:
                contents[path] = _extents_of(before, numbers[path])
            else:
                starts = range(0, len(content), BLOCK)
                pending += [(path, start, writer.add(content[start : start + BLOCK])) for start in starts]
                contents[path] = []
        writer.flush()
        for path, start, block in pending:
            contents[path].append(Extent(start, block.ref.length, 0, block.ref))
        writer.close()
        for path, count in subdirectories.items():
            number = numbers[path]
            parent = numbers["/".join(path.split("/")[:-1])]
            records[inode_key(number)] = _inode(stat.S_IFDIR | 0o755, nlink=2 + count, parent=parent).encode()
        for path, extents in contents.items():
            many = len(extents) > INLINE_EXTENTS
            size = len(files[path])
            record = _inode(
                stat.S_IFREG | 0o644,
                nlink=1,
                parent=numbers["/".join(path.split("/")[:-1])],
                size=size,
                allocated=size,
                extents=b"" if many else pack_extents(extents),
                many_extents=many,
            )
            records[inode_key(numbers[path])] = record.encode()
            for start in range(0, len(extents) if many else 0, 3):
                part = extents[start : start + 3]
                records[extents_key(numbers[path], part[0].offset)] = pack_extents(part)
        records[SUPERBLOCK] = Superblock(
            next_ino=next_ino, used_bytes=sum(map(len, files.values())), inode_count=len(numbers)
        ).encode()
        return records

    def _content(self, records: Records, ino: int) -> bytes:
        extents = _extents_of(records, ino)
        return b"".join(self.chunks.reader.read_many([(extent.block, 0, None) for extent in extents]))

    def _walk(self, snapshot: Snapshot, chunks: ChunkStore, ino: int, path: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        prefix = entry_prefix(ino)
        for key, value in snapshot.scan(prefix, after_prefix(prefix)):
            entry = EntryRecord.decode(value)
            below = f"{path}/{name_of(key).decode()}".lstrip("/")
            if entry.kind == stat.S_IFDIR:
                found += self._walk(snapshot, chunks, entry.ino, below)
                continue
            record = InodeRecord.decode(snapshot.get(inode_key(entry.ino)) or b"")
            content = bytearray(record.size)
            raw = record.extents
            if record.many_extents:
                start = extents_prefix(entry.ino)
                raw = b"".join(part for _, part in snapshot.scan(start, after_prefix(start)))
            for extent in unpack_extents(raw):
                data = chunks.reader.read(extent.block, extent.skip, extent.length)
                content[extent.offset : extent.offset + extent.length] = data
            found.append((below, bytes(content)))
        return found


class Clock:
    """A clock that tests move; stands in for the module ``time`` where packs get their ids."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


def _inode(mode: int, **more: Any) -> InodeRecord:
    return InodeRecord(
        mode=mode, uid=0, gid=0, size=more.pop("size", 0), atime_ns=0, mtime_ns=0, ctime_ns=0, btime_ns=0, **more
    )


def _is_directory(records: Records, ino: int) -> bool:
    return stat.S_ISDIR(InodeRecord.decode(records[inode_key(ino)]).mode)


def _paths(records: Records) -> dict[str, int]:
    """Every path and its inode number."""
    found = {"": ROOT_INODE}
    waiting = [("", ROOT_INODE)]
    entries = sorted((key, value) for key, value in records.items() if key[:1] == ENTRY)
    while waiting:
        path, ino = waiting.pop()
        for key, value in entries:
            if key.startswith(entry_prefix(ino)):
                entry = EntryRecord.decode(value)
                below = f"{path}/{name_of(key).decode()}".lstrip("/")
                found[below] = entry.ino
                if entry.kind == stat.S_IFDIR:
                    waiting.append((below, entry.ino))
    return found


def _extents_of(records: Records, ino: int) -> list[Extent]:
    record = InodeRecord.decode(records[inode_key(ino)])
    if not record.many_extents:
        return unpack_extents(record.extents)
    prefix = extents_prefix(ino)
    return unpack_extents(b"".join(value for key, value in sorted(records.items()) if key.startswith(prefix)))
