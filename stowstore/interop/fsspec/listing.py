"""What fsspec is told of files and directories of a volume; those of a version at once, straight from its index."""

from __future__ import annotations

import stat
from typing import Any, Final, Protocol

from stowstore.index.keys import entry_prefix, inode_key
from stowstore.index.records import CorruptRecord, InodeRecord
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.handles import stored_entries
from stowstore.namespace.inodes import Attributes
from stowstore.volumes.files import Files
from stowstore.volumes.paths import as_text, as_texts, encoded, find

__all__ = ["info_of", "listed", "shown", "version_listing"]

#: How many names a listing asks for at once.
_NAMES: Final = 4096

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

    All at once, which is faster than by way of the namespace: that keeps what it has seen.

    Raises:
        CorruptRecord: a name leads to no inode.
    """
    names: list[bytes] = []
    numbers: list[int] = []
    for some, entries in stored_entries(snapshot, entry_prefix(ino), entry_prefix(ino + 1)):
        names += some
        numbers += [entry.ino for entry in entries]
    wanted = list(map(inode_key, numbers))
    stored = snapshot.find(sorted(wanted))
    try:
        records = InodeRecord.decode_all(map(stored.__getitem__, wanted))
    except KeyError as error:
        name = names[wanted.index(error.args[0])]
        raise CorruptRecord(f"a directory of the volume has an entry without an inode: {name[:300]!r}") from None
    return [
        info_of(f"{path}/{name}", number, record)
        for name, number, record in zip(as_texts(names), numbers, records, strict=True)
    ]


def listed(files: Files, ino: int, name: str, path: str) -> list[dict[str, Any]]:
    """What lies in a directory of a version, or of a volume that is written."""
    source = files._source()
    found: list[dict[str, Any]] = []
    if files.read_only:
        found = version_listing(source.snapshot, ino, name)
    else:
        handle = source.opendir(ino, files._caller)
        try:
            cookie = 0
            while entries := source.readdirplus(handle, cookie, _NAMES):
                cookie = entries[-1].cookie
                found += [
                    info_of(f"{name}/{as_text(entry.name)}", entry.ino, entry.attributes)
                    for entry in entries
                    if entry.attributes is not None and entry.name not in (b".", b"..")
                ]
        finally:
            source.releasedir(handle)
    for position, info in enumerate(found):
        if info["islink"]:
            found[position] = _link_info(files, info, f"{path}{info['name'].removeprefix(name)}")
    return found


def shown(files: Files, name: str, path: str, found: Attributes) -> dict[str, Any]:
    """What is known of a file or directory; of a link what it leads to."""
    info = info_of(name, found.ino, found)
    return _link_info(files, info, path) if info["islink"] else info


def _link_info(files: Files, info: dict[str, Any], path: str) -> dict[str, Any]:
    """What is known of what a link leads to, or of the link where that is nowhere."""
    try:
        target = find(files._source(), encoded(path), files._caller)
    except OSError:
        info = {**info, "size": 0}
    else:
        info = info_of(info["name"], target.ino, target)
    return {**info, "islink": True, "destination": files.readlink(path)}
