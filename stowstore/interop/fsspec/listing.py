"""Whole directories of a version at once, straight from its index."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any, Final, Protocol

from stowstore.index.keys import inode_key
from stowstore.index.records import CorruptRecord, InodeRecord
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.handles import directory_entries
from stowstore.volumes.paths import as_text

__all__ = ["info_of", "version_listing"]

#: How sparse the inodes of a directory may be for one scan over all of them to be cheaper than a look for each.
_SPARSE: Final = 4


_TYPES: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


class Shown(Protocol):
    """What of an inode is shown."""

    @property
    def mode(self) -> int: ...
    @property
    def nlink(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...


def info_of(name: str, ino: int, found: Shown) -> dict[str, Any]:
    """What fsspec is told of a file or directory; of a link itself, not of what it leads to."""
    mode = found.mode
    kind = mode & 0o170000
    return {
        "name": name,
        "size": found.size if kind == 0o100000 else 0,
        "type": _TYPES.get(kind, "other"),
        "mode": mode,
        "uid": found.uid,
        "gid": found.gid,
        "mtime": found.mtime_ns / 1e9,
        "ctime": found.ctime_ns / 1e9,
        "ino": ino,
        "nlink": found.nlink,
        "islink": kind == 0o120000,
    }


def version_listing(snapshot: Snapshot, ino: int, path: str) -> list[dict[str, Any]]:
    """What `info_of` says of everything in a directory, ascending by name.

    Files that were made together have their inodes side by side, so that one scan of the index brings them all; by
    way of the namespace, which looks for each and keeps it, a listing takes three times as long.

    Raises:
        CorruptRecord: a name leads to no inode.
    """
    entries = [(name, entry.ino) for name, entry in directory_entries(snapshot, ino, {})]
    if not entries:
        return []
    numbers = [number for _, number in entries]
    first, last = min(numbers), max(numbers)
    record: Callable[[bytes], bytes | None] = snapshot.get
    if last - first < _SPARSE * len(entries):
        record = dict(snapshot.scan(inode_key(first), inode_key(last + 1))).get
    decode = InodeRecord.decode
    infos = []
    for name, number in entries:
        raw = record(inode_key(number))
        if raw is None:
            raise CorruptRecord(f"a directory of the volume has an entry without an inode: {name[:300]!r}")
        infos.append(info_of(f"{path}/{as_text(name)}", number, decode(raw)))
    return infos
