"""Volumes of jobs: there before the command starts, leased as long as it lives, and let go by themselves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from datastore.errors import NotFound
from stowstore.jobs import Job, parse_volume, run_job
from stowstore.jobs.settings import Settings
from stowstore.mounts import table
from stowstore.named.errors import VolumeCorrupt, VolumeInUse, VolumeNotFound
from tests.jobs.harness import IN_BOTH, Jobs, eventually, processes_of, processes_with, session_of

pytestmark = pytest.mark.usefixtures("fuse")

MIB = 1 << 20


def test_jobs_share_a_volume(jobs: Jobs) -> None:
    """What one job writes, the next one reads; the host's directory has it too."""
    jobs.create("shared")
    jobs.says("echo 'from the first' > /volumes/shared/note", volumes=("shared",))
    assert "from the first\n" == jobs.says("cat /volumes/shared/note", volumes=("shared",))


@IN_BOTH
def test_a_job_sees_its_volumes_and_no_others(jobs: Jobs) -> None:
    """Only what it asked for is there, where it asked for it, and read-only if it said so."""
    for name in ("one", "two", "other"):
        jobs.create(name)
    jobs.says("echo x > /srv/one/x", volumes=("one:/srv/one",))
    said = jobs.says(
        "ls /volumes; cat /srv/one/x; echo y > /volumes/two/y && echo written; echo y > /srv/one/y || echo refused",
        volumes=("one:/srv/one:ro", "two"),
    )
    assert "two\nx\nwritten\n" == said[: len("two\nx\nwritten\n")]
    assert "Read-only file system" in said
    assert "refused" in said
    assert "other" not in said


def test_a_volume_may_lie_in_the_working_directory(jobs: Jobs) -> None:
    """A cache below /work stays when /work goes."""
    jobs.create("cache")
    jobs.says("echo kept > .cache/x; echo lost > y", volumes=("cache:/work/.cache",))
    assert "kept\n" == jobs.says("cat .cache/x; test ! -e y", volumes=("cache:/work/.cache",))


@IN_BOTH
def test_the_limit_of_a_volume_holds_in_the_job(jobs: Jobs) -> None:
    """The program that goes beyond it is told so, and `df` says where it is."""
    jobs.create("small", size="2MB")
    fill = "dd if=/dev/{} of=big bs=64K count=100 status=none || echo full; stat -c %s big; rm big"
    for source in ("zero", "urandom"):
        said = jobs.says(
            f"cd /volumes/small; df -B1 --output=size . | tail -1; {fill.format(source)}", volumes=("small",)
        )
        assert "No space left on device" in said
        assert [str(2 * MIB), "full", str(2 * MIB)] == [word for word in said.split() if word in (str(2 * MIB), "full")]
    assert f"{10 * MIB} 0" in jobs.says(
        "cd /volumes/small; truncate -s 10M sparse; stat -c '%s %b' sparse", volumes=("small",)
    )


@IN_BOTH
def test_a_job_may_read_what_is_known_of_its_volumes(jobs: Jobs) -> None:
    """The record is beside the volumes, not among the user's files, and does not say where the host keeps them."""
    jobs.create("data", size="50MB", labels={"team": "vision"})
    said = jobs.says(
        "cat /volumes/.meta/data.json; ls -A /volumes/data; test -w /volumes/.meta/data.json",
        volumes=("data:ro",),
        expected=1,
    )
    found = json.loads(said)
    expected = {"name": "data", "size": "50MB", "size_bytes": 50 * MIB, "labels": {"team": "vision"}, "access": "ro"}
    assert expected == {key: found[key] for key in expected}
    assert str(jobs.directory) not in said


def test_a_job_without_volumes_runs_beside_one_with(jobs: Jobs) -> None:
    """They do not see each other."""
    jobs.create("data")
    with jobs.started("run", "--volume=data", "sh", "-c", "echo up; read line; cat /volumes/data/x") as process:
        assert "" == jobs.says("ls /volumes")
        _, errors = process.communicate("\n")
    assert 1 == process.returncode
    assert "No such file" in errors


def test_a_missing_volume_keeps_the_job_from_starting(jobs: Jobs) -> None:
    """Nothing is mounted, nothing leased and nothing run, whatever else the job asked for."""
    jobs.create("data")
    with pytest.raises(VolumeNotFound, match="volume nothing not found"):
        jobs.run("sh", "-c", "echo ran > /volumes/data/ran", volumes=("data", "nothing"))
    assert [] == jobs.mounts()
    assert not jobs.is_leased("data")
    assert "" == jobs.says("ls /volumes/data", volumes=("data",))


def test_a_missing_snapshot_keeps_the_job_from_starting(jobs: Jobs) -> None:
    """A version that is not there is found out when the volume is attached; the others are let go again."""
    jobs.create("data")
    jobs.create("other")
    with pytest.raises(NotFound):
        jobs.run("sh", "-c", "echo ran > /volumes/other/ran", volumes=("other", "data@nothing"))
    assert not jobs.is_leased("data")
    assert not jobs.is_leased("other")
    assert "" == jobs.says("ls /volumes/other", volumes=("other",))


def test_a_damaged_volume_keeps_the_job_from_starting(jobs: Jobs) -> None:
    """A record that cannot be read is an error, and never an empty directory."""
    jobs.create("data")
    (jobs.volumes.base / "data" / "volume.json").write_text("{")
    with pytest.raises(VolumeCorrupt):
        jobs.run("true", volumes=("data",))


def test_the_command_line_says_why_and_ends_with_125(jobs: Jobs) -> None:
    """Whatever keeps a job from starting has one status, that no program of a shell's uses; JSON says which it was."""
    done = jobs.cli("run", "--volume=nothing", "--", "touch", "/work/ran")
    assert 125 == done.returncode
    assert "volume nothing not found" in done.stderr
    told = jobs.cli("run", "--json", "--volume=nothing", "--", "true")
    assert (125, "") == (told.returncode, told.stdout)
    assert {"code": "NOT_FOUND", "reason": "not_found"}.items() <= json.loads(told.stderr).items()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--volume=a",), "must specify a command"),
        (("--frobnicate", "true"), "unknown flag: --frobnicate"),
        (("--volume=../x", "true"), "invalid volume name"),
        (("--volume=a", "-v", "a:ro", "true"), "asked for twice"),
        (("--memory=0", "true"), "--memory: a limit must be positive: '0'"),
        (("--memory=lots", "true"), "invalid size"),
        (("--env=A-B=1", "true"), "cannot name a variable"),
        (("--workdir=here", "true"), "must be absolute"),
        (("--when-orphaned=pray", "true"), "is not one of"),
    ],
)
def test_wrong_usage_ends_with_2(jobs: Jobs, arguments: tuple[str, ...], why: str) -> None:
    """What cannot be a job is said before anything is looked for."""
    done = jobs.cli("run", *arguments)
    assert 2 == done.returncode
    assert why in done.stderr


def test_the_command_line_takes_every_spelling(jobs: Jobs, tmp_path: Path) -> None:
    """Options end at the first word that is none, or at --; the command's own options are its own."""
    jobs.create("a")
    (tmp_path / "file").write_text("up\n")
    done = jobs.cli(
        "run", "--volume=a", "--env", "X=1", "-e", "HANDED", "--upload", str(tmp_path / "file"), "--workdir=/work",
        "--scratch=2MB", "sh", "-c", "cat file; echo $X $HANDED; ls /volumes; exit 9", "--volume=b", HANDED="on",
    )  # fmt: skip
    assert (9, "up\n1 on\na\n") == (done.returncode, done.stdout), done.stderr


def test_json_tells_how_a_job_ended(jobs: Jobs) -> None:
    """One document on standard output, and what the job prints on standard error."""
    jobs.create("a")
    done = jobs.cli("run", "--json", "-v", "a:/srv:ro", "--", "sh", "-c", "echo printed; exit 4")
    assert (4, "printed\n") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    assert (4, jobs.sandbox) == (found["exit_code"], found["sandbox"])
    volume = {"name": "a", "snapshot": None, "path": "/srv", "read_only": True, "backing": "chunked", "enforced": True}
    assert [volume] == found["volumes"]


@IN_BOTH
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_pass_through(jobs: Jobs, number: signal.Signals) -> None:
    """What is sent to `stowstore run` arrives at the command, which may answer as it likes."""
    script = f"trap 'echo caught; exit 42' {number.name.removeprefix('SIG')}; echo up; while :; do sleep 0.05; done"
    with jobs.started("run", "--", "sh", "-c", script) as process:
        process.send_signal(number)
        said, errors = process.communicate(timeout=60)
    assert (42, "caught\n") == (process.returncode, said), errors


@IN_BOTH
def test_a_command_that_a_signal_ends_is_128_and_the_signal(jobs: Jobs) -> None:
    """SIGTERM to the supervisor of a command that does not handle it."""
    with jobs.started("run", "--", "sh", "-c", "echo up; exec sleep 1000") as process:
        process.terminate()
        assert 143 == process.wait(60)


@IN_BOTH
def test_an_interrupt_reaches_every_process_that_a_terminal_would_interrupt(jobs: Jobs) -> None:
    """Control-C interrupts the program and not only the shell that started it."""
    inner = "trap 'echo inner >&2; exit 1' INT; echo up; while :; do sleep 0.05; done"
    script = f'sh -c "{inner}"; trap - INT; echo outer >&2; exit 5'
    with jobs.started("run", "--", "sh", "-c", f"trap : INT; {script}") as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert ["inner", "outer"] == errors.split()
    assert 5 == process.returncode


def test_a_volume_cannot_be_removed_while_a_job_has_it(jobs: Jobs) -> None:
    """The refusal names the job; afterwards the volume goes."""
    jobs.create("data")
    with jobs.started("run", "--volume=data", "sh", "-c", "echo $STOWSTORE_JOB; read line") as process:
        found = jobs.volumes.jobs("data")["data"]
        with pytest.raises(VolumeInUse, match=found[0].job):
            jobs.volumes.remove("data")
        process.communicate("\n")
    assert 0 == process.returncode
    jobs.volumes.remove("data")
    assert [] == jobs.volumes.names()


@IN_BOTH
def test_a_killed_supervisor_takes_its_job_along_and_the_volume_is_free(jobs: Jobs) -> None:
    """Neither job nor lease outlives `stowstore run`, even by SIGKILL."""
    jobs.create("data")
    script = "sleep 1000 & cd /volumes/data; echo written > file; sync file; cd /; echo up; exec setsid sleep 1000"
    with jobs.started("run", "--volume=data", "sh", "-c", script) as process:
        session = session_of(process.pid)
        assert jobs.is_leased("data")
        process.kill()
        process.wait()
    assert eventually(lambda: not processes_of(session))
    assert eventually(lambda: not jobs.is_leased("data"))
    assert "written\n" == jobs.says("cat /volumes/data/file", volumes=("data",))
    jobs.volumes.remove("data")


@IN_BOTH
def test_a_job_may_outlive_its_supervisor_and_keeps_its_lease(jobs: Jobs) -> None:
    """The lease is the job's own: it lasts while a process of the job lives, and goes with the last, by SIGKILL too."""
    jobs.create("data")
    script = "echo up; cd /volumes/data; until test -e go; do sleep 0.05; done; echo on > went; exec sleep 1000"
    arguments = ("run", "--when-orphaned=continue", "--volume=data", "sh", "-c", script)
    with jobs.started(*arguments) as process:
        session = session_of(process.pid)
        process.kill()
        process.wait()
    try:
        assert jobs.is_leased("data")
        with pytest.raises(VolumeInUse):
            jobs.volumes.remove("data")
        jobs.says("touch /volumes/data/go; until test -e /volumes/data/went; do sleep 0.05; done", volumes=("data",))
        assert jobs.is_leased("data")
    finally:
        for pid in processes_of(session):
            # Some end with others.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not jobs.is_leased("data"))
    jobs.volumes.remove("data")


@IN_BOTH
def test_a_command_that_closes_every_descriptor_keeps_its_lease(jobs: Jobs) -> None:
    """Daemons do so; the lease is not theirs to lose."""
    jobs.create("data")
    script = 'for n in 3 4 5 6 7 8 9; do eval "exec $n>&-"; done; ls /proc/self/fd | wc -l; read line'
    with jobs.started("run", "--volume=data", "sh", "-c", script) as process:
        assert jobs.is_leased("data")
        process.communicate("\n")
    assert eventually(lambda: not jobs.is_leased("data"))


@IN_BOTH
def test_a_killed_command_leaves_what_was_synced(jobs: Jobs) -> None:
    """A job that dies in the middle of a write loses nothing that fsync has answered for, and is free at once."""
    jobs.create("data", size="200MB")
    script = (
        "cd /volumes/data; dd if=/dev/urandom of=safe bs=1M count=5 conv=fsync 2>/dev/null; sha256sum < safe; "
        "while :; do dd if=/dev/urandom of=torn bs=1M count=50 2>/dev/null; done"
    )
    with jobs.started("run", "--volume=data", "sh", "-c", script) as process:
        session = session_of(process.pid)
        for pid in processes_of(session):
            # Some end with others.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert 137 == process.wait(60)
    assert not jobs.is_leased("data")
    assert "5242880\n" == jobs.says("stat -c %s /volumes/data/safe", volumes=("data",))


def test_a_daemon_that_died_is_replaced_for_the_next_job(jobs: Jobs) -> None:
    """What was synced is in the journal, and the mount that answers no more is cleaned up."""
    jobs.create("data")
    with jobs.started(
        "run",
        "--volume=data",
        "sh",
        "-c",
        "echo x > /volumes/data/x; sync /volumes/data/x; echo up; read line; ls /volumes/data",
    ) as process:
        record = table.find(jobs.volumes.base / "data" / "data")
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        _, errors = process.communicate("\n")
    assert 0 != process.returncode
    assert "ls: cannot " in errors
    assert "x\n" == jobs.says("cat /volumes/data/x", volumes=("data",))


def test_many_jobs_at_once_share_one_mount(jobs: Jobs) -> None:
    """Jobs that start and end beside each other neither wait for nor disturb one another."""
    jobs.create("data")
    failed: list[object] = []

    def work(number: int) -> None:
        job = Job(
            command=("sh", "-c", f"echo {number} > /volumes/data/{number}; cat /volumes/data/{number} >/dev/null"),
            volumes=(parse_volume("data"),),
        )
        result = run_job(job, jobs.volumes, settings=Settings(sandbox=jobs.sandbox))
        if result.exit_code:
            failed.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failed
    assert "8\n" == jobs.says("ls /volumes/data | wc -l", volumes=("data",))


@IN_BOTH
def test_nothing_is_left_of_many_jobs(jobs: Jobs) -> None:
    """No mount, process, descriptor or lease, however they ended."""
    names = ("a", "b")
    for name in names:
        jobs.create(name)
    jobs.run("true", volumes=names)
    opened, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(100):
        ways = ("exit 3", "kill -KILL $$", "sleep 1000 & exit 0", "exec no-such-program")
        jobs.run("sh", "-c", f"echo {number} > /volumes/a/x; {ways[number % len(ways)]}", volumes=names)
        if number % 10 == 0:
            with pytest.raises(VolumeNotFound):
                jobs.run("true", volumes=("a", "nothing"))
    assert eventually(lambda: not any(map(jobs.is_leased, names)))
    assert eventually(lambda: not jobs.mounts())
    assert eventually(lambda: not processes_with(str(jobs.directory)))
    assert eventually(lambda: threading.active_count() <= threads)
    assert len(opened) >= len(os.listdir("/proc/self/fd"))
    assert [] == [card for name in names for card in (jobs.volumes.base / name / "jobs").iterdir()]
    for name in names:
        jobs.volumes.remove(name)
