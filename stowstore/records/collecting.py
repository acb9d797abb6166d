"""Collecting what no record needs: the second step of every deletion, and what interrupted commits left.

A collection lists what is older than the grace period, named by no manifest, and not retired lately; it removes what an
earlier collection has listed at least half a grace period ago and that still nobody names. It may run beside any
number of commits, as long as each takes less than half the grace period; see `stowstore.records.condemned`.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from attrs import field, frozen

from datastore.errors import NotFound, StoreError
from datastore.model import ObjectEntry
from datastore.reference import DataReference
from stowstore.records.condemned import read_condemned, write_condemned
from stowstore.records.errors import InvalidRecord, RecordDamaged
from stowstore.records.manifest import decode_manifest
from stowstore.records.model import FileKind, Manifest
from stowstore.records.store import RecordStore

__all__ = ["Collection", "collect"]

_BATCH: Final = 1000


@frozen(kw_only=True)
class Collection:
    """What a collection removed, or would remove, and what it listed for the next one.

    ``records`` left the trash for good; ``damaged`` ones keep everything that may be theirs.
    """

    removed: int
    removed_bytes: int
    condemned: int
    records: tuple[str, ...] = field(default=())
    damaged: tuple[str, ...] = field(default=())


def collect(records: RecordStore, *, dry_run: bool = False) -> Collection:
    """Lists what is no longer needed, and removes what was listed long enough ago.

    Pointers that searches need and that are missing are written again.

    Raises:
        StoreError: some could not be removed; the others were, and the next run goes on.
    """
    return _Collector(records).run(dry_run)


class _Collector:
    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._store = records.store
        self._layout = records.layout
        self._now_ns = time.time_ns()
        self._grace_ns = int(records.grace.total_seconds() * 1e9)
        self._kept: set[str] = set()
        self._pointers: set[str] = set()
        self._damaged: list[str] = []
        self._trash_gone: list[str] = []

    def run(self, dry_run: bool) -> Collection:
        before = read_condemned(self._store, self._layout)
        # Listed before it is marked: what a commit adds meanwhile is not in the list.
        listed, pointers = self._listed(before)
        self._mark()
        garbage = {
            key: size
            for key, size in listed.items()
            if key not in self._kept and key not in self._pointers and not self._may_be_of_damaged(key)
        }
        condemned = {key: before.get(key, self._now_ns) for key in garbage}
        ready = [key for key in garbage if key in before and self._now_ns - before[key] >= self._grace_ns // 2]
        if not dry_run:
            # Published before anything goes, with what goes: a run that is stopped half way goes on where it was.
            write_condemned(self._store, self._layout, condemned)
            self._remove(ready)
            if ready:
                gone = set(ready)
                left = {key: at_ns for key, at_ns in condemned.items() if key not in gone}
                write_condemned(self._store, self._layout, left)
            for key in sorted(self._pointers - pointers):
                self._store.write_bytes(self._layout.reference(key), b"")
        return Collection(
            removed=len(ready),
            removed_bytes=sum(garbage[key] for key in ready),
            condemned=len(garbage) - len(ready),
            records=tuple(self._trash_gone),
            damaged=tuple(self._damaged),
        )

    def _listed(self, condemned: Container[str]) -> tuple[dict[str, int], set[str]]:
        """Sizes of what is old, by key, and all pointers there are."""
        found: dict[str, int] = {}
        pointers: set[str] = set()
        for area in ("records", "blobs", "trash", "by-identity", "by-time", "by-parent", "by-label"):
            for entry in self._walk(area):
                key = self._layout.relative(entry.reference)
                if area.startswith("by-"):
                    pointers.add(key)
                if (key in condemned or self._is_old(entry.last_modified)) and not _is_manifest(key):
                    found[key] = entry.size
        return found, pointers

    def _mark(self) -> None:
        for uuid in self._records.manifests.uuids():
            try:
                stored = self._records.manifests.read(uuid)
                if stored is not None:
                    self._keep(self._records.manifests.complete(stored.manifest))
            except (RecordDamaged, InvalidRecord):
                self._damaged.append(uuid)
        for entry in self._walk("trash"):
            self._mark_trashed(entry.reference)

    def _mark_trashed(self, reference: DataReference) -> None:
        """What is in the trash keeps its files while it is young."""
        key = self._layout.relative(reference)
        uuid, trashed_ns = key.split("/")[-2:]
        if not trashed_ns.isdecimal():
            self._kept.add(key)
            return
        if self._now_ns - int(trashed_ns) >= self._grace_ns:
            self._trash_gone.append(uuid)
            return
        self._kept.add(key)
        try:
            self._keep(self._records.manifests.complete(decode_manifest(self._store.read_bytes(reference), uuid)))
        except NotFound:
            return
        except RecordDamaged:
            self._damaged.append(uuid)

    def _keep(self, manifest: Manifest) -> None:
        uuid = manifest.uuid
        self._kept.update(file.key for file in manifest.files if file.kind is FileKind.FILE)
        self._kept.update(self._layout.part(uuid, digest) for digest in manifest.parts)
        self._kept.update(key for key, at_ns in manifest.retired if self._now_ns - at_ns < self._grace_ns)
        self._pointers.update(self._layout.pointers(manifest))

    def _may_be_of_damaged(self, key: str) -> bool:
        # What a manifest that cannot be read names is not known: a repair may need any of it.
        if not self._damaged:
            return False
        return key.startswith(("blobs/", "by-")) or any(
            key.startswith(f"{self._layout.record(uuid)}/") for uuid in self._damaged
        )

    def _remove(self, keys: Iterable[str]) -> None:
        batch: list[DataReference] = []
        failures: list[StoreError] = []
        for key in keys:
            batch.append(self._layout.reference(key))
            if len(batch) == _BATCH:
                failures += self._store.delete_many(batch).values()
                batch = []
        if batch:
            failures += self._store.delete_many(batch).values()
        if failures:
            raise failures[0]

    def _walk(self, area: str) -> Iterator[ObjectEntry]:
        return self._store.walk(self._layout.reference(area), directory=True)

    def _is_old(self, modified: datetime | None) -> bool:
        # An object whose age nobody knows is never taken.
        return modified is not None and (datetime.now(UTC) - modified).total_seconds() * 1e9 >= self._grace_ns


def _is_manifest(key: str) -> bool:
    return key.startswith("records/") and key.count("/") == 2 and key.endswith("/manifest.json")
