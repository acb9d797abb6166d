"""One version as the explorer sees it: pages of directories, details, and the first bytes of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice, takewhile

from attrs import field, frozen

from datastore.context import check
from stowstore.chunks.reader import BlockReader
from stowstore.index import keys
from stowstore.index.node import NodeCache
from stowstore.index.records import CorruptRecord, EntryRecord, Extent, InodeRecord, unpack_extents
from stowstore.index.snapshot import Snapshot
from stowstore.versions.manifest import Manifest

__all__ = ["Details", "Entry", "ExploredVersion", "Page"]

#: How many extents and extended attributes of one file are read to be shown.
_MOST_SHOWN = 200


@frozen(kw_only=True)
class Entry:
    """A name in a version; ``path`` is relative to its top and has no slash in front.

    ``record`` is None where the index is damaged: there is no such inode, or it is a directory that lies elsewhere.
    """

    name: bytes
    path: bytes
    ino: int
    kind: int
    record: InodeRecord | None = field(default=None, repr=False)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.kind)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.kind)


@frozen(kw_only=True)
class Page:
    """Some entries of a directory, ascending by name; ``following`` is where the next page begins, None at the end."""

    entries: list[Entry]
    following: bytes | None = None


@frozen(kw_only=True)
class Details:
    """What the index says of an inode; no more than some hundred extents and attributes, and whether there are more."""

    entry: Entry
    extents: list[Extent]
    xattrs: list[tuple[bytes, bytes]]
    has_more_extents: bool
    has_more_xattrs: bool


class ExploredVersion:
    """Reads one version.  Thread-safe; everything but `head` reads its index only, as far as it is needed."""

    def __init__(self, manifest: Manifest, nodes: NodeCache, blocks: BlockReader) -> None:
        self.manifest = manifest
        self.snapshot = Snapshot(manifest.snapshot, nodes)
        self._blocks = blocks

    def top(self) -> Entry:
        """The directory that everything lies in."""
        raw = self.snapshot.get(keys.inode_key(keys.ROOT_INODE))
        return self._entry(b"", b"", EntryRecord(keys.ROOT_INODE, stat.S_IFDIR), raw, parent=None)

    def page(self, directory: Entry, start: bytes, limit: int) -> Page:
        """The names of a directory from ``start`` on."""
        prefix = keys.entry_prefix(directory.ino)
        pairs = list(islice(self.snapshot.scan(prefix + start, keys.after_prefix(prefix)), limit + 1))
        entries = EntryRecord.decode_all(value for _, value in pairs[:limit])
        check()
        # A damaged index may say anything, also numbers that have no key.
        wanted = {entry.ino: keys.inode_key(entry.ino) for entry in entries if entry.ino >= 0}
        inodes = self.snapshot.find(sorted(wanted.values()))
        check()
        found = [
            self._child(directory, keys.name_of(key), entry, inodes.get(wanted.get(entry.ino, b"")))
            for (key, _), entry in zip(pairs, entries, strict=False)
        ]
        return Page(entries=found, following=keys.name_of(pairs[limit][0]) if len(pairs) > limit else None)

    def chain(self, path: bytes) -> list[Entry]:
        """What lies at a path and every directory above it, from the top down.

        Raises:
            FileNotFoundError: nothing lies there.
        """
        found = [self.top()]
        for name in filter(None, path.split(b"/")):
            raw = self.snapshot.get(keys.entry_key(found[-1].ino, name))
            if raw is None or not found[-1].is_directory:
                raise FileNotFoundError(f"there is no {os.fsdecode(path)!r} in this version")
            entry = EntryRecord.decode(raw)
            inode = self.snapshot.get(keys.inode_key(entry.ino)) if entry.ino >= 0 else None
            found.append(self._child(found[-1], name, entry, inode))
        return found

    def details(self, entry: Entry) -> Details:
        """All that is known of an entry."""
        extents = list(islice(self._extents(entry), _MOST_SHOWN + 1))
        prefix = keys.xattr_prefix(entry.ino)
        pairs = islice(self.snapshot.scan(prefix, keys.after_prefix(prefix)), _MOST_SHOWN + 1)
        xattrs = [(keys.name_of(key), value) for key, value in pairs]
        return Details(
            entry=entry,
            extents=extents[:_MOST_SHOWN],
            xattrs=xattrs[:_MOST_SHOWN],
            has_more_extents=len(extents) > _MOST_SHOWN,
            has_more_xattrs=len(xattrs) > _MOST_SHOWN,
        )

    def head(self, entry: Entry, length: int) -> bytes:
        """The first bytes of a regular file: the one thing here that fetches data, and no more than asked for."""
        assert entry.record is not None
        end = min(length, entry.record.size)
        pieces = list(takewhile(lambda extent: extent.offset < end, self._extents(entry)))
        found = bytearray(end)
        wanted = [(piece.block, piece.skip, min(piece.length, end - piece.offset)) for piece in pieces]
        for piece, data in zip(pieces, self._blocks.read_many(wanted), strict=True):
            found[piece.offset : piece.offset + len(data)] = data
        return bytes(found)

    def _child(self, directory: Entry, name: bytes, entry: EntryRecord, raw: bytes | None) -> Entry:
        path = directory.path + b"/" + name if directory.path else name
        return self._entry(name, path, entry, raw, parent=directory.ino)

    @staticmethod
    def _entry(name: bytes, path: bytes, entry: EntryRecord, raw: bytes | None, *, parent: int | None) -> Entry:
        record = _inode(entry, raw)
        if record is not None and parent is not None and stat.S_ISDIR(entry.kind) and record.parent != parent:
            # A directory has one place: an index that shows it in two could be a circle.
            record = None
        return Entry(name=name, path=path, ino=entry.ino, kind=entry.kind, record=record)

    def _extents(self, entry: Entry) -> Iterator[Extent]:
        if entry.record is None:
            return
        yield from unpack_extents(entry.record.extents)
        if entry.record.many_extents:
            prefix = keys.extents_prefix(entry.ino)
            for _, raw in self.snapshot.scan(prefix, keys.after_prefix(prefix)):
                yield from unpack_extents(raw)


def _inode(entry: EntryRecord, raw: bytes | None) -> InodeRecord | None:
    """The inode of an entry, or None where there is none, or another one than the entry says."""
    try:
        record = None if raw is None else InodeRecord.decode(raw)
    except CorruptRecord:
        return None
    return record if record is not None and stat.S_IFMT(record.mode) == entry.kind else None
