"""Records and stores to test with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from datastore import DataReference, MemoryStore, Store
from stowstore.records import DigestCache, RecordDirectory, RecordStore

BASE = DataReference("mem://main/runs")


def records(store: Store | None = None, **more: Any) -> RecordStore:
    """Records in memory, or in a store."""
    return RecordStore(MemoryStore() if store is None else store, BASE, **{"parallel": 4, **more})


def without_grace(store: Store | None = None, **more: Any) -> RecordStore:
    """Records whose collection takes everything nobody needs."""
    return records(store, grace=timedelta(0), **more)


def make(path: Path, files: Mapping[str, bytes | str] | None = None, **more: Any) -> RecordDirectory:
    """A record directory with these files; ``->`` before a text makes a link."""
    record = RecordDirectory.create(path, **{"module": "study", **more})
    fill(record, files or {})
    return record


def fill(record: RecordDirectory, files: Mapping[str, bytes | str]) -> None:
    """Writes files into a record."""
    for name, content in files.items():
        target = record.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            os.symlink(content.removeprefix("->"), target)
        else:
            target.write_bytes(content)


def tree(directory: Path) -> dict[str, bytes | str]:
    """Everything below a directory: contents, links as text, empty directories."""
    found: dict[str, bytes | str] = {}
    for above, directories, names in os.walk(directory):
        for name in (*directories, *names):
            path = os.path.join(above, name)
            key = os.path.relpath(path, directory)
            if os.path.islink(path):
                found[key] = f"->{os.readlink(path)}"
            elif os.path.isfile(path):
                found[key] = Path(path).read_bytes()
            elif not os.listdir(path):
                found[key] = "directory"
    return found


def cache(path: Path) -> DigestCache:
    """A cache of digests of a test's own."""
    return DigestCache(path / "digests.sqlite")
