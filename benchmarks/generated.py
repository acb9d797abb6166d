"""Namespaces of any size, made without making their files: the records of an index, and a manifest over them.

An import of a million files would take most of a run's time and end in the same index.  The files' blocks lie in
packs that do not exist: what is measured reads no content.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from stowstore.chunks.block import BlockRef, Codec
from stowstore.index import keys
from stowstore.index.records import EntryRecord, Extent, InodeRecord, Superblock, pack_extents
from stowstore.index.snapshot import SnapshotRef
from stowstore.index.tree import build_tree
from stowstore.versions.manifest import Manifest, Statistics
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.root import Root

__all__ = ["FILE_BYTES", "directory_name", "file_name", "make_namespace", "place_of"]

#: The size of each file.
FILE_BYTES: Final = 4096

_IN_DIRECTORY: Final = 1000
_PACK_BLOCKS: Final = 1000
_FIRST_DIRECTORY: Final = keys.ROOT_INODE + 1
_TIME: Final = 1_700_000_000_000_000_000


def make_namespace(root: Root, volume: str, files: int) -> Manifest:
    """Commits a first version of a volume with so many files of 4 KiB, a thousand a directory."""
    with chunk_store(root, SessionOptions()) as chunks:
        writer = chunks.index_writer()
        try:
            tree = build_tree(_records(files), writer)
            writer.flush()
        finally:
            writer.close()
    manifest = Manifest(
        volume=volume,
        snapshot=SnapshotRef(tree=tree),
        statistics=Statistics(
            used_bytes=files * FILE_BYTES,
            inode_count=1 + _directories(files) + files,
            index_bytes=writer.stored_bytes,
        ),
    )
    root.set_head(volume, root.write_manifest(manifest), None)
    return manifest


def place_of(number: int) -> tuple[bytes, bytes]:
    """The directory and the name of a file."""
    return directory_name(number // _IN_DIRECTORY), file_name(number % _IN_DIRECTORY)


def directory_name(number: int) -> bytes:
    return b"directory-%06d" % number


def file_name(number: int) -> bytes:
    return b"file-%06d.bin" % number


def _directories(files: int) -> int:
    return -(-files // _IN_DIRECTORY)


def _records(files: int) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of the index, ascending: entries, inodes, superblock."""
    directories = _directories(files)
    first_file = _FIRST_DIRECTORY + directories
    for number in range(directories):
        entry = EntryRecord(ino=_FIRST_DIRECTORY + number, kind=stat.S_IFDIR)
        yield keys.entry_key(keys.ROOT_INODE, directory_name(number)), entry.encode()
    for number in range(files):
        entry = EntryRecord(ino=first_file + number, kind=stat.S_IFREG)
        parent = _FIRST_DIRECTORY + number // _IN_DIRECTORY
        yield keys.entry_key(parent, file_name(number % _IN_DIRECTORY)), entry.encode()
    yield keys.inode_key(keys.ROOT_INODE), _directory_record(2 + directories).encode()
    for number in range(directories):
        yield keys.inode_key(_FIRST_DIRECTORY + number), _directory_record(2).encode()
    for number in range(files):
        yield keys.inode_key(first_file + number), _file_record(number).encode()
    superblock = Superblock(
        next_ino=first_file + files, used_bytes=files * FILE_BYTES, inode_count=1 + directories + files
    )
    yield keys.SUPERBLOCK, superblock.encode()


def _directory_record(links: int) -> InodeRecord:
    return InodeRecord(0o40755, 0, 0, links, 0, _TIME, _TIME, _TIME, _TIME, parent=keys.ROOT_INODE)


def _file_record(number: int) -> InodeRecord:
    # Names of blocks and packs are as random as real ones, so that the index compresses no better than a real one.
    block = BlockRef(
        blake2b(b"%d" % (number // _PACK_BLOCKS), digest_size=16).digest(),
        number % _PACK_BLOCKS * FILE_BYTES,
        FILE_BYTES,
        FILE_BYTES,
        Codec.RAW,
        blake2b(b"block %d" % number, digest_size=32).digest(),
    )
    made = _TIME + number * 12_345_678
    return InodeRecord(
        0o100644,
        0,
        0,
        1,
        FILE_BYTES,
        made,
        made,
        made,
        made,
        parent=_FIRST_DIRECTORY + number // _IN_DIRECTORY,
        extents=pack_extents([Extent(0, FILE_BYTES, 0, block)]),
        allocated=FILE_BYTES,
    )
