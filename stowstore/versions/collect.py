"""Collection: deleting the packs no version needs, beside writers and forks.

What keeps a pack: any manifest of the root needs a block of it; or a live lease stands on a version that does; or the
pack is younger than the grace period, or than the oldest live lease, whose writer may be about to refer to it.  Packs
are judged twice, with a wait between that no lease outlasts, and what both judgements agree on is deleted.  The first
one is written down as ``<root>/garbage/<ulid>.json``, for people to read.

Whatever cannot be listed or read ends the collection with nothing deleted: a version that cannot be followed might
need anything.  So does a result that looks like a mistake.

Versions of volumes that were deleted go the same way, before the packs only they needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import evolve, field, frozen

from datastore import context
from datastore.errors import StoreError
from datastore.events import get_logger
from datastore.reference import DataReference
from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore, PackEntry
from stowstore.runners import Runner
from stowstore.versions.errors import VolumeError
from stowstore.versions.lease import DEFAULT_LEASE_SECONDS, read_lease
from stowstore.versions.marking import LEASE_MARGIN, HeldLease, Marker, Marks, PackKey, Survey, VersionEntry, survey
from stowstore.versions.marking_parts import mark_in_parts
from stowstore.versions.root import Root
from stowstore.versions.ulid import is_ulid, new_ulid, ulid_seconds

__all__ = [
    "DAY",
    "CollectionAborted",
    "CollectionRefused",
    "CollectionReport",
    "PackUse",
    "Progress",
    "collect",
]

DAY: Final = 86400.0

#: How much of a root may go without being forced.
_MAX_SHARE = 0.2

#: How long the lists of earlier collections, and notes of imports, are kept, seconds.
_KEEP_LISTS = 30 * DAY

_BATCH = 1000

_log = get_logger(part="collect")

_T = TypeVar("_T")

#: Told what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]


class CollectionAborted(VolumeError):
    """Something could not be listed or read, so nothing was deleted; the cause says what."""


class CollectionRefused(VolumeError):
    """So much would go that it looks like a mistake; nothing was deleted."""


@frozen(kw_only=True)
class PackUse:
    """A pack, its size, how many bytes of its blocks are needed, and how large a pack of these alone would be."""

    kind: PackKind
    pack: bytes
    size: int
    live: int
    alone: int

    @classmethod
    def of(cls, marks: Marks, kind: PackKind, pack: bytes, size: int) -> PackUse:
        """What is needed of a pack by what has been marked."""
        key = (kind, pack)
        return cls(kind=kind, pack=pack, size=size, live=marks.live_bytes(key), alone=marks.pack_bytes(key))

    @property
    def share(self) -> float:
        """The part that rewriting would not save, between 0 and 1: a small pack is mostly table, and no garbage."""
        return min(1.0, self.alone / self.size) if self.size else 0.0


@frozen(kw_only=True)
class CollectionReport:
    """What a collection found and did; sizes in bytes.

    ``garbage`` are packs that may go, or went unless ``dry_run``; ``young`` those nothing needs that are too young, by
    the grace period or by one of ``keepers``, the leases that began before it; ``sparse`` those worth rewriting (see
    `stowstore.versions.rewriting`).  ``abandoned`` names versions of deleted volumes, as ``volume/id``.  ``failed``
    says which objects the store did not delete; the next collection tries again.
    """

    dry_run: bool
    packs: int
    pack_bytes: int
    live_bytes: int
    versions: int
    garbage: tuple[PackUse, ...]
    young: tuple[PackUse, ...]
    keepers: tuple[HeldLease, ...]
    sparse: tuple[PackUse, ...]
    abandoned: tuple[str, ...]
    candidates: DataReference
    deleted: int = 0
    deleted_bytes: int = 0
    failed: Mapping[str, str] = field(factory=dict)

    @property
    def garbage_bytes(self) -> int:
        return sum(pack.size for pack in self.garbage)


def collect(
    root: Root,
    chunks: ChunkStore,
    *,
    grace: float = DAY,
    dry_run: bool = True,
    force: bool = False,
    rewrite_below: float = 0.5,
    settle: float | None = None,
    on_progress: Progress | None = None,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = context.sleep,
    runner: Runner[ChunkStore] | None = None,
) -> CollectionReport:
    """Finds the packs of a root that nothing needs and, unless ``dry_run``, deletes them.

    ``grace`` is how old they must be, in seconds; ``settle`` how long to wait between the two judgements (None: longer
    than any lease there is).  ``now`` and ``sleep`` are the clock.  ``runner`` is where the index is read, this thread
    without one; what is deleted is deleted here.

    Raises:
        CollectionAborted: something could not be listed or read; nothing was deleted.
        CollectionRefused: more than a fifth of the bytes would go, and ``force`` was not given; nothing was deleted.
    """
    if grace < 0 or (settle is not None and settle < 0) or not 0 <= rewrite_below <= 1:
        raise ValueError("grace and settle are not negative, rewrite_below lies between 0 and 1")
    run = _Run(root, chunks, grace, on_progress or _silent, now, runner)
    first = run.attempt(lambda: run.judge(None))
    report = run.attempt(lambda: run.write_down(first, dry_run=dry_run, rewrite_below=rewrite_below))
    if dry_run or not (first.garbage or first.abandoned):
        return report
    run.refuse_mistakes(first, force=force)
    second = run.attempt(lambda: run.judge_again(first, settle, sleep))
    run.refuse_mistakes(second, force=force)
    return run.sweep(first, second, report)


@frozen(kw_only=True)
class _Judgement:
    """One look at everything."""

    survey: Survey
    marks: Marks
    uses: tuple[PackUse, ...]
    garbage: Mapping[PackKey, PackUse]
    young: tuple[PackUse, ...]
    abandoned: Mapping[str, VersionEntry]

    @property
    def garbage_bytes(self) -> int:
        return sum(pack.size for pack in self.garbage.values())


class _Run:
    """One collection."""

    def __init__(
        self,
        root: Root,
        chunks: ChunkStore,
        grace: float,
        on_progress: Progress,
        now: Callable[[], float],
        runner: Runner[ChunkStore] | None,
    ) -> None:
        self._runner = runner
        self.root = root
        self.chunks = chunks
        self._grace = grace
        self._tell = on_progress
        self._now = now

    def attempt(self, action: Callable[[], _T]) -> _T:
        """Turns any failure before the sweep into the promise that nothing was deleted."""
        try:
            return action()
        except StoreError as error:
            raise CollectionAborted(
                f"nothing was deleted: {error}",
                op="collect",
                reference=self.root.address,
                hint="mend what is damaged (check names it), or try again when the store can be read",
                retryable=error.retryable,
            ) from error

    def judge(self, before: _Judgement | None) -> _Judgement:
        now = self._now()
        # Packs are listed first: what is put from here on is not looked at.
        entries = {kind: list(self.chunks.list_packs(kind)) for kind in PackKind}
        found = survey(self.root, now)
        limit = now - self._grace
        if found.oldest_lease is not None:
            # Clocks differ: a pack of that writer may seem a little older than its lease.
            limit = min(limit, found.oldest_lease - LEASE_MARGIN)
        abandoned = {
            f"{entry.manifest.volume}/{entry.manifest.id}": entry for entry in found.abandoned if entry.written < limit
        }
        if before is not None:
            abandoned = {name: entry for name, entry in abandoned.items() if name in before.abandoned}
        marks = self._mark(found, abandoned, before)
        uses, young, garbage = [], [], {}
        for kind, packs in entries.items():
            for pack in packs:
                key = (kind, pack.pack)
                use = PackUse.of(marks, kind, pack.pack, pack.size)
                uses.append(use)
                if key in marks:
                    continue
                if _pack_time(pack) < limit:
                    garbage[key] = use
                else:
                    young.append(use)
        return _Judgement(
            survey=found,
            marks=marks,
            uses=tuple(uses),
            garbage=garbage,
            young=tuple(young),
            abandoned=abandoned,
        )

    def judge_again(self, first: _Judgement, settle: float | None, sleep: Callable[[float], None]) -> _Judgement:
        """The second look, after every lease of now has been renewed or has run out."""
        if settle is None:
            ends = (lease.record.expires - self._now() for lease in first.survey.leases if lease.is_of_writer)
            settle = max(DEFAULT_LEASE_SECONDS, *ends, 0.0) + LEASE_MARGIN
        sleep(settle)
        self._fence(first.survey)
        return self.judge(first)

    def write_down(self, first: _Judgement, *, dry_run: bool, rewrite_below: float) -> CollectionReport:
        """Writes the list of candidates and begins the report."""
        reference = self.root.base.join("garbage", f"{new_ulid()}.json")
        listed = {
            "written": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds"),
            "dry_run": dry_run,
            "grace_seconds": self._grace,
            "bytes": first.garbage_bytes,
            "versions_of_deleted_volumes": sorted(first.abandoned),
            "packs": [
                {"object": str(self.chunks.pack_reference(use.kind, use.pack)), "bytes": use.size}
                for use in first.garbage.values()
            ],
        }
        self.root.store.write_bytes(reference, json.dumps(listed, indent=1).encode())
        sparse = [use for use in first.uses if use.live > 0 and use.share < rewrite_below]
        return CollectionReport(
            dry_run=dry_run,
            packs=len(first.uses),
            pack_bytes=sum(use.size for use in first.uses),
            live_bytes=sum(use.live for use in first.uses),
            versions=len(first.survey.versions),
            garbage=tuple(first.garbage.values()),
            young=first.young,
            keepers=tuple(lease for lease in first.survey.leases if lease.record.started < self._now() - self._grace),
            sparse=tuple(sparse),
            abandoned=tuple(sorted(first.abandoned)),
            candidates=reference,
        )

    def refuse_mistakes(self, found: _Judgement, *, force: bool) -> None:
        total = sum(use.size for use in found.uses)
        if not force and found.garbage_bytes > _MAX_SHARE * total:
            raise CollectionRefused(
                f"{found.garbage_bytes} of {total} bytes would go, more than {_MAX_SHARE:.0%}; nothing was deleted",
                op="collect",
                reference=self.root.address,
                hint="look at the list in garbage/, and force the collection if it is right",
            )

    def sweep(self, first: _Judgement, second: _Judgement, report: CollectionReport) -> CollectionReport:
        """Deletes what both judgements found, manifests before the packs that only they name."""
        manifests = [second.abandoned[name].reference for name in sorted(second.abandoned)]
        packs = [use for key, use in second.garbage.items() if key in first.garbage]
        failed = self._delete(manifests, "deleting versions")
        deleted: list[PackUse] = []
        if not failed:
            references = {self.chunks.pack_reference(use.kind, use.pack): use for use in packs}
            failed = self._delete(references, "deleting packs")
            deleted = [use for reference, use in references.items() if reference not in failed]
            failed |= self._delete(self._old_lists(), "deleting lists")
        for reference, error in failed.items():
            _log.warning("collect.not_deleted", reference=str(reference), error=str(error))
        return evolve(
            report,
            dry_run=False,
            garbage=tuple(packs),
            abandoned=tuple(sorted(second.abandoned)),
            deleted=len(deleted),
            deleted_bytes=sum(use.size for use in deleted),
            failed={str(reference): str(error) for reference, error in failed.items()},
        )

    def _mark(self, found: Survey, abandoned: Collection[str], before: _Judgement | None) -> Marks:
        snapshots = {
            entry.manifest.snapshot: None
            for entry in found.versions
            if f"{entry.manifest.volume}/{entry.manifest.id}" not in abandoned
        }
        if before is not None and before.abandoned.keys() == set(abandoned):
            known = {entry.manifest.snapshot for entry in before.survey.versions}
            if snapshots.keys() <= known:
                # Snapshots never change: what the first look marked holds for them.
                return before.marks
        if self._runner is not None:
            return mark_in_parts(snapshots, self.chunks, self._runner, self._tell)
        marker = Marker(self.chunks.index_reader)
        # Versions with little above the tree first: they show what others hide.
        ordered = sorted(snapshots, key=lambda snapshot: snapshot.unmerged_records)
        for done, snapshot in enumerate(ordered):
            context.check()
            self._tell("marking versions", done, len(ordered))
            marker.mark(snapshot)
        self._tell("marking versions", len(ordered), len(ordered))
        return marker.marks

    def _fence(self, found: Survey) -> None:
        """Ends leases that are over, so that a holder who wakes up cannot renew them and publish."""
        for lease in found.over:
            record = read_lease(self.root.store, lease.reference)
            if record is not None and (record.token, record.expires) == (lease.record.token, lease.record.expires):
                self.root.store.delete(lease.reference)

    def _old_lists(self) -> list[DataReference]:
        """Lists of earlier collections, and notes of imports nobody has gone on with."""
        limit = self._now() - _KEEP_LISTS
        return [
            entry.reference
            for area in ("garbage", "imports")
            for entry in self.root.store.walk(self.root.base.join(area), directory=True)
            if is_ulid(name := entry.reference.name.removesuffix(".json")) and ulid_seconds(name) < limit
        ]

    def _delete(self, references: Collection[DataReference], step: str) -> dict[DataReference, StoreError]:
        wanted = list(references)
        failed: dict[DataReference, StoreError] = {}
        for start in range(0, len(wanted), _BATCH):
            context.check()
            self._tell(step, start, len(wanted))
            part = wanted[start : start + _BATCH]
            try:
                failed.update(self.root.store.delete_many(part))
            except StoreError as error:
                # Some may be gone, all may be tried again: what is reported as left may be less in truth.
                failed.update(dict.fromkeys(part, error))
        if wanted:
            self._tell(step, len(wanted), len(wanted))
        return failed


def _silent(step: str, done: int, total: int) -> None:
    """Tells nobody."""


def _pack_time(entry: PackEntry) -> float:
    """When a pack was made, in seconds since 1970: by its id or by the store, whatever is later."""
    made = int.from_bytes(entry.pack[:6], "big") / 1000
    return made if entry.last_modified is None else max(made, entry.last_modified.timestamp())
