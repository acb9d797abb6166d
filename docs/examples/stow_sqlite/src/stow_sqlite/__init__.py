"""A kind of location for stowstore: containers and objects in one SQLite file.

    store = open_store("sqlite://photos?path=/data/objects.db")

`docs/writing-a-kind.md` goes through this module line by line.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from datastore.driver import Container, DriverEntry, DriverPage, resume_after
from datastore.errors import (
    AlreadyExists,
    ContainerNotEmpty,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from datastore.memory import resolve_range
from datastore.model import Capabilities, Feature, Metadata, SignedURLProperties, SignedURLResponse, WriteOptions
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations.base import Dial, Kind, Location, Option

__all__ = ["KIND"]

_CAPABILITIES = Capabilities(
    features={
        Feature.CREATE_IF_ABSENT,
        Feature.ATOMIC_CREATE,
        Feature.REPLACE_IF_MATCH,
        Feature.USER_METADATA,
        Feature.CONTAINERS,
        Feature.EMPTY_SEGMENTS,
        Feature.NESTED_KEYS,
        Feature.PERSISTENT,
    },
    max_object_bytes=500_000_000,  # half of SQLite's own limit for one value
)

# TEXT sorts by its UTF-8 bytes: SQLite's BINARY collation compares with memcmp.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    container TEXT NOT NULL REFERENCES containers (name),
    key TEXT NOT NULL,
    content BLOB NOT NULL,
    etag TEXT NOT NULL,
    modified REAL NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (container, key)
);
"""


class _SqliteLocation:
    """One database file; every thread and every process has a connection of its own."""

    kind = "sqlite"
    scheme = "sqlite"
    capabilities = _CAPABILITIES

    def __init__(self, path: str) -> None:
        self._path = path
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._all: list[sqlite3.Connection] = []
        with self.transaction() as database:
            database.executescript(_SCHEMA)

    def container(self, name: str) -> Container:
        return _SqliteContainer(self, name)

    def has_container(self, name: str) -> bool:
        with self.transaction() as database:
            return database.execute("SELECT 1 FROM containers WHERE name = ?", [name]).fetchone() is not None

    def create_container(self, name: str) -> None:
        with self.transaction(writing=True) as database:
            database.execute("INSERT OR IGNORE INTO containers VALUES (?)", [name])

    def delete_container(self, name: str) -> None:
        with self.transaction(writing=True) as database:
            if database.execute("SELECT 1 FROM objects WHERE container = ?", [name]).fetchone():
                raise ContainerNotEmpty("the container holds objects", hint="delete them first")
            if not database.execute("DELETE FROM containers WHERE name = ?", [name]).rowcount:
                raise NoSuchContainer(f"there is no container {name}")

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        with self.transaction() as database:
            found = database.execute("SELECT name FROM containers ORDER BY name").fetchall()
        return (name for (name,) in found if name.startswith(prefix))

    def close(self) -> None:
        with self._lock:
            connections, self._all = self._all, []
        self._mine = threading.local()
        for connection in connections:
            connection.close()

    @contextmanager
    def transaction(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing, on this thread's connection; the one place where SQLite's errors become ours."""
        try:
            database = self._connection()
            database.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            try:
                yield database
            except BaseException:
                database.rollback()
                raise
            database.commit()
        except sqlite3.Error as error:
            raise _translate(error) from error

    def _connection(self) -> sqlite3.Connection:
        # A forked child may not use its parent's connections, so they are kept by process too.
        known = getattr(self._mine, "connection", None)
        if known is None or self._mine.process != os.getpid():
            known = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            self._mine.connection, self._mine.process = known, os.getpid()
            with self._lock:
                self._all.append(known)
        return known


class _SqliteContainer:
    """One container: rows of one table."""

    def __init__(self, location: _SqliteLocation, name: str) -> None:
        self._location = location
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        with self._location.transaction() as database:
            return self._head(database, key)

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        with self._location.transaction() as database:
            known = self._head(database, key)
            if if_match is not None and if_match != known.etag:
                raise PreconditionFailed(f"the object has etag {known.etag}, not {if_match}")
            first, count = resolve_range(known.size, start, length)
            (content,) = database.execute(
                "SELECT substr(content, ?, ?) FROM objects WHERE container = ? AND key = ?",
                [first + 1, count, self._name, key],
            ).fetchone()
        return ReadStream(content, count, known)

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        # Read before the transaction begins: the caller's stream may be slow, or fail, or use this very store.
        content = source.data
        content = source.read() if content is None else content
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        row = [self._name, key, content, etag, datetime.now(UTC).timestamp(), json.dumps(dict(options.metadata))]
        with self._location.transaction(writing=True) as database:
            self._require_container(database)
            known = self._etag(database, key)
            if options.if_absent and known is not None:
                raise AlreadyExists("there is an object of this key")
            if options.if_match is not None and options.if_match != known:
                raise PreconditionFailed(f"the object is not the one of etag {options.if_match}")
            database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)
        return etag

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        with self._location.transaction(writing=True) as database:
            rows = [(self._name, key) for key in keys]
            database.executemany("DELETE FROM objects WHERE container = ? AND key = ?", rows)
        return {}

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        entries: list[DriverEntry] = []
        prefixes: list[str] = []
        with self._location.transaction() as database:
            self._require_container(database)
            position = resume_after(after, delimiter, prefix)
            while (entry := self._next(database, prefix, position)) is not None:
                if len(entries) + len(prefixes) == limit:
                    return DriverPage(entries, prefixes, more=True)
                rest = entry.key[len(prefix) :]
                if delimiter and delimiter in rest:
                    prefixes.append(prefix + rest[: rest.index(delimiter) + 1])
                    position = resume_after(prefixes[-1], delimiter, prefix)
                else:
                    entries.append(entry)
                    position = entry.key
        return DriverPage(entries, prefixes)

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        raise NotSupported("objects are copied by reading and writing them")

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        raise NotSupported("a database file has no URLs")

    def _next(self, database: sqlite3.Connection, prefix: str, position: str) -> DriverEntry | None:
        """The first object after a position that starts with the prefix."""
        row = database.execute(
            "SELECT key, length(content), etag, modified FROM objects"
            " WHERE container = ? AND key > ? AND key >= ? AND substr(key, 1, ?) = ? ORDER BY key LIMIT 1",
            [self._name, position, prefix, len(prefix), prefix],
        ).fetchone()
        return None if row is None else DriverEntry(row[0], row[1], row[2], datetime.fromtimestamp(row[3], UTC))

    def _head(self, database: sqlite3.Connection, key: str) -> Metadata:
        row = database.execute(
            "SELECT length(content), etag, modified, metadata FROM objects WHERE container = ? AND key = ?",
            [self._name, key],
        ).fetchone()
        if row is None:
            self._require_container(database)
            raise NotFound("there is no such object")
        size, etag, modified, metadata = row
        return Metadata(
            exists=True,
            size=size,
            etag=etag,
            last_modified=datetime.fromtimestamp(modified, UTC),
            user_metadata=json.loads(metadata),
        )

    def _etag(self, database: sqlite3.Connection, key: str) -> str | None:
        row = database.execute("SELECT etag FROM objects WHERE container = ? AND key = ?", [self._name, key]).fetchone()
        return None if row is None else str(row[0])

    def _require_container(self, database: sqlite3.Connection) -> None:
        if database.execute("SELECT 1 FROM containers WHERE name = ?", [self._name]).fetchone() is None:
            raise NoSuchContainer(f"there is no container {self._name}")


def _translate(error: sqlite3.Error) -> StoreError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return TransientError(f"the database is busy: {error}")
    return StoreError(f"SQLite failed: {error}")


def _dial(dial: Dial) -> Location:
    return _SqliteLocation(dial.options["path"])


KIND = Kind(
    name="sqlite",
    schemes=("sqlite",),
    dial=_dial,
    options={"path": Option(help="the database file; made when it is missing", required=True)},
    summary="objects in one SQLite file",
)
