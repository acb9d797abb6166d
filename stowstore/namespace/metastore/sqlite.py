"""A journal in one SQLite file, with its write-ahead log."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from datastore.errors import ConfigError, StoreError
from stowstore.namespace.errors import posix_error

__all__ = ["SqliteMetaStore"]

_FILE: Final = "journal.sqlite"
_SIDES: Final = ("-wal", "-shm")

#: Records read at once while loading.
_BATCH: Final = 4096

#: Records written by one statement.  SQLite works on it without the interpreter's lock, which it has to ask for again
#: after each: as often as records, where other threads are busy, would cost more than the work.
_TOGETHER: Final = 128

_PUT: Final = "INSERT OR REPLACE INTO records VALUES (?, ?)"
_PUT_TOGETHER: Final = _PUT + ", (?, ?)" * (_TOGETHER - 1)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


class SqliteMetaStore:
    """Keeps records in ``journal.sqlite`` of a directory; thread-safe.

    A batch is a transaction: after a crash of the process all that were applied are there, after one of the machine
    those before the last `sync`, and never half of one.

    Raises:
        ConfigError: another session has the journal open.
        StoreError: the file is no journal, or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self._lock = threading.Lock()
        self._dirty = False
        self._connection = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            self._path.chmod(0o600)
            with self._translated():
                # One session has it: no shared memory file, and nobody else writes between two batches.
                self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.executescript(f"BEGIN EXCLUSIVE;{_SCHEMA}COMMIT;")
        except BaseException:
            self._connection.close()
            raise

    def load(self) -> Iterator[tuple[bytes, bytes | None]]:
        last: bytes | None = None
        while True:
            with self._lock, self._translated():
                rows = self._connection.execute(
                    "SELECT key, value FROM records WHERE ?1 IS NULL OR key > ?1 ORDER BY key LIMIT ?2", (last, _BATCH)
                ).fetchall()
            yield from rows
            if len(rows) < _BATCH:
                return
            last = rows[-1][0]

    def apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        with self._transaction():
            self._put(batch)

    def replace(self, batch: Mapping[bytes, bytes | None], meta: Mapping[str, bytes]) -> None:
        with self._transaction():
            self._connection.execute("DELETE FROM records")
            self._put(batch)
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())

    def sync(self) -> None:
        with self._lock:
            if not self._dirty:
                return
            with self._translated():
                # A commit in this mode flushes the whole log before it, at a hundredth of a checkpoint's cost.
                self._connection.execute("PRAGMA synchronous = FULL")
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('synced', x'')")
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
                finally:
                    self._connection.execute("PRAGMA synchronous = NORMAL")
            self._dirty = False

    def clear(self) -> None:
        with self._transaction():
            self._connection.execute("DELETE FROM records")

    def get_meta(self, name: str) -> bytes | None:
        with self._lock, self._translated():
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, name: str, value: bytes) -> None:
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def close(self) -> None:
        with self._lock, self._translated():
            self._connection.close()

    def destroy(self) -> None:
        self.close()
        for path in (self._path, *(self._path.with_name(_FILE + side) for side in _SIDES)):
            path.unlink(missing_ok=True)

    def _put(self, batch: Mapping[bytes, bytes | None]) -> None:
        """Writes records in the order of their keys, which is that of the table."""
        rows = sorted(batch.items())
        alone = len(rows) % _TOGETHER
        self._connection.executemany(_PUT, rows[:alone])
        self._connection.executemany(
            _PUT_TOGETHER,
            (
                list(chain.from_iterable(rows[start : start + _TOGETHER]))
                for start in range(alone, len(rows), _TOGETHER)
            ),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._dirty = True

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:
                raise StoreError(f"the journal {self._path} cannot be used: {error}") from error
            if code & 0xFF == sqlite3.SQLITE_FULL:
                raise posix_error(errno.ENOSPC, f"the journal {self._path}") from error
            if code & 0xFF == sqlite3.SQLITE_IOERR:
                raise posix_error(errno.EIO, f"the journal {self._path}: {error}") from error
            if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ConfigError(
                    f"the journal {self._path} is used by another session", hint="give every session its own meta_dir"
                ) from error
            raise StoreError(f"the journal {self._path} cannot be used: {error}") from error
