"""Programs made to load and to check file systems, and a database, run on a mount."""

from __future__ import annotations

import filecmp
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import stowstore
from stowstore.mounts.options import MountOptions
from tests.mounts.conftest import Mounting
from tests.servers import Tools

_MODES = ("writethrough", "writeback")
_both_modes = pytest.mark.parametrize("place", _MODES, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, mounting: Mounting) -> Path:
    """A mount, with the mode of the kernel's cache that the parameter names."""
    mode = getattr(request, "param", "writethrough")
    return mounting.mount(mounting.volume(), options=MountOptions(kernel_cache=mode))


def _run(tools: Tools, program: str, *words: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        [tools.path(program), *words],
        cwd=cwd,
        env=tools.environment | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{program} {words}: {done.stdout[-4000:]}"
    return done.stdout


@_both_modes
def test_fio_reads_what_it_wrote(place: Path, tools: Tools) -> None:
    """Random writes of many sizes, synced now and then, mapped and direct, verified by checksum."""
    for engine, direct, block in (("psync", "0", "512-64k"), ("mmap", "0", "4k"), ("psync", "1", "4k-128k")):
        words = [
            f"--name={engine}-{direct}",
            f"--directory={place}",
            f"--ioengine={engine}",
            f"--direct={direct}",
            f"--bsrange={block}" if "-" in block else f"--bs={block}",
            "--size=12m",
            "--rw=randwrite",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--fsync=64",
            "--output-format=json",
        ]
        told = _run(tools, "fio", *words, cwd=place)
        (job,) = json.loads(told[told.index("{") :])["jobs"]
        assert job["error"] == 0
        # What is verified is read.
        assert job["read"]["io_bytes"] >= 11 << 20


def test_dbench_runs_its_clients(place: Path, tools: Tools) -> None:
    """The file operations of an office of clients for some seconds, without one that fails."""
    load = tools.data("usr/share/dbench/client.txt")
    told = _run(tools, "dbench", "-c", load, "-D", place, "-t", "2", "3", cwd=place)
    assert "Throughput" in told
    assert "failed" not in told.lower()


def test_fs_mark_makes_its_files(place: Path, tools: Tools) -> None:
    """Small files of two threads in many directories, each synced."""
    directory = place / "marks"
    directory.mkdir()
    _run(tools, "fs_mark", "-d", "marks", "-D", "10", "-n", "300", "-s", "5000", "-S", "1", "-t", "2", "-k", cwd=place)
    sizes = [found.stat().st_size for found in directory.rglob("*") if found.is_file()]
    assert sizes == [5000] * 600


#: Stressors of stress-ng's class of file systems that need nothing but a directory.
_STRESSORS = (
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fcntl",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "msync",
    "open",
    "rename",
    "revio",
    "seek",
    "symlink",
    "sync-file",
    "touch",
    "unlink",
    "utime",
    "verity",
    "xattr",
)


@_both_modes
def test_stress_ng_finds_nothing_wrong(place: Path, tools: Tools) -> None:
    """File-system stressors all at once, checking what they read and what they are told."""
    offered = _run(tools, "stress-ng", "--stressors", cwd=place).split()
    ours = [name for name in _STRESSORS if name in offered]
    assert len(ours) > 25
    words = [word for name in ours for word in (f"--{name}", "1")]
    more = ("--iomix-bytes", "16m", "--revio-bytes", "8m", "--hdd-bytes", "8m")
    told = _run(
        tools,
        "stress-ng",
        *words,
        *more,
        "--timeout",
        "4s",
        "--temp-path",
        place,
        "--verify",
        cwd=place,
    )
    assert "successful run completed" in told
    assert "fail:" not in told
    assert os.listdir(place) == []


def test_bonnie_reads_what_it_wrote(place: Path, tools: Tools) -> None:
    """Blocks and rewriting, then files made, looked at and removed in order and at random."""
    _run(tools, "bonnie++", "-d", place, "-u", "root", "-s", "16", "-r", "8", "-n", "1:4096:1:4", "-f", "-q", cwd=place)
    assert os.listdir(place) == []


def test_rsync_brings_a_tree_there_and_back(place: Path, tools: Tools, tmp_path: Path) -> None:
    """Modes, times, links and contents go there and come back; a second run has nothing to do, also by checksum."""
    source = tmp_path / "source"
    shutil.copytree(Path(stowstore.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "to").symlink_to("store.py")
    os.link(source / "store.py", source / "twin.py")
    with open(source / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"middle")
    words = ("-aHX", "--sparse", "--out-format=%n")
    _run(tools, "rsync", *words, f"{source}/", f"{place}/there", cwd=tmp_path)
    assert _run(tools, "rsync", *words, "--checksum", "--delete", f"{source}/", f"{place}/there", cwd=tmp_path) == ""
    (place / "there" / "store.py").unlink()
    (place / "there" / "more").write_text("more")
    told = _run(tools, "rsync", *words, "--delete", f"{source}/", f"{place}/there", cwd=tmp_path)
    assert "deleting more" in told
    _run(tools, "rsync", *words, f"{place}/there/", f"{tmp_path}/back", cwd=tmp_path)
    assert filecmp.cmp(source / "sparse", tmp_path / "back" / "sparse", shallow=False)
    assert _run(tools, "rsync", *words, "--checksum", "--delete", f"{source}/", f"{tmp_path}/back", cwd=tmp_path) == ""
    assert (place / "there" / "twin.py").stat().st_nlink == 2


def test_pip_installs_a_wheel(place: Path, tmp_path: Path) -> None:
    """A wheel is installed into a directory of the mount and imported from there."""
    wheel = tmp_path / "parcel-1.0-py3-none-any.whl"
    members = {f"parcel/part{number}.py": f"VALUE = {number}\n" for number in range(200)}
    members["parcel/__init__.py"] = "from parcel.part7 import VALUE\n"
    members["parcel-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n"
    members["parcel-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members["parcel-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in members)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", place / "library", wheel], check=True, timeout=90)
    program = "import parcel; print(parcel.__file__, parcel.VALUE)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(place / "library")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout.split() == [f"{place}/library/parcel/__init__.py", "7"]
    assert len(list((place / "library" / "parcel" / "__pycache__").iterdir())) == 201


class _Postgres:
    """The programs of PostgreSQL, as a user who is not the superuser."""

    #: PostgreSQL wants a user who has a name.
    _USER = pwd.getpwnam("nobody").pw_uid

    def __init__(self, tools: Tools, directory: Path) -> None:
        binaries = tools.path("initdb").resolve().parent
        self.environment: Mapping[str, str] = tools.environment
        if binaries.is_relative_to(tools.folder):
            # Others do not get into the cache, and the programs find their files by where they are themselves.
            for part in ("usr/lib", "usr/share/postgresql", "lib"):
                if (tools.folder / part).exists():
                    shutil.copytree(tools.folder / part, directory / part, symlinks=True, copy_function=_linked)
            binaries = directory / binaries.relative_to(tools.folder)
            self.environment = {
                name: value.replace(str(tools.folder), str(directory)) for name, value in tools.environment.items()
            }
        self.binaries = binaries

    def run(self, program: str, *words: str | Path, cwd: Path) -> str:
        """Runs one of them."""
        user = self._USER if os.geteuid() == 0 else None
        done = subprocess.run(
            [self.binaries / program, *words],
            cwd=cwd,
            env={**self.environment, "LC_ALL": "C", "PGUSER": "someone", "HOME": str(cwd)},
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{program} {words}: {done.stdout[-4000:]}"
        return done.stdout

    def own(self, directory: Path) -> None:
        """Gives a directory to the user."""
        directory.mkdir()
        if os.geteuid() == 0:
            os.chown(directory, self._USER, self._USER)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that others get into; pytest closes its own to them whenever a run begins."""
    directory = Path(tempfile.mkdtemp(prefix="stow-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def postgres(open_place: Path, tools: Tools) -> _Postgres:
    """PostgreSQL's programs."""
    return _Postgres(tools, open_place)


@pytest.mark.parametrize("mode", _MODES)
def test_postgres_keeps_a_database(mode: str, open_place: Path, mounting: Mounting, postgres: _Postgres) -> None:
    """initdb, a benchmark with checksums, a crash, recovery, and every checksum right after another mount."""
    volume = mounting.volume()
    place = mounting.mount(volume, f"{open_place}/mnt", options=MountOptions(kernel_cache=mode))
    home, sockets = place / "home", open_place / "sockets"
    for directory in (home, sockets):
        postgres.own(directory)
    data = home / "data"
    settings = f"-c listen_addresses= -c unix_socket_directories={sockets} -c shared_buffers=16MB"

    def start() -> None:
        postgres.run("pg_ctl", "-D", data, "-w", "-t", "60", "-l", home / "log", "-o", settings, "start", cwd=home)

    def stop(how: str) -> None:
        postgres.run("pg_ctl", "-D", data, "-w", "-m", how, "stop", cwd=home)

    to = ("-h", str(sockets), "postgres")
    postgres.run("initdb", "-D", data, "-U", "someone", "-A", "trust", "--data-checksums", cwd=home)
    start()
    try:
        postgres.run("pgbench", "-i", "-s", "1", "-q", *to, cwd=home)
        told = postgres.run("pgbench", "-c", "2", "-t", "100", *to, cwd=home)
        assert "200/200" in told
    finally:
        # As a crash: nothing is written out.
        stop("immediate")
    start()
    try:
        balance = "select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts"
        assert postgres.run("psql", "-h", str(sockets), "-Atc", balance, "postgres", cwd=home).strip() == "t"
        assert (
            postgres.run(
                "psql", "-h", str(sockets), "-Atc", "select count(*) from pgbench_history", "postgres", cwd=home
            )
            == "200\n"
        )
    finally:
        stop("fast")
    volume.blocking.unmount()
    mounting.mount(volume, f"{open_place}/mnt", options=MountOptions(kernel_cache=mode))
    assert "Bad checksums:  0" in postgres.run("pg_checksums", "--check", "-D", data, cwd=home)
