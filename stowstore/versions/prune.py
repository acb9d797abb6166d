"""Pruning: forgetting versions by rule.

Only manifests are deleted; each version is whole by itself, so any may go, in the middle too.  What only they needed
becomes garbage, and collection takes it later.  The head stays, as does what a tag names or a live lease stands on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from attrs import evolve, field, frozen

from stowstore.chunks.store import ChunkStore
from stowstore.versions.errors import CorruptManifest, NoSuchVersion, VolumeError
from stowstore.versions.lease import read_lease
from stowstore.versions.manifest import Manifest
from stowstore.versions.marking import LEASE_MARGIN, LiveBlock, Marker, mark_snapshot, survey
from stowstore.versions.root import Root
from stowstore.versions.ulid import ulid_seconds

__all__ = ["KeepReason", "PruneReport", "PrunedVersion", "RetentionPolicy", "VersionPinned", "prune", "prune_versions"]


class VersionPinned(VolumeError):
    """A version that was to be pruned by name is needed: it is the head, has a tag, or somebody writes on it."""


class KeepReason(StrEnum):
    """Why a version stays."""

    HEAD = "head"
    TAG = "tag"
    LEASE = "lease"
    LAST = "last"
    WITHIN = "within"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


def _duration(value: timedelta | float | None) -> timedelta | None:
    return value if value is None or isinstance(value, timedelta) else timedelta(seconds=value)


@frozen(kw_only=True)
class RetentionPolicy:
    """Which versions to keep; a version stays if any rule keeps it.

    ``keep_last`` newest ones; all made within ``keep_within`` (seconds or a timedelta) of now; the newest one of each
    of so many days, weeks (from Monday) and months, in UTC, counting only those that have versions; and, unless
    ``keep_tagged`` is off, those with a tag.
    """

    keep_last: int = 0
    keep_within: timedelta | None = field(default=None, converter=_duration)
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_tagged: bool = True

    def __attrs_post_init__(self) -> None:
        counts = (self.keep_last, self.keep_daily, self.keep_weekly, self.keep_monthly)
        if min(counts) < 0 or (self.keep_within is not None and self.keep_within < timedelta()):
            raise ValueError("what a policy keeps is never negative")

    def kept(self, versions: Iterable[str], now: datetime) -> dict[str, KeepReason]:
        """Which of some versions the rules keep by their age, and by which rule first."""
        newest_first = sorted(versions, reverse=True)
        reasons = dict.fromkeys(newest_first[: self.keep_last], KeepReason.LAST)
        made = {version: datetime.fromtimestamp(ulid_seconds(version), UTC) for version in newest_first}
        if self.keep_within is not None:
            for version, moment in made.items():
                if now - moment <= self.keep_within:
                    reasons.setdefault(version, KeepReason.WITHIN)
        for reason, count, form in (
            (KeepReason.DAILY, self.keep_daily, "%Y-%m-%d"),
            (KeepReason.WEEKLY, self.keep_weekly, "%G-%V"),
            (KeepReason.MONTHLY, self.keep_monthly, "%Y-%m"),
        ):
            periods: dict[str, str] = {}
            for version, moment in made.items():
                periods.setdefault(moment.strftime(form), version)
            for version in list(periods.values())[:count]:
                reasons.setdefault(version, reason)
        return reasons


@frozen(kw_only=True)
class PrunedVersion:
    """A version that goes; ``exclusive_bytes`` are what no version left needs nor any other that goes, None unknown."""

    id: str
    created: datetime
    message: str | None
    exclusive_bytes: int | None = None


@frozen(kw_only=True)
class PruneReport:
    """What pruning did, or would do: the versions that go and those that stay, oldest first.

    ``freed_bytes`` is what becomes garbage with all of them together, None if it was not measured.
    """

    volume: str
    dry_run: bool
    pruned: tuple[PrunedVersion, ...]
    kept: tuple[tuple[str, KeepReason], ...]
    freed_bytes: int | None = None


def prune(
    root: Root,
    volume: str,
    policy: RetentionPolicy,
    *,
    dry_run: bool = True,
    measure: ChunkStore | None = None,
    now: Callable[[], float] = time.time,
) -> PruneReport:
    """Forgets the versions of a volume that a policy does not keep.

    With the root's chunks as ``measure`` the bytes that become garbage are told, at the cost of reading the index of
    every version of the root.

    Raises:
        NoSuchVolume: there is no such volume.
        StoreError: something cannot be read; nothing was deleted, or not all of it.
    """
    root.head(volume)
    pinned = _pins(root, now())
    if not policy.keep_tagged:
        pinned = {version: reason for version, reason in pinned.items() if reason is not KeepReason.TAG}
    versions = list(root.version_ids(volume))
    kept = policy.kept(versions, datetime.fromtimestamp(now(), UTC)) | pinned
    return _prune(root, volume, [version for version in versions if version not in kept], kept, dry_run, measure)


def prune_versions(
    root: Root,
    volume: str,
    versions: Collection[str],
    *,
    dry_run: bool = True,
    measure: ChunkStore | None = None,
    now: Callable[[], float] = time.time,
) -> PruneReport:
    """Forgets versions by their ids.

    Raises:
        NoSuchVolume, NoSuchVersion: there is none; nothing was deleted.
        VersionPinned: one of them is the head, has a tag, or is what a writer stands on; nothing was deleted.
    """
    root.head(volume)
    pinned = _pins(root, now())
    known = list(root.version_ids(volume))
    for version in versions:
        if version not in known:
            raise NoSuchVersion(f"{volume} has no version {version}", hint="give whole ids, as the log shows them")
        if version in pinned:
            raise VersionPinned(
                f"version {version} of {volume} stays: {_WHY[pinned[version]]}",
                op="prune",
                hint="take the tag away, or prune it once nobody stands on it",
            )
    wanted = sorted(set(versions))
    kept = {version: pinned.get(version, KeepReason.LAST) for version in known if version not in wanted}
    return _prune(root, volume, wanted, kept, dry_run, measure)


_WHY = {
    KeepReason.HEAD: "it is the head of a volume",
    KeepReason.TAG: "it has a tag",
    KeepReason.LEASE: "somebody writes on it",
}


def _pins(root: Root, now: float) -> dict[str, KeepReason]:
    """The versions of a root that stay whatever the rules say."""
    pins: dict[str, KeepReason] = {}
    for entry in root.store.walk(root.base.join("leases"), directory=True):
        # A writer of another volume may stand on a version of this one: that is what a fork is.
        lease = read_lease(root.store, entry.reference)
        if lease is not None and lease.base is not None and now <= lease.expires + LEASE_MARGIN:
            pins[lease.base.rpartition("@")[2]] = KeepReason.LEASE
    for name, labels in root.pinned().items():
        # The head of a fork that was not written yet is a version of the volume it came from.
        is_head = any("@" not in label for label in labels)
        pins[name.id] = KeepReason.HEAD if is_head else KeepReason.TAG
    return pins


def _prune(
    root: Root,
    volume: str,
    gone: list[str],
    kept: dict[str, KeepReason],
    dry_run: bool,
    measure: ChunkStore | None,
) -> PruneReport:
    manifests = {version: _readable(root, volume, version) for version in gone}
    report = PruneReport(
        volume=volume,
        dry_run=dry_run,
        pruned=tuple(
            PrunedVersion(
                id=version,
                created=datetime.fromtimestamp(ulid_seconds(version), UTC),
                message=None if found is None else found.message,
            )
            for version, found in manifests.items()
        ),
        kept=tuple(sorted(kept.items())),
    )
    if measure is not None:
        report = _measured(root, report, manifests, measure)
    if not dry_run:
        for name, labels in root.pinned().items():
            # Only a policy that says so prunes what has a tag; a tag of nothing would stop every collection.
            for label in labels if name.id in manifests else ():
                tagged, _, tag = label.partition("@")
                root.delete_tag(tagged, tag)
        for version in gone:
            root.delete_version(volume, version)
    return report


def _readable(root: Root, volume: str, version: str) -> Manifest | None:
    """The manifest of a version that goes; None when it is damaged, which is no reason to keep it."""
    try:
        return root.manifest(volume, version)
    except CorruptManifest:
        return None


def _measured(root: Root, report: PruneReport, gone: Mapping[str, Manifest | None], chunks: ChunkStore) -> PruneReport:
    """The report with how many bytes only the pruned versions need."""
    left = Marker(chunks.index_reader)
    staying = {
        entry.manifest.snapshot
        for entry in survey(root, time.time()).versions
        if entry.manifest.volume != report.volume or entry.manifest.id not in gone
    }
    for snapshot in sorted(staying, key=lambda found: found.unmerged_records):
        left.mark(snapshot)
    needs: dict[str, dict[LiveBlock, int]] = {}
    times: Counter[LiveBlock] = Counter()
    for version, manifest in gone.items():
        if manifest is not None:
            found = mark_snapshot(manifest.snapshot, chunks.index_reader).beyond(left.marks)
            needs[version] = found
            times.update(found.keys())
    sizes = {block: size for found in needs.values() for block, size in found.items()}
    pruned = tuple(
        evolve(
            version,
            exclusive_bytes=sum(size for block, size in needs[version.id].items() if times[block] == 1)
            if version.id in needs
            else None,
        )
        for version in report.pruned
    )
    return evolve(report, pruned=pruned, freed_bytes=sum(sizes.values()))
