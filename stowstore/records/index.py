"""The index: a catalogue of records in SQLite, rebuilt from stores or directories whenever it is lost."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from stowstore.records.directory import MARKER, RecordDirectory
from stowstore.records.errors import RecordCollision
from stowstore.records.identity import canonical_json
from stowstore.records.model import Edge, Manifest, RecordHeader
from stowstore.records.scanning import scan

if TYPE_CHECKING:
    from stowstore.records.store import RecordStore

__all__ = ["Comparison", "Filter", "IndexEntry", "RecordIndex"]

_VERSION: Final = 1
_PATH_PART: Final = re.compile(r"[A-Za-z0-9_\-\[\]]+")
_MOST: Final = 1000

_SCHEMA: Final = """
CREATE TABLE records (
    uuid TEXT PRIMARY KEY, kind TEXT NOT NULL, module TEXT, identity_key TEXT NOT NULL, predicate_key TEXT NOT NULL,
    parent TEXT, label TEXT, predicate_json TEXT NOT NULL, config_json TEXT NOT NULL, created_at_ns INTEGER NOT NULL,
    created_by TEXT, updated_at TEXT NOT NULL, generation INTEGER NOT NULL, files INTEGER NOT NULL,
    bytes INTEGER NOT NULL, home_uri TEXT, directory BLOB, bytes_missing INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX by_identity ON records (identity_key, predicate_key);
CREATE INDEX by_predicate ON records (predicate_key);
CREATE INDEX by_parent ON records (parent);
CREATE INDEX by_label ON records (label);
CREATE INDEX by_module ON records (module);
CREATE INDEX by_time ON records (created_at_ns);
CREATE TABLE edges (
    name TEXT NOT NULL, uuid TEXT NOT NULL, related_uuid TEXT NOT NULL, fn TEXT NOT NULL,
    PRIMARY KEY (uuid, related_uuid, name, fn)
) WITHOUT ROWID;
CREATE INDEX by_related ON edges (related_uuid);
"""


class Comparison(StrEnum):
    """How a filter compares; values of other types compare as SQLite does: null, numbers, text."""

    EQ = "="
    NE = "!="
    LT = "<"
    LTE = "<="
    GT = ">"
    GTE = ">="


@frozen
class Filter:
    """A condition on a value in the configuration of records; ``path`` is dotted."""

    path: str
    comparison: Comparison
    value: str | int | float | bool | None


@frozen(kw_only=True)
class IndexEntry:
    """What the index knows of a record; ``directory`` is its local copy, if there is one."""

    uuid: str
    kind: str
    module: str | None
    identity_key: str
    predicate_key: str
    parent: str | None
    label: str | None
    predicate: Mapping[str, Any]
    config: Mapping[str, Any]
    created_at_ns: int
    created_by: str | None
    updated_at: str
    generation: int
    files: int
    bytes: int
    home_uri: str | None
    directory: Path | None
    bytes_missing: bool


class RecordIndex:
    """A catalogue of records; thread-safe, and safe among processes.

    It is a cache: truth is in the stores and the directories, and `rebuild` and `ingest` make it anew.  An index of
    another version is emptied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self._changing() as database:
            if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                for table in ("records", "edges"):
                    database.execute(f"DROP TABLE IF EXISTS {table}")
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")

    def add(
        self, manifest: Manifest, *, home_uri: str | None = None, directory: str | os.PathLike[str] | None = None
    ) -> None:
        """Enters a record, or what is new of it; adding the same twice changes nothing.

        Raises:
            RecordCollision: the uuid is that of a record of another identity.
        """
        with self._changing() as database:
            self._add(database, manifest, home_uri, directory)

    def ingest(self, directory: str | os.PathLike[str], *, relations: bool = True) -> str:
        """Enters a record directory and the run records in it; returns its uuid."""
        record = RecordDirectory.open(directory)
        with self._changing() as database:
            self._add(database, _manifest_of(record, relations), None, record.path)
        for nested in scan(record.path, record.uuid).nested:
            self.ingest(nested, relations=relations)
        return record.uuid

    def ingest_below(self, root: str | os.PathLike[str]) -> list[str]:
        """Enters every record directory at or below a path; links are not followed."""
        found: list[str] = []
        for above, directories, names in os.walk(root, followlinks=False):
            if MARKER in names:
                found.append(self.ingest(above))
                directories.clear()
        return found

    def rebuild(self, store: RecordStore) -> int:
        """Enters every record of a store, of its manifests alone; records it does not have any more are marked.

        Returns how many there are.
        """
        home = f"{store.root()}"
        seen: set[str] = set()
        batch: list[Manifest] = []
        for manifest in store.walk():
            batch.append(manifest)
            seen.add(manifest.uuid)
            if len(batch) == _MOST:
                self._add_all(batch, store)
                batch = []
        self._add_all(batch, store)
        with self._changing() as database:
            rows = database.execute("SELECT uuid, home_uri FROM records WHERE home_uri IS NOT NULL").fetchall()
            gone = [row["uuid"] for row in rows if row["uuid"] not in seen and row["home_uri"].startswith(home)]
            for uuid in gone:
                _mark_missing(database, uuid)
        return len(seen)

    def get(self, uuid: str) -> IndexEntry | None:
        """What is known of a record, by its uuid or the last six characters of it, if they are one record's."""
        with self._lock:
            row = self._database.execute("SELECT * FROM records WHERE uuid = ?", (uuid,)).fetchone()
            if row is None and len(uuid) == 6:
                rows = self._database.execute(
                    "SELECT * FROM records WHERE substr(uuid, -6) = ? LIMIT 2", (uuid,)
                ).fetchall()
                row = rows[0] if len(rows) == 1 else None
        return None if row is None else _entry(row)

    def locate(self, uuid: str) -> Path | None:
        """The local copy of a record, if it is there."""
        entry = self.get(uuid)
        if entry is None or entry.directory is None or not (entry.directory / MARKER).is_file():
            return None
        return entry.directory

    def related(self, uuid: str) -> list[Edge]:
        """The edges at a record, in both directions."""
        with self._lock:
            rows = self._database.execute(
                "SELECT * FROM edges WHERE uuid = ? UNION SELECT * FROM edges WHERE related_uuid = ?", (uuid, uuid)
            ).fetchall()
        return [Edge(row["name"], row["uuid"], row["related_uuid"], row["fn"]) for row in rows]

    def find(
        self,
        *,
        kind: str | None = None,
        module: str | None = None,
        label: str | None = None,
        parent: str | None = None,
        created_by: str | None = None,
        identity_key: str | None = None,
        predicate_key: str | None = None,
        predicate: Mapping[str, str | int | float | bool | None] | None = None,
        config: Iterable[Filter] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        include_missing: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[IndexEntry], int]:
        """The records that fit all that is given, the newest first, and how many there are in all.

        ``predicate`` holds values by dotted path.  Records whose bytes are nowhere are left out unless asked for.

        Raises:
            ValueError: a path that is none, or a limit outside 1 to 1000.
        """
        if not 1 <= limit <= _MOST:
            raise ValueError(f"the limit is between 1 and {_MOST}, not {limit}")
        conditions: list[str] = [] if include_missing else ["bytes_missing = 0"]
        values: list[Any] = []
        exact = {
            "kind": kind,
            "module": module,
            "label": label,
            "parent": parent,
            "created_by": created_by,
            "identity_key": identity_key,
            "predicate_key": predicate_key,
        }
        for column, value in exact.items():
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        for path, wanted in (predicate or {}).items():
            conditions.append("json_extract(predicate_json, ?) IS ?")
            values += [_json_path(path), wanted]
        for condition in config:
            operator = {Comparison.EQ: "IS", Comparison.NE: "IS NOT"}.get(
                condition.comparison, condition.comparison.value
            )
            conditions.append(f"json_extract(config_json, ?) {operator} ?")
            values += [_json_path(condition.path), condition.value]
        for bound, sign in ((since, ">="), (until, "<")):
            if bound is not None:
                conditions.append(f"created_at_ns {sign} ?")
                values.append(int(bound.timestamp() * 1e9))
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._lock:
            total = self._database.execute(f"SELECT count(*) FROM records {where}", values).fetchone()[0]
            rows = self._database.execute(
                f"SELECT * FROM records {where} ORDER BY created_at_ns DESC, uuid LIMIT ? OFFSET ?",
                (*values, limit, offset),
            ).fetchall()
        return [_entry(row) for row in rows], total

    def all(self, **conditions: Any) -> Iterator[IndexEntry]:
        """Everything `find` finds, page by page."""
        offset = 0
        while True:
            page, _ = self.find(**conditions, limit=_MOST, offset=offset)
            yield from page
            if len(page) < _MOST:
                return
            offset += _MOST

    def check_local(self) -> tuple[int, list[str]]:
        """Looks whether the local copies are there, and forgets those that are not.

        Returns how many were looked at, and the uuids of those that were gone.
        """
        with self._lock:
            rows = self._database.execute("SELECT uuid, directory FROM records WHERE directory IS NOT NULL").fetchall()
        gone = [row["uuid"] for row in rows if not (Path(os.fsdecode(row["directory"])) / MARKER).is_file()]
        for uuid in gone:
            self.mark_remote(uuid)
        return len(rows), gone

    def mark_missing(self, uuid: str) -> None:
        """Says that the store has lost a record: without a local copy its bytes are nowhere."""
        with self._changing() as database:
            _mark_missing(database, uuid)

    def mark_remote(self, uuid: str) -> None:
        """Says that a record has no local copy any more."""
        with self._changing() as database:
            database.execute(
                "UPDATE records SET directory = NULL, bytes_missing = home_uri IS NULL WHERE uuid = ?", (uuid,)
            )

    def close(self) -> None:
        self._database.close()

    def _add_all(self, manifests: Iterable[Manifest], store: RecordStore) -> None:
        with self._changing() as database:
            for manifest in manifests:
                self._add(database, manifest, store.home_uri(manifest.uuid), None)

    def _add(
        self,
        database: sqlite3.Connection,
        manifest: Manifest,
        home_uri: str | None,
        directory: str | os.PathLike[str] | None,
    ) -> None:
        header = manifest.header
        known = database.execute(
            "SELECT identity_key, predicate_key FROM records WHERE uuid = ?", (header.uuid,)
        ).fetchone()
        if known is not None and tuple(known) != (header.identity_key, header.predicate_key):
            raise RecordCollision(
                f"the uuid {header.uuid} is that of a record of another identity already",
                hint="give one of them another uuid",
            )
        model = manifest.model
        row = (
            header.uuid,
            header.kind,
            manifest.module,
            header.identity_key,
            header.predicate_key,
            header.parent,
            manifest.label,
            canonical_json(model.get("predicate") or {}),
            canonical_json(model.get("config") or {}),
            manifest.created_at_ns,
            model.get("created_by") if isinstance(model.get("created_by"), str) else None,
            manifest.updated_at,
            manifest.generation,
            manifest.file_count,
            manifest.total_bytes,
            home_uri,
            None if directory is None else os.fsencode(os.path.abspath(directory)),
        )
        database.execute(
            f"""INSERT INTO records VALUES ({", ".join("?" * len(row))}, 0) ON CONFLICT (uuid) DO UPDATE SET
            kind = excluded.kind, module = excluded.module, parent = excluded.parent, label = excluded.label,
            predicate_json = excluded.predicate_json, config_json = excluded.config_json,
            created_by = coalesce(records.created_by, excluded.created_by), updated_at = excluded.updated_at,
            generation = max(records.generation, excluded.generation), files = excluded.files, bytes = excluded.bytes,
            home_uri = coalesce(excluded.home_uri, records.home_uri),
            directory = coalesce(excluded.directory, records.directory), bytes_missing = 0""",
            row,
        )
        database.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?, ?, ?)", manifest.edges)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            yield self._database


def _manifest_of(record: RecordDirectory, relations: bool) -> Manifest:
    """What the index wants to know, of a directory alone."""
    entries = scan(record.path, record.uuid).entries
    return Manifest(
        header=record.header,
        generation=0,
        commit="",
        committed_at_ns=time.time_ns(),
        updated_at=record.updated_at,
        model=record.model(),
        edges=record.edges() if relations else (),
        file_count=len(entries),
        total_bytes=sum(entry.stamp.size for entry in entries),
    )


def _mark_missing(database: sqlite3.Connection, uuid: str) -> None:
    database.execute("UPDATE records SET home_uri = NULL, bytes_missing = directory IS NULL WHERE uuid = ?", (uuid,))


def _json_path(path: str) -> str:
    parts = path.split(".")
    if not all(_PATH_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{path!r} is no path of a value: its parts are letters, digits, '_', '-', '[' and ']'")
    quoted = []
    for part in parts:
        name, bracket, rest = part.partition("[")
        quoted.append(f'."{name}"{bracket}{rest}')
    return "$" + "".join(quoted)


def _entry(row: sqlite3.Row) -> IndexEntry:
    RecordHeader(uuid=row["uuid"], identity_key=row["identity_key"], predicate_key=row["predicate_key"])
    return IndexEntry(
        uuid=row["uuid"],
        kind=row["kind"],
        module=row["module"],
        identity_key=row["identity_key"],
        predicate_key=row["predicate_key"],
        parent=row["parent"],
        label=row["label"],
        predicate=json.loads(row["predicate_json"]),
        config=json.loads(row["config_json"]),
        created_at_ns=row["created_at_ns"],
        created_by=row["created_by"],
        updated_at=row["updated_at"],
        generation=row["generation"],
        files=row["files"],
        bytes=row["bytes"],
        home_uri=row["home_uri"],
        directory=None if row["directory"] is None else Path(os.fsdecode(row["directory"])),
        bytes_missing=bool(row["bytes_missing"]),
    )
