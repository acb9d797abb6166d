"""Looking at record directories: every entry of them, and the digests of what has not changed since last time."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Mapping
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple

from attrs import field, frozen

from datastore.events import get_logger
from stowstore.records.directory import MARKER, RecordDirectory
from stowstore.records.errors import InvalidRecord
from stowstore.records.model import FileKind
from stowstore.records.paths import check_link

__all__ = ["DigestCache", "Found", "Scan", "Stamp", "scan"]

#: A file younger than this, in nanoseconds, may change again without its times showing it.
_SETTLED_NS: Final = 100_000_000
#: Another name with another form of its rows: caches of other releases lie in the same file.
_TABLE: Final = "known_digests"

_log = get_logger(component="records")


class Stamp(NamedTuple):
    """What tells that a file is the one it was: it changes with every write."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of what `os.lstat` or `os.fstat` said."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Found(NamedTuple):
    """One entry of a directory; ``path`` is relative, with bytes that are no UTF-8 as surrogates."""

    path: str
    kind: FileKind
    mode: int
    stamp: Stamp
    target: str = ""


@frozen
class Scan:
    """The entries of a record, by path, and the directories of the records nested in it."""

    entries: tuple[Found, ...]
    nested: tuple[Path, ...] = field(default=())


def scan(directory: str | os.PathLike[str], uuid: str) -> Scan:
    """Everything in the directory of a record; links are not followed, run records of it are not entered.

    A record in it that names another parent is a misplaced copy, and its files are files like any other.

    Raises:
        InvalidRecord: it holds what no record can: a device, a socket, a link that leads out.
    """
    entries: list[Found] = []
    nested: list[Path] = []
    waiting = [("", os.fspath(directory))]
    while waiting:
        prefix, path = waiting.pop()
        count = 0
        try:
            with os.scandir(path) as listing:
                found = list(listing)
        except FileNotFoundError:
            # Removed while we looked, which is a change like any other.
            continue
        if prefix and any(entry.name == MARKER for entry in found) and _parent_of(path) == uuid:
            nested.append(Path(path))
            continue
        for entry in found:
            name = prefix + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            count += 1
            if stat.S_ISDIR(status.st_mode):
                waiting.append((f"{name}/", entry.path))
            else:
                entries.append(_entry(name, entry.path, status))
        if not count and prefix:
            status = os.lstat(path)
            entries.append(
                Found(prefix[:-1], FileKind.DIRECTORY, stat.S_IMODE(status.st_mode) & 0o777, Stamp.of(status))
            )
    entries.sort(key=itemgetter(0))
    return Scan(tuple(entries), tuple(sorted(nested)))


class DigestCache:
    """The digests of files, kept in one SQLite file, so that what has not changed is not read again.

    An entry is believed while size, times and inode of the file are what they were; files that were changed within a
    tenth of a second before they were read are not entered.  Losing the cache costs reading the files once.
    Thread-safe, and safe among processes.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path) if path is not None else _default_path()

    def load(self, directory: str | os.PathLike[str]) -> Mapping[str, tuple[Stamp, str]]:
        """What is known of a directory: stamp and digest by path; nothing where the cache cannot be read."""
        try:
            with closing(self._connect()) as database:
                row = database.execute(f"SELECT known FROM {_TABLE} WHERE directory = ?", (_key(directory),)).fetchone()
            # One text a directory: as many rows as files take several times as long to read.
            rows = json.loads(row[0]) if row is not None else ()
            return {path: (Stamp._make(stamp), digest) for path, stamp, digest in rows}
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            self._useless(error)
            return {}

    def save(self, directory: str | os.PathLike[str], known: Mapping[str, tuple[Stamp, str]]) -> None:
        """Replaces what is known of a directory."""
        text = json.dumps([(path, *entry) for path, entry in known.items()], separators=(",", ":"))
        self._change(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?)", _key(directory), text)

    def forget(self, directory: str | os.PathLike[str]) -> None:
        """Drops what is known of a directory."""
        self._change(f"DELETE FROM {_TABLE} WHERE directory = ?", _key(directory))

    def _change(self, statement: str, *values: object) -> None:
        try:
            with closing(self._connect()) as database, database:
                database.execute(statement, values)
        except (sqlite3.Error, OSError) as error:
            self._useless(error)

    def _useless(self, error: Exception) -> None:
        # It only saves work: a damaged or unwritable one must not keep anybody from committing.
        _log.warning("records.digest_cache_failed", path=str(self._path), error=str(error))

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=5.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")
            database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (directory BLOB PRIMARY KEY, known TEXT NOT NULL)")
        except BaseException:
            database.close()
            raise
        return database


def settled(stamp: Stamp, looked_at_ns: int) -> bool:
    """Whether a file that was read at a time cannot have changed since without its stamp showing it."""
    return looked_at_ns - max(stamp.mtime_ns, stamp.ctime_ns) > _SETTLED_NS


def digest_of(path: str | os.PathLike[str]) -> tuple[Stamp, str]:
    """Reads a file once: its stamp before, and the digest of as many bytes as it had then."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as stream:
        before = Stamp.of(os.fstat(stream.fileno()))
        digest = hashlib.sha256()
        left = before.size
        while left and (piece := stream.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        return before, digest.hexdigest()


def now_ns() -> int:
    """The clock of file times."""
    return time.time_ns()


def _entry(name: str, path: str, status: os.stat_result) -> Found:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISREG(status.st_mode):
        return Found(name, FileKind.FILE, mode, Stamp.of(status))
    if stat.S_ISLNK(status.st_mode):
        return Found(name, FileKind.LINK, mode, Stamp.of(status), check_link(name, os.readlink(path)))
    raise InvalidRecord(
        f"{path!r} is neither file, directory nor link", hint="sockets, pipes and devices cannot be stored: remove it"
    )


def _parent_of(path: str) -> str | None:
    try:
        return RecordDirectory.open(path).header.parent
    except InvalidRecord:
        return None


def _key(directory: str | os.PathLike[str]) -> bytes:
    return os.fsencode(os.path.realpath(directory))


def _default_path() -> Path:
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(above) / "stowstore" / "records.sqlite"
