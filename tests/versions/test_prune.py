"""Pruning: which versions go by rule, and which never do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.versions.manifest import VersionName
from stowstore.versions.prune import (
    KeepReason,
    RetentionPolicy,
    VersionPinned,
    prune,
    prune_versions,
)
from tests.versions.volumes import Volumes

NOW = datetime(2026, 3, 16, 12, tzinfo=UTC)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def version_at(moment: datetime, salt: int = 0) -> str:
    """The id of a version made then."""
    value = int(moment.timestamp() * 1000) << 80 | salt
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


@pytest.fixture
def volumes() -> Iterator[Volumes]:
    with Volumes() as volumes:
        yield volumes


HOURS = (0, 1, 2, 12, 13, 30, 60, 24 * 8, 24 * 9, 24 * 40, 24 * 41, 24 * 100)
AGED = {hours: version_at(NOW - timedelta(hours=hours)) for hours in HOURS}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (RetentionPolicy(), {}),
        (RetentionPolicy(keep_last=2), {0: KeepReason.LAST, 1: KeepReason.LAST}),
        (RetentionPolicy(keep_within=timedelta(hours=2)), {0: "within", 1: "within", 2: "within"}),
        (RetentionPolicy(keep_within=3600), {0: "within", 1: "within"}),
        # 12 hours ago is midnight of the same day, 13 the day before.
        (RetentionPolicy(keep_daily=2), {0: "daily", 13: "daily"}),
        (RetentionPolicy(keep_daily=3), {0: "daily", 13: "daily", 60: "daily"}),
        # The 16th is a Monday, so a new week has begun.
        (RetentionPolicy(keep_weekly=3), {0: "weekly", 13: "weekly", 192: "weekly"}),
        (RetentionPolicy(keep_monthly=3), {0: "monthly", 960: "monthly", 2400: "monthly"}),
        (RetentionPolicy(keep_last=1, keep_monthly=2), {0: "last", 960: "monthly"}),
    ],
)
def test_rules_keep_by_age(policy: RetentionPolicy, kept: dict[int, str]) -> None:
    """Each rule keeps the newest version of each of its periods."""
    assert {AGED[hours]: reason for hours, reason in kept.items()} == policy.kept(AGED.values(), NOW)


@given(
    ages=st.lists(st.integers(0, 10**7), max_size=30, unique=True),
    counts=st.tuples(*[st.integers(0, 5)] * 4),
)
def test_rules_never_keep_more_than_they_say_nor_drop_the_newest(ages: list[int], counts: tuple[int, ...]) -> None:
    """However versions are spread, a policy that keeps anything keeps the newest, and no more than its counts."""
    versions = [version_at(NOW - timedelta(seconds=age)) for age in ages]
    last, daily, weekly, monthly = counts
    kept = RetentionPolicy(keep_last=last, keep_daily=daily, keep_weekly=weekly, keep_monthly=monthly).kept(
        versions, NOW
    )

    assert len(kept) <= sum(counts)
    assert kept.keys() <= set(versions)
    if versions and any(counts):
        assert max(versions) in kept


@pytest.mark.parametrize("field", ["keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_within"])
def test_negative_rules_are_refused(field: str) -> None:
    """A policy cannot keep less than nothing."""
    with pytest.raises(ValueError, match="never negative"):
        RetentionPolicy(**{field: -1})


def history(volumes: Volumes, count: int = 4) -> list[VersionName]:
    return [volumes.commit("data", {f"f{number}": b"%d" % number * 200}) for number in range(count)]


def test_dry_run_deletes_nothing_and_says_the_same(volumes: Volumes) -> None:
    """The default only tells what would go; the rest goes as told."""
    names = history(volumes)
    planned = prune(volumes.root, "data", RetentionPolicy(keep_last=2))
    assert [name.id for name in names] == list(volumes.root.version_ids("data"))

    done = prune(volumes.root, "data", RetentionPolicy(keep_last=2), dry_run=False)

    assert [name.id for name in names[:2]] == [found.id for found in planned.pruned] == [x.id for x in done.pruned]
    assert [name.id for name in names[2:]] == list(volumes.root.version_ids("data"))
    assert {"f3": b"3" * 200} == volumes.files(names[3])


def test_head_tags_leases_and_forks_are_kept(volumes: Volumes) -> None:
    """A policy that keeps nothing keeps what something names: a head, a tag, a fork, a writer."""
    names = history(volumes, 6)
    volumes.root.set_tag("data", "v1", names[0])
    volumes.root.set_head("fork", names[1], None)
    volumes.lease("elsewhere", names[2])

    report = prune(volumes.root, "data", RetentionPolicy(), dry_run=False)

    assert [names[3].id, names[4].id] == [found.id for found in report.pruned]
    reasons = dict(report.kept)
    assert [KeepReason.TAG, KeepReason.HEAD, KeepReason.LEASE, KeepReason.HEAD] == [
        reasons[names[number].id] for number in (0, 1, 2, 5)
    ]


def test_pinned_versions_are_refused_by_name(volumes: Volumes) -> None:
    """Asked for by name, what is pinned is an error that says why, and nothing else goes either."""
    names = history(volumes)
    volumes.root.set_tag("data", "v1", names[1])
    for pinned, why in ((names[1], "it has a tag"), (names[3], "it is the head")):
        with pytest.raises(VersionPinned, match=why):
            prune_versions(volumes.root, "data", [names[0].id, pinned.id], dry_run=False)
    with pytest.raises(NoSuchVersion):
        prune_versions(volumes.root, "data", [names[0].id, version_at(NOW)], dry_run=False)
    with pytest.raises(NoSuchVolume):
        prune_versions(volumes.root, "none", [], dry_run=False)
    assert 4 == len(list(volumes.root.version_ids("data")))

    prune_versions(volumes.root, "data", [names[2].id], dry_run=False)
    assert [names[0].id, names[1].id, names[3].id] == list(volumes.root.version_ids("data"))


def test_tags_go_with_their_versions_where_they_are_not_kept(volumes: Volumes) -> None:
    """Without ``keep_tagged`` no tag is left behind that names nothing."""
    names = history(volumes, 3)
    volumes.root.set_tag("data", "v1", names[0])

    prune(volumes.root, "data", RetentionPolicy(keep_tagged=False), dry_run=False)

    assert {} == volumes.root.tags("data")
    assert [names[2].id] == list(volumes.root.version_ids("data"))


def test_damaged_version_can_be_pruned(volumes: Volumes) -> None:
    """A manifest that cannot be read is no reason to keep it."""
    names = history(volumes, 2)
    volumes.store.write_bytes(volumes.root.base.join("versions/data", names[0].id), b"garbage")

    prune_versions(volumes.root, "data", [names[0].id], dry_run=False)
    assert [names[1].id] == list(volumes.root.version_ids("data"))


def test_exclusive_bytes(volumes: Volumes) -> None:
    """What only one version needs is told for it; what two that go share, for both together only."""
    shared, own = b"s" * 1000, bytes(range(256)) * 3
    volumes.commit("data", {"shared": shared, "own": own}, merge=True)
    volumes.commit("data", {"shared": shared}, merge=True)
    volumes.commit("data", {"kept": b"k"}, merge=True)

    report = prune(volumes.root, "data", RetentionPolicy(), measure=volumes.chunks)

    exclusive = [found.exclusive_bytes for found in report.pruned]
    assert None not in exclusive
    assert report.freed_bytes is not None
    assert exclusive[0] is not None
    assert exclusive[1] is not None
    assert exclusive[0] > exclusive[1] > 0
    assert report.freed_bytes > exclusive[0] + exclusive[1]
