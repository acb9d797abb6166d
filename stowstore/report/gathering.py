"""What is known of a root without reading a file of it.

Asked are listings of references, versions, leases and packs, and one small object a version, reference and lease:
for a hundred volumes with ten thousand versions some ten thousand small reads, `READERS` at a time.  What is damaged
becomes a `Problem` of the report; what the store does not answer is an error.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import define, evolve, field

from datastore.errors import InvalidReference, LimitExceeded, NotFound, StoreError
from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.report.model import (
    Holder,
    LastCollection,
    PackTotals,
    Parent,
    Problem,
    RootFacts,
    VersionFacts,
    VolumeFacts,
)
from stowstore.versions.errors import CorruptManifest, FormatTooNew, NoSuchVersion, NoSuchVolume
from stowstore.versions.lease import read_lease
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.root import Root
from stowstore.versions.ulid import is_ulid, ulid_seconds

__all__ = ["READERS", "gather"]

#: How many small objects are read at the same time.
READERS: Final = 16

#: How many moments of growth are kept: more than any picture shows.
_MOMENTS = 400

#: Above this a size is no size; what a damaged manifest says must not break the arithmetic of pictures.
_LARGEST = 1 << 63

_MAX_LIST = 64 << 20

_DAMAGE: Final = (CorruptManifest, FormatTooNew, InvalidReference, LimitExceeded, NoSuchVolume, NotFound)

_T = TypeVar("_T")
_R = TypeVar("_R")


def gather(root: Root, *, on_step: Callable[[str], None] = lambda step: None) -> RootFacts:
    """Looks at a root: everything but what only its index says (see `stowstore.report.indexing`).

    ``on_step`` is told what is being done.

    Raises:
        StoreError: the store does not answer, or not to us.
    """
    run = _Run(root)
    on_step("looking for volumes")
    run.read_references()
    run.read_leases()
    on_step("reading the manifests of versions")
    run.read_versions()
    on_step("listing packs")
    packs = _packs(root)
    found = _versions(run)
    collection = run.last_collection()
    return RootFacts(
        address=root.address,
        gathered=datetime.now(UTC),
        compression=root.format.compression,
        is_encrypted=root.format.encryption is not None,
        volumes=_volumes(run, found),
        versions=found,
        packs=packs,
        collection=collection,
        problems=tuple(run.problems),
        listings=run.listings + len(PackKind),
        reads=run.reads,
    )


@define
class _Run:
    root: Root
    heads: dict[str, VersionName] = field(factory=dict)
    tags: dict[str, dict[str, VersionName]] = field(factory=dict)
    holders: dict[str, Holder] = field(factory=dict)
    manifests: dict[str, Manifest] = field(factory=dict)
    problems: list[Problem] = field(factory=list)
    listings: int = 0
    reads: int = 0

    def read_references(self) -> None:
        names = self.root.volumes()
        for volume, head in self._each(names, self.root.head, "volume"):
            self.heads[volume] = head
        for volume, tags in self._each(sorted(self.heads), self.root.tags, "the tags of"):
            self.tags[volume] = tags
        self.listings += 1 + len(self.heads)
        self.reads += len(names) + sum(map(len, self.tags.values()))

    def read_leases(self) -> None:
        for entry in self.root.store.walk(self.root.base.join("leases"), directory=True):
            self.reads += 1
            try:
                record = read_lease(self.root.store, entry.reference)
            except _DAMAGE as error:
                self._missing(f"the lease of {entry.reference.name}", error)
                continue
            if record is not None:
                self.holders[entry.reference.name] = Holder(
                    who=f"{record.holder} on {record.host.partition('/')[0]}, process {record.pid}",
                    since=_moment(record.started),
                    expires=_moment(record.expires),
                    is_over=record.is_over,
                )
        self.listings += 1

    def read_versions(self) -> None:
        prefix = self.root.base.join("versions")
        listed = []
        for entry in self.root.store.walk(prefix, directory=True):
            volume, _, version = entry.reference.key[len(prefix.key) + 1 :].partition("/")
            if is_ulid(version):
                listed.append((volume, version))
            else:
                self.problems.append(Problem(where=entry.reference.key, message="this is no version of a volume"))
        for _, manifest in self._each(listed, lambda name: self.root.manifest(*name), "version"):
            self.manifests[manifest.id] = manifest
        self.listings += 1
        self.reads += len(listed)

    def last_collection(self) -> LastCollection | None:
        """The newest list in ``garbage/``; none where it cannot be read, as it is for people to read anyway."""
        prefix = self.root.base.join("garbage")
        names = [entry.reference for entry in self.root.store.walk(prefix, directory=True)]
        self.listings += 1
        if not names:
            return None
        self.reads += 1
        try:
            with self.root.store.read_raw(max(names, key=lambda one: one.name), max_bytes=_MAX_LIST) as stream:
                data = json.loads(stream.read())
            return LastCollection(
                written=_in_utc(datetime.fromisoformat(data["written"])),
                bytes=_size(int(data["bytes"])),
                packs=len(data["packs"]),
                dry_run=bool(data["dry_run"]),
            )
        except (NotFound, LimitExceeded, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            self._missing("the list of the last collection", error)
            return None

    def _each(self, keys: Sequence[_T], read: Callable[[_T], _R], what: str) -> Iterable[tuple[_T, _R]]:
        """Reads many small objects side by side; those that are damaged become problems, those gone are left out."""
        calling = contextvars.copy_context()

        def attempt(key: _T) -> _R | StoreError | None:
            try:
                return calling.copy().run(read, key)
            except NoSuchVersion:
                # Pruned since it was listed.
                return None
            except _DAMAGE as error:
                return error

        with ThreadPoolExecutor(READERS, "stowstore-report") as pool:
            for key, found in zip(keys, pool.map(attempt, keys), strict=True):
                if isinstance(found, StoreError):
                    self._missing(f"{what} {'@'.join(key) if isinstance(key, tuple) else key}", found)
                elif found is not None:
                    yield key, found

    def _missing(self, where: str, error: Exception) -> None:
        message = error.message if isinstance(error, StoreError) else f"it cannot be read: {error}"
        self.problems.append(Problem(where=where, message=message))


def _versions(run: _Run) -> tuple[VersionFacts, ...]:
    head_of: defaultdict[str, list[str]] = defaultdict(list)
    for volume, name in run.heads.items():
        head_of[name.id].append(volume)
    labels: defaultdict[str, list[str]] = defaultdict(list)
    for volume, tags in run.tags.items():
        for tag, name in tags.items():
            labels[name.id].append(f"{volume}@{tag}")
    return tuple(
        VersionFacts(
            volume=manifest.volume,
            id=manifest.id,
            created=_in_utc(manifest.created, manifest.id),
            parents=tuple(Parent(parent.volume, parent.id) for parent in manifest.parents),
            message=manifest.message or "",
            used_bytes=_size(manifest.statistics.used_bytes),
            inodes=_size(manifest.statistics.inode_count),
            index_bytes=_size(manifest.statistics.index_bytes),
            produced_by=_short(manifest.produced_by),
            head_of=tuple(sorted(head_of[manifest.id])),
            tags=tuple(sorted(labels[manifest.id])),
        )
        for _, manifest in sorted(run.manifests.items())
    )


def _volumes(run: _Run, versions: Sequence[VersionFacts]) -> tuple[VolumeFacts, ...]:
    by_id = {version.id: version for version in versions}
    own: defaultdict[str, list[VersionFacts]] = defaultdict(list)
    for version in versions:
        own[version.volume].append(version)
    made = []
    for name in sorted({*run.heads, *own, *run.holders}):
        mine = own.get(name, [])
        head = run.heads.get(name)
        newest = by_id.get(head.id) if head is not None else None
        volume = VolumeFacts(
            name=name,
            head=None if head is None else Parent(head.volume, head.id),
            origin=_origin(name, head, mine),
            versions=len(mine),
            last_commit=max((version.created for version in mine), default=None),
            holder=run.holders.get(name),
            tags=tuple(sorted(run.tags.get(name, ()))),
            sizes=tuple(version.used_bytes for version in mine),
            is_deleted=head is None and bool(mine),
        )
        if newest is not None:
            volume = evolve(volume, used_bytes=newest.used_bytes, inodes=newest.inodes)
        made.append(volume)
    return tuple(made)


def _origin(name: str, head: VersionName | None, versions: Sequence[VersionFacts]) -> str | None:
    """The volume one was forked from, if it was."""
    if not versions:
        return head.volume if head is not None and head.volume != name else None
    return next((parent.volume for parent in versions[0].parents if parent.volume != name), None)


def _packs(root: Root) -> PackTotals:
    # The key is not needed to list packs, so the root is not unlocked.
    counts, sizes = dict.fromkeys(PackKind, 0), dict.fromkeys(PackKind, 0)
    made: defaultdict[int, int] = defaultdict(int)
    with ChunkStore(root.store, root.base, workers=1, max_fetches=1) as chunks:
        for kind in PackKind:
            for pack in chunks.list_packs(kind):
                counts[kind] += 1
                sizes[kind] += pack.size
                # An id begins with the moment it was made at, in milliseconds.
                made[int.from_bytes(pack.pack[:6], "big")] += pack.size
    total = 0
    growth = []
    every = -(-len(made) // _MOMENTS)
    for position, (moment, size) in enumerate(sorted(made.items()), 1):
        total += size
        if position % every == 0 or position in (1, len(made)):
            growth.append((_moment(moment / 1000), total))
    return PackTotals(
        data_packs=counts[PackKind.DATA],
        data_bytes=sizes[PackKind.DATA],
        index_packs=counts[PackKind.INDEX],
        index_bytes=sizes[PackKind.INDEX],
        growth=tuple((moment, size) for moment, size in growth if moment is not None),
    )


def _size(value: int) -> int:
    return min(value, _LARGEST)


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _in_utc(moment: datetime, version: str | None = None) -> datetime:
    """A moment in UTC; one that cannot be is that of the version's id."""
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        seconds = ulid_seconds(version) if version is not None else 0.0
        return _moment(seconds) or datetime.fromtimestamp(time.time(), UTC)


def _short(producer: object) -> str:
    """What made a version, in a line: the values of a flat mapping by name, otherwise JSON."""
    if producer is None:
        return ""
    if isinstance(producer, str):
        return producer
    if isinstance(producer, dict):
        return ", ".join(
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in producer.items()
        )
    return json.dumps(producer)
