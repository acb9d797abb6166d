"""Writers killed with SIGKILL: committed versions stay whole, and what was fsynced is found again.

``STOWSTORE_KILL_SEEDS`` sets how many programs are run at any moment; the points are all visited in any case.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import count, islice
from pathlib import Path

import pytest

from stowstore.versions.check import check
from stowstore.versions.findings import CheckDepth
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.volumes_faults.programs import Step, Tree, perform, program, shown, states, tree_of
from tests.volumes_faults.writing import VOLUME, Place, Point, Story, options_of, root_of, write_and_kill

_SEEDS = int(os.environ.get("STOWSTORE_KILL_SEEDS", "24"))
_STEPS = 60

_POINTS = [
    Point(what, after=after)
    for what in (
        "packs/*",
        "index/*",
        "versions/*",
        "refs/*/head",
        "leases/*",
        "journal.apply",
        "journal.sync",
        "journal.set_meta",
        "journal.replace",
    )
    for after in (False, True)
]


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_any_moment(tmp_path: Path, seed: int) -> None:
    """Whenever it is killed, the next session has a moment of the program that is no older than the last fsync."""
    _killed_and_recovered(Place(tmp_path), seed, Point())


@pytest.mark.parametrize("point", _POINTS, ids=str)
@pytest.mark.parametrize("seed", range(max(_SEEDS // 12, 1)))
def test_every_kind_of_point(tmp_path: Path, point: Point, seed: int) -> None:
    """The same on either side of each write to the store and to the journal."""
    _killed_and_recovered(Place(tmp_path), _busy_seeds()[seed], point)


@pytest.mark.parametrize("seed", range(max(_SEEDS // 8, 1)))
def test_redis_journal(tmp_path: Path, redis_server: object, seed: int) -> None:
    """A journal in redis outlives the server, which dies with the session."""
    _killed_and_recovered(Place(tmp_path, "redis"), 2000 + seed, Point())


@pytest.mark.parametrize("seed", range(max(_SEEDS // 8, 1)))
def test_without_a_journal(tmp_path: Path, seed: int) -> None:
    """Then versions survive, and nothing else."""
    _killed_and_recovered(Place(tmp_path, None), 3000 + seed, Point())


@cache
def _busy_seeds() -> list[int]:
    """Seeds of programs that come to every point twice, most of which come once a commit."""
    seeds = (seed for seed in count(1000) if sum(step.act == "commit" for step in program(seed, _STEPS)) > 2)
    return list(islice(seeds, max(_SEEDS // 12, 1)))


def _killed_and_recovered(place: Place, seed: int, point: Point) -> None:
    steps = program(seed, _STEPS)
    expected = states(steps)
    story = write_and_kill(place, seed, _STEPS, point)
    assert story.point_reached
    root = root_of(place)
    newest = _require_whole_versions(root, steps, expected, story)
    least = newest if place.metadata_store is None else max([newest, *(number + 1 for number in story.done)])
    most = newest if place.metadata_store is None else story.begun + 1
    with Session.write(root, VOLUME, options_of(place)) as session:
        found = tree_of(session.files)
        matching = [number for number in range(least, most + 1) if expected[number] == found]
        assert matching, (
            f"recovered {shown(found)}, which is no state from {least} ({shown(expected[least])}) "
            f"to {most} ({shown(expected[most])})"
        )
        # Nothing of the rest of the program may stumble over how it was interrupted.
        for step in steps[matching[-1] :]:
            perform(session.files, step, commit=session.commit)
        session.commit()
        assert tree_of(session.files) == expected[-1]
        report = check(root, session.chunks, depth=CheckDepth.DATA)
        assert report.is_whole, "\n".join(map(str, report.findings))
    with Session.write(root, VOLUME, options_of(place)) as session:
        assert tree_of(session.files) == expected[-1]
    _require_whole_versions(root, steps, expected, story)


def _require_whole_versions(root: Root, steps: list[Step], expected: list[Tree], story: Story) -> int:
    """Reads every version that was acknowledged, and the newest; how many steps the newest has at least."""
    for number, name in story.versions.items():
        with Session.read(root, name) as reader:
            assert tree_of(reader.files) == expected[number + 1]
    last = max((number + 1 for number in story.versions), default=0)
    if not root.has_volume(VOLUME):
        assert not story.versions
        return 0
    with Session.read(root, root.head(VOLUME)) as reader:
        found = tree_of(reader.files)
    committed = [number + 1 for number, step in enumerate(steps) if step.act == "commit" and number + 1 >= last]
    matching = [number for number in [*committed, len(steps)] if expected[number] == found]
    assert matching, f"the newest version, {shown(found)}, is none that was committed since {shown(expected[last])}"
    return matching[0]
