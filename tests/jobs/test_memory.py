"""Limits of memory: by a control group where one can be made, else for each process, and said which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stowstore.jobs import memory
from stowstore.jobs.memory import make_group
from tests.jobs.harness import Jobs, eventually

MIB = 1 << 20


def _eater(mebibytes: int) -> tuple[str, ...]:
    """Takes so much memory, and touches all of it."""
    return ("dd", "if=/dev/zero", "of=/dev/null", f"bs={mebibytes}M", "count=1")


def _can_limit() -> bool:
    group = make_group("probe", 64 * MIB)
    if group is not None:
        group.remove()
    return group is not None


@pytest.fixture
def without_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which this user can make no control group."""
    monkeypatch.setattr(memory, "_parents", lambda root: iter(()))


def test_a_job_that_takes_too_much_is_ended_by_the_kernel(jobs: Jobs) -> None:
    """The limit is that of the job as a whole, and its result says that it was exceeded."""
    if not _can_limit():
        pytest.skip("no control group that limits memory can be made here")
    within = jobs.run(*_eater(10), memory=200 * MIB)
    assert (0, "cgroup", False) == (within.exit_code, within.memory_enforced, within.memory_exceeded)
    beyond = jobs.run(*_eater(400), memory=100 * MIB)
    assert (137, "cgroup", True) == (beyond.exit_code, beyond.memory_enforced, beyond.memory_exceeded)


def test_processes_of_a_job_share_its_limit(jobs: Jobs) -> None:
    """Many that are small enough by themselves are too much together."""
    if not _can_limit():
        pytest.skip("no control group that limits memory can be made here")
    # Each keeps what it has read until somebody takes it.
    script = "for n in 1 2 3 4; do dd if=/dev/zero bs=60M count=1 | sleep 20 & done; wait"
    assert jobs.run("sh", "-c", script, memory=120 * MIB).memory_exceeded
    less = script.replace("60M", "10M").replace("sleep 20", "sleep 0")
    assert not jobs.run("sh", "-c", less, memory=120 * MIB).memory_exceeded


def test_no_group_is_left(jobs: Jobs) -> None:
    """A group goes with its job, however that ended."""
    group = make_group("left", 64 * MIB)
    if group is None:
        pytest.skip("no control group that limits memory can be made here")
    parent = group.path.parent
    group.remove()
    for script in ("exit 0", "kill -KILL $$", "sleep 1000 & exit 1"):
        jobs.run("sh", "-c", script, memory=64 * MIB)
    assert eventually(lambda: not list(parent.glob(f"stowstore-job-{os.getpid()}-*")))


def test_a_group_of_a_dead_supervisor_is_removed_by_the_next_job() -> None:
    """What SIGKILL has left behind is empty, and named after a process that is no more."""
    group = make_group("first", 64 * MIB)
    if group is None:
        pytest.skip("no control group that limits memory can be made here")
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    left = group.path.with_name(f"stowstore-job-{dead}-left")
    left.mkdir()
    group.remove()
    again = make_group("second", 64 * MIB)
    assert again is not None
    again.remove()
    assert not left.exists()


@pytest.mark.usefixtures("without_groups")
def test_without_a_group_each_process_is_limited_and_that_is_said(jobs: Jobs) -> None:
    """An allocation beyond the limit fails; the result does not claim more than that."""
    told: list[str] = []
    result = jobs.run(*_eater(400), memory=200 * MIB, notice=told.append)
    assert (1, "address-space", False) == (result.exit_code, result.memory_enforced, result.memory_exceeded)
    assert "memory exhausted" in jobs.capture.readouterr().err
    assert ["no control group can be made here: memory is limited for each process by itself, not for the job"] == told


@pytest.mark.parametrize(
    ("own", "handing_down", "expected"),
    [
        ("/user/job.scope", {"/": "cpu memory", "/user": "cpu memory"}, "/user"),
        ("/user/job.scope", {"/": "memory", "/user": "cpu"}, "/"),
        ("/user/job.scope", {"/": "cpu", "/user": ""}, None),
        ("/", {"/": "memory pids"}, "/"),
        ("/../elsewhere", {"/": "memory"}, "/"),
    ],
)
def test_a_group_is_made_in_the_nearest_that_hands_memory_down(
    tmp_path: Path, own: str, handing_down: dict[str, str], expected: str | None
) -> None:
    """In version 2 of control groups one that holds processes cannot; the files are those the kernel has."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "proc/self/cgroup").write_text(f"0::{own}\n")
    top = tmp_path / "sys/fs/cgroup"
    for name, controllers in {"/user/job.scope": "", **handing_down}.items():
        directory = top / name.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.subtree_control").write_text(controllers)
    group = make_group("one", 5 * MIB, root=tmp_path)
    if expected is None:
        assert group is None
    else:
        assert group is not None
        assert top / expected.lstrip("/") == group.path.parent
        assert f"{5 * MIB}\n" == (group.path / "memory.max").read_text()
