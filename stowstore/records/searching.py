"""Searching a store: one listing of pointers, and a look at each record it names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from attrs import frozen

from datastore.model import Cursor
from datastore.protocol import Store
from stowstore.records.committing import Manifests
from stowstore.records.layout import Layout
from stowstore.records.model import Manifest
from stowstore.records.parallel import each

__all__ = ["Criteria", "candidates", "search"]

_BATCH = 1000
_LOOKS = 16


@frozen(kw_only=True)
class Criteria:
    """What records have to be like, all of it; ``until`` is not included."""

    identity_key: str | None = None
    predicate_key: str | None = None
    label: str | None = None
    parent: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def prefix(self, layout: Layout) -> str:
        """The pointers that name the fewest."""
        if self.identity_key is not None:
            return layout.by_identity(self.identity_key, self.predicate_key)
        if self.label is not None:
            return layout.by_label(self.label)
        return layout.by_time() if self.parent is None else layout.by_parent(self.parent)

    @property
    def need_manifests(self) -> bool:
        """Whether a pointer alone does not say that a record fits."""
        others = self.label, self.since, self.until, self.parent if self.identity_key is not None else None
        return any(other is not None for other in others)

    def fit(self, manifest: Manifest) -> bool:
        """Whether a record is like this, as far as its pointer does not say so."""
        return (
            (self.label is None or manifest.label == self.label)
            and (self.parent is None or manifest.header.parent == self.parent)
            and (self.since is None or manifest.created_at_ns >= _ns(self.since))
            and (self.until is None or manifest.created_at_ns < _ns(self.until))
        )


def search(store: Store, layout: Layout, manifests: Manifests, criteria: Criteria, limit: int | None) -> list[str]:
    """The uuids of committed records that fit, in the order of their pointers.

    Raises:
        ValueError: a predicate key without an identity key.
    """
    if criteria.predicate_key is not None and criteria.identity_key is None:
        raise ValueError("a predicate key is searched for below an identity key: give both")

    def look(uuid: str) -> tuple[str, bool]:
        if not criteria.need_manifests:
            return uuid, store.head(layout.reference(layout.manifest(uuid))).exists
        stored = manifests.read(uuid)
        return uuid, stored is not None and criteria.fit(stored.manifest)

    found: list[str] = []
    named = candidates(store, layout, criteria.prefix(layout), since=criteria.since, until=criteria.until)
    for uuids in _batches(named, min(limit or _BATCH, _BATCH)):
        fits = dict(each(uuids, look, min(_LOOKS, len(uuids))))
        found += [uuid for uuid in uuids if fits[uuid]]
        if limit is not None and len(found) >= limit:
            break
    return found[:limit]


def candidates(
    store: Store, layout: Layout, prefix: str, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[str]:
    """The uuids that a listing of pointers names; by time only those in it, the newest first."""
    by_time = prefix == layout.by_time()
    cursor = Cursor.at_start()
    if by_time and until is not None:
        cursor = Cursor.after_key(layout.reference(layout.time_prefix(_ns(until))).key)
    while not cursor.is_at_end:
        page = store.list_page(layout.reference(prefix), None, cursor, directory=True)
        for entry in page.entries:
            if by_time and since is not None and layout.time_of(entry.reference.key) < _ns(since):
                return
            yield entry.reference.name
        cursor = page.cursor


def _batches(items: Iterator[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
