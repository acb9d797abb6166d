"""What a job sees and may do, in both sandboxes."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from stowstore.jobs import InvalidJob, Job, JobNotStarted, NoSandbox, Settings, run_job
from stowstore.jobs.sandbox import choose
from stowstore.named import NamedVolumes
from tests import servers
from tests.jobs.harness import IN_BOTH, REPOSITORY, Jobs

MIB = 1 << 20


@IN_BOTH
def test_a_job_sees_the_system_and_nothing_else_of_the_host(jobs: Jobs) -> None:
    """Its root has the system's programs and places of its own; no home, no /root, no data of the host."""
    expected = {"bin", "dev", "etc", "lib", "proc", "sbin", "tmp", "usr", "var", "volumes", "work"}
    found = set(jobs.says("ls /").split()) - {"lib32", "lib64", "libx32"}
    assert expected == found


@IN_BOTH
@pytest.mark.parametrize(
    "path", [REPOSITORY, Path("/root"), Path("/home"), Path("/etc/shadow"), Path("/sys"), Path("/run")]
)
def test_what_is_not_the_jobs_is_not_there(jobs: Jobs, path: Path) -> None:
    """Names of the host lead nowhere."""
    assert "gone" in jobs.says(f"test -e {path} || echo gone")


@IN_BOTH
def test_the_hosts_temporary_files_are_not_there(jobs: Jobs, tmp_path: Path) -> None:
    """/tmp, /var/tmp and /dev/shm are the job's own, empty and open to every user of it."""
    (tmp_path / "host").write_text("secret")
    said = jobs.says(f"ls -A /tmp /var/tmp/ /dev/shm; test -e {tmp_path} || echo gone; stat -c %a /tmp /dev/shm")
    assert ["/dev/shm:", "", "/tmp:", "", "/var/tmp/:", "gone", "1777", "1777"] == said.splitlines()


@IN_BOTH
@pytest.mark.parametrize("path", ["/", "/usr", "/etc", "/dev", "/volumes", "/proc/sys/vm", "/var"])
def test_the_system_is_read_only(jobs: Jobs, path: str) -> None:
    """Not even the root of a job writes where it shall not."""
    assert "no" in jobs.says(f"echo x 2>&1 > {path}/stowstore-test || echo no")


@IN_BOTH
def test_the_kernels_settings_are_read_only(jobs: Jobs) -> None:
    """What root could change for the whole machine through /proc, a job cannot."""
    said = jobs.says("v=$(cat /proc/sys/vm/swappiness) && { echo $v > /proc/sys/vm/swappiness; } 2>&1 || echo no")
    assert "Read-only file system" in said
    assert "no" in said


@IN_BOTH
@pytest.mark.parametrize(
    "doing",
    [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /usr",
        "umount /volumes",
        "mknod /tmp/disk b 7 0",
        "hostname stowstore-test",
        "nice -n -19 true 2>&1 | grep -v cannot",
    ],
)
def test_the_root_of_a_job_is_not_that_of_the_machine(jobs: Jobs, doing: str) -> None:
    """It has the capabilities for its own files and users, and none for the machine."""
    assert "refused" in jobs.says(f"{doing} 2>&1 || echo refused")


@IN_BOTH
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_the_root_of_a_job_may_become_somebody_else(jobs: Jobs) -> None:
    """A database that refuses to run as root can be run as somebody else, on files that were given to them."""
    said = jobs.says(
        "mkdir db && chown 65534 db && cd db && "
        "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'id -u; touch x'"
    )
    assert "65534" == said.strip()


@IN_BOTH
def test_a_job_sees_its_own_processes_only(jobs: Jobs) -> None:
    """It has a process namespace of its own, in which its command is the second process."""
    assert ["2", "1 2"] == jobs.says("echo $$; cd /proc; echo [0-9]*").splitlines()


@IN_BOTH
def test_devices_are_the_harmless_ones(jobs: Jobs) -> None:
    """Null, zero, full, random, a terminal, and the standard streams."""
    wanted = "null zero full random urandom tty stdin stdout stderr fd pts ptmx shm"
    found = set(jobs.says("ls /dev; echo x > /dev/null; head -c 4 /dev/urandom | wc -c").split())
    assert {*wanted.split(), "4"} == found - {"console", "core"}


@IN_BOTH
def test_a_job_gets_no_descriptor_that_happens_to_be_open(jobs: Jobs) -> None:
    """A directory of the host that somebody has left open would be a way out."""
    stray = os.open("/", os.O_RDONLY)
    os.set_inheritable(stray, True)
    try:
        said = jobs.says("ls -l /proc/self/fd")
    finally:
        os.close(stray)
    opened = {line.partition(" -> ")[2] for line in said.splitlines() if " -> " in line}
    assert not [target for target in opened if target == "/" or target.startswith(str(REPOSITORY))]
    assert len([target for target in opened if target.startswith("socket:")]) <= 1


@IN_BOTH
def test_the_environment_is_the_jobs_own(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what was asked for, a few usual variables, and the host's language and time zone."""
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    said = jobs.says("env", environment={"GREETING": "hello  world\n=", "HOME": "/volumes"})
    assert "SECRET_OF_THE_HOST" not in said
    assert "GREETING=hello  world\n=\n" in said
    assert {"TZ=Asia/Tokyo", "TMPDIR=/tmp", "HOME=/volumes"} <= set(said.splitlines())


@IN_BOTH
def test_values_of_variables_are_in_no_processs_arguments(jobs: Jobs) -> None:
    """Anybody on the host may read arguments; a password must not be among them."""
    said = jobs.says("cat /proc/1/cmdline /proc/self/cmdline | tr '\\0' ' '", environment={"PASSWORD": "hunter2"})
    assert "hunter2" not in said


@IN_BOTH
def test_an_unset_limit_gives_jobs_without_volumes_one_mebibyte(jobs: Jobs) -> None:
    """Scratch space is a memory file system of exactly that size."""
    said = jobs.says(
        "dd if=/dev/zero of=/work/x bs=4096 2>&1; stat -c %s /work/x; df -B1 --output=size /work | tail -1"
    )
    assert "No space left on device" in said
    assert [str(MIB), str(MIB)] == said.split()[-2:]


@IN_BOTH
def test_the_limit_of_scratch_space_can_be_set(jobs: Jobs) -> None:
    """The same limit holds for /work, /tmp and /dev/shm."""
    said = jobs.says("df -B1 --output=size /work /tmp /dev/shm | tail -3", scratch=5 * MIB)
    assert [str(5 * MIB)] * 3 == said.split()


@IN_BOTH
def test_nothing_stays_from_one_job_to_the_next(jobs: Jobs) -> None:
    """Without volumes a job leaves nothing behind."""
    jobs.says("echo x > /work/x; echo x > /tmp/x; echo x > /dev/shm/x")
    assert "" == jobs.says("ls /work /tmp /dev/shm | grep x || true")


@IN_BOTH
@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_status_passes_through(jobs: Jobs, script: str, status: int) -> None:
    """A status is the command's own, and 128 and the signal for one that was killed."""
    assert status == jobs.run("sh", "-c", script).exit_code


@IN_BOTH
def test_a_command_that_is_not_there_is_127_and_one_that_cannot_be_run_126(jobs: Jobs) -> None:
    """As shells have it."""
    assert 127 == jobs.run("no-such-program").exit_code
    assert 126 == jobs.run("/etc/passwd").exit_code


@IN_BOTH
def test_arguments_arrive_as_they_are(jobs: Jobs) -> None:
    """Nothing is split, expanded or taken for an option."""
    words = ["a b", "$HOME", "*", "", "--", "-x", "ünïcode", "new\nline", "'\"\\"]
    jobs.capture.readouterr()
    assert 0 == jobs.run("printf", "%s|", *words).exit_code
    assert "|".join(words) + "|" == jobs.capture.readouterr().out


@IN_BOTH
def test_a_job_starts_where_it_is_told(jobs: Jobs) -> None:
    """/work unless another directory is named; one that is not there keeps the command from starting."""
    assert "/work\n" == jobs.says("pwd")
    assert "/usr/lib\n" == jobs.says("pwd", workdir="/usr/lib")
    with pytest.raises(JobNotStarted):
        jobs.run("true", workdir="/nowhere")


@IN_BOTH
def test_what_a_command_leaves_running_ends_with_it(jobs: Jobs) -> None:
    """The job ends with its command, whatever else runs in it, in whatever session."""
    result = jobs.run("sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 3")
    assert 3 == result.exit_code
    assert result.seconds < 500


@IN_BOTH
def test_signals_are_neither_blocked_nor_ignored_in_a_job(jobs: Jobs) -> None:
    """A command begins with the dispositions every program expects, SIGPIPE included, which Python ignores."""
    said = dict(line.split() for line in jobs.says("grep -E '^Sig(Blk|Ign)' /proc/self/status").splitlines())
    # The C library keeps the first two real-time signals to itself.
    ordinary = (1 << 31) - 1
    assert {"SigBlk:": 0, "SigIgn:": 0} == {name: int(mask, 16) & ordinary for name, mask in said.items()}


@IN_BOTH
def test_uploads_are_in_the_working_directory(jobs: Jobs, tmp_path: Path) -> None:
    """A file by its name, of a directory the content with modes and links, all of them the job's own to change."""
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("from the tree\n")
    (tmp_path / "tree" / "link").symlink_to("deep/file")
    (tmp_path / "train.sh").write_text("#!/bin/sh\necho trained\n")
    (tmp_path / "train.sh").chmod(0o755)
    said = jobs.says(
        "./train.sh; cat link; readlink link; stat -c %u:%a train.sh; echo more >> deep/file && echo changed",
        files=(tmp_path / "train.sh",),
        directories=(tmp_path / "tree",),
    )
    assert ["trained", "from the tree", "deep/file", f"{os.geteuid()}:755", "changed"] == said.splitlines()
    assert "from the tree\n" == (tmp_path / "tree" / "deep" / "file").read_text()


@IN_BOTH
def test_a_job_may_start_in_an_uploaded_directory(jobs: Jobs, tmp_path: Path) -> None:
    """The working directory is looked for after the uploads have come."""
    (tmp_path / "tree" / "src").mkdir(parents=True)
    assert "/work/src\n" == jobs.says("pwd", directories=(tmp_path / "tree",), workdir="/work/src")


@IN_BOTH
def test_uploads_that_cannot_be_are_refused(jobs: Jobs, tmp_path: Path) -> None:
    """What is not there, is of the wrong kind, has another's name, or does not fit; nothing is started."""
    (tmp_path / "a").mkdir()
    (tmp_path / "big").write_bytes(bytes(2 * MIB))
    for path in (tmp_path / "x", tmp_path / "a" / "x"):
        path.write_text("x")
    (tmp_path / "sockets").mkdir()
    refused = [
        ({"files": (tmp_path / "nothing",)}, "does not exist"),
        ({"files": (tmp_path / "a",)}, "is a directory"),
        ({"directories": (tmp_path / "x",)}, "is no directory"),
        ({"files": (tmp_path / "x", tmp_path / "a" / "x")}, "would both be uploaded"),
        ({"files": (tmp_path / "big",)}, "--scratch 3MB"),
        ({"directories": (tmp_path / "sockets",)}, "neither a file nor a directory"),
    ]
    with socket.socket(socket.AF_UNIX) as special:
        os.chdir(tmp_path / "sockets")
        special.bind("special")
        os.chdir(REPOSITORY)
        for given, why in refused:
            with pytest.raises(InvalidJob, match=why):
                jobs.run("true", **given)


@IN_BOTH
def test_the_operator_may_show_more_of_the_host(jobs: Jobs, tmp_path: Path) -> None:
    """Programs that are installed elsewhere are there for reading when the operator says so."""
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "tool").write_text("a tool\n")
    (tmp_path / "link").symlink_to("opt")
    job = Job(command=("sh", "-c", f"cat {tmp_path}/link/tool; echo x > {tmp_path}/link/tool"))
    jobs.capture.readouterr()
    result = run_job(job, jobs.volumes, settings=Settings(sandbox=jobs.sandbox, system=(tmp_path / "link",)))
    said = jobs.capture.readouterr()
    assert "a tool\n" == said.out
    assert "Read-only file system" in said.err
    assert 0 != result.exit_code


@IN_BOTH
@pytest.mark.skipif(os.geteuid() != 0, reason="only root tries it as somebody else")
def test_anybody_may_run_jobs(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without privileges the sandboxes use a user namespace, and the job is run by the user who asked for it."""
    from stowstore.jobs import namespaces

    # What runs must be where that user may read, which neither a checkout nor a virtual environment need be.
    for above in (tmp_path, *tmp_path.parents):
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    inside = shutil.copy(namespaces.__file__.replace("namespaces.py", "inside.py"), tmp_path / "inside.py")
    monkeypatch.setattr(namespaces, "_INSIDE", inside)
    monkeypatch.setattr(sys, "executable", os.path.realpath(sys.executable))
    if servers.bubblewrap.folder.is_dir():
        shutil.copytree(servers.bubblewrap.folder, tmp_path / "bubblewrap")
        monkeypatch.setenv("PATH", f"{tmp_path}/bubblewrap/usr/bin:{os.environ['PATH']}")
    choose(jobs.sandbox)
    script = "id -u; echo x > /work/x && cat /work/x; echo x > /usr/x || echo refused; exit 5"
    job = Job(command=("sh", "-c", f"exec 2>&1; {script}"))
    settings, volumes = Settings(sandbox=jobs.sandbox), NamedVolumes(tmp_path / "none")
    jobs.capture.readouterr()
    child = os.fork()
    if child == 0:
        status = 100
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            status = run_job(job, volumes, settings=settings).exit_code
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    said = jobs.capture.readouterr()
    assert 5 == os.waitstatus_to_exitcode(status), said
    assert ["65534", "x"] == said.out.split()[:2]
    assert "refused" in said.out


def test_a_sandbox_that_is_not_known_or_not_here_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are never run without isolation."""
    with pytest.raises(InvalidJob, match="bubblewrap and namespaces are known"):
        choose("docker")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in (None, "bubblewrap", "namespaces"):
        with pytest.raises(NoSandbox, match="apt-get install bubblewrap"):
            choose(name)


def test_bubblewrap_is_preferred_and_namespaces_do_without_it(
    bubblewrap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice is made by what is installed."""
    assert "bubblewrap" == choose().name
    found = shutil.which("unshare")
    assert found is not None
    (tmp_path / "unshare").symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "namespaces" == choose().name
