"""Mounting, publishing and unmounting: what a person does, and what becomes of daemons."""

from __future__ import annotations

import json
import mmap
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from datastore.errors import DeadlineExceeded, StoreError, Unsupported
from stowstore import ROVolume, RWVolume, Volume
from stowstore.fuse.device import MountFailed, find_mount
from stowstore.mounts import control, table, unmounting
from stowstore.mounts.options import Lifetime, MountOptions
from stowstore.versions.errors import LeaseHeld, VolumeError
from tests.mounts.conftest import Mounting


def test_any_program_writes_into_a_volume(mounting: Mounting) -> None:
    """A mounted volume is a directory; a commit publishes what is in it, and it goes on."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    assert volume.mount_path == path
    program = "mkdir -p a/b && echo one > a/b/file && ln -s b/file a/link"
    subprocess.run(["sh", "-c", program], cwd=path, check=True)

    first = volume.blocking.commit("first")
    (path / "a" / "b" / "file").write_text("two")
    second = volume.blocking.finalize("second")

    assert find_mount(path) is None
    assert first.message == "first"
    assert first.files.read_text("/a/link") == "one\n"
    assert second.files.read_text("/a/link") == "two"
    assert [change.path for change in second.blocking.diff(first)] == ["a/b/file"]
    assert volume.locator == second.locator


def test_a_commit_holds_what_only_the_kernel_had(mounting: Mounting) -> None:
    """Pages of a shared mapping that nobody has synced are part of the version, in both modes of the kernel's cache."""
    for mode in ("writethrough", "writeback"):
        volume = mounting.volume(mode)
        path = mounting.mount(volume, mode, options=MountOptions(kernel_cache=mode))
        with open(path / "mapped", "w+b") as file:
            file.truncate(1 << 20)
            with mmap.mmap(file.fileno(), 1 << 20) as mapped:
                for round_ in range(5):
                    mapped[:] = bytes([round_ + 1]) * (1 << 20)
                    file.write(b"")
                    version = volume.blocking.commit(f"round {round_}")
                    assert version.files.read_bytes("/mapped") == bytes([round_ + 1]) * (1 << 20)
        volume.blocking.unmount()


def test_a_fork_of_a_mount_has_what_is_not_committed(mounting: Mounting) -> None:
    """The fork begins with the present state, and neither sees the other's writes."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    (path / "file").write_text("before")
    fork = volume.blocking.fork("fork")
    (path / "file").write_text("after")
    other = mounting.mount(fork, "fork")
    assert (other / "file").read_text() == "before"
    (other / "file").write_text("of the fork")
    assert (path / "file").read_text() == "after"


def test_versions_are_mounted_side_by_side(mounting: Mounting) -> None:
    """Any number of read-only mounts stand beside a writer, each with its own version, and none can be written."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    versions: list[ROVolume] = []
    for number in range(3):
        (path / "number").write_text(str(number))
        versions.append(volume.blocking.commit(str(number)))
    for number, version in enumerate(versions):
        shown = mounting.mount(version, f"v{number}")
        assert (shown / "number").read_text() == str(number)
        with pytest.raises(OSError, match="Read-only"):
            (shown / "number").write_text("no")


def test_a_second_writer_is_refused_and_told_of_the_first(mounting: Mounting) -> None:
    """Whoever mounts a volume that is written gets an error that names the writer, and nothing is left of the try."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    volume.blocking.commit("exists")
    again = Volume.blocking.at(f"{mounting.root}#data")
    assert isinstance(again, RWVolume)
    record = table.find(path)
    assert record is not None
    with pytest.raises(LeaseHeld, match=f"process {record.pid}"):
        again.blocking.open(meta_dir=mounting.directory / "m", cache_dir=mounting.directory / "c")
    with pytest.raises(VolumeError, match="mounted at"):
        mounting.mount(again, "again")


def test_a_reader_moves_to_the_newest_version(mounting: Mounting) -> None:
    """After a refresh names, contents and sizes are those of the newest version; open files stay as they were."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    (path / "kept").write_text("one")
    (path / "gone").write_text("here")
    volume.blocking.commit("one")
    reader = Volume.blocking.at(f"{mounting.root}#data")
    shown = mounting.directory / "shown"
    subprocess.run(
        [sys.executable, "-m", "stowstore", "mount", "--read-only", f"{mounting.root}#data", str(shown)], check=True
    )
    try:
        assert sorted(os.listdir(shown)) == ["gone", "kept"]
        with open(shown / "kept") as opened:
            assert opened.read(1) == "o"
            (path / "kept").write_text("twenty-two")
            (path / "gone").unlink()
            (path / "new").write_text("new")
            volume.blocking.commit("two")
            assert sorted(os.listdir(shown)) == ["gone", "kept"]
            control.ask(shown, "refresh")
            assert sorted(os.listdir(shown)) == ["kept", "new"]
            assert (shown / "kept").read_text() == "twenty-two"
            assert (shown / "kept").stat().st_size == 10
            with pytest.raises(FileNotFoundError):
                (shown / "gone").stat()
    finally:
        unmounting.unmount(shown)
    assert reader.name == "data"


def test_without_writeback_closed_files_are_in_the_store(mounting: Mounting) -> None:
    """When a close answers, the bytes are in packs of the root, though no version names them yet."""
    volume = mounting.volume()
    path = mounting.mount(volume, writeback=False)
    packs = mounting.directory / "root" / "packs"
    data = os.urandom(1 << 20)
    (path / "file").write_bytes(data)
    stored = sum(found.stat().st_size for found in packs.rglob("*") if found.is_file())
    assert stored >= len(data)
    assert volume.blocking.commit().files.read_bytes("/file") == data


def test_unmounting_keeps_what_is_not_committed(mounting: Mounting) -> None:
    """The next mount of the volume has it, and so has a commit without any mount."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    (path / "file").write_text("kept")
    volume.blocking.unmount()
    assert not (path / "file").exists()
    again = mounting.mount(volume)
    assert (again / "file").read_text() == "kept"
    volume.blocking.unmount()
    with volume.blocking as files:
        assert files.read_text("/file") == "kept"


def test_a_killed_daemon_loses_nothing_that_was_synced(mounting: Mounting) -> None:
    """SIGKILL leaves ENOTCONN; the path is cleaned and mounted again, and what was fsynced is there."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    for number in range(20):
        with open(path / f"file-{number}", "wb") as file:
            file.write(b"%d" % number * 1000)
            file.flush()
            os.fsync(file.fileno())
    record = table.find(path)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    while record.is_alive:
        time.sleep(0.01)
    with pytest.raises(OSError, match=r"endpoint|connection"):
        os.listdir(path)
    assert [one.path for one in table.known()] == [str(path)]
    again = mounting.mount(volume)
    for number in range(20):
        assert (again / f"file-{number}").read_bytes() == b"%d" % number * 1000


def test_a_daemon_ends_with_its_parent(mounting: Mounting) -> None:
    """When the process that mounted is killed, the mount goes, and what was written is in the journal."""
    path = mounting.directory / "mnt"
    program = f"""
import os, signal
from stowstore import Volume
volume = Volume.new("data", {mounting.root!r})
path = volume.blocking.mount({str(path)!r})
(path / "file").write_text("written")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    end = time.monotonic() + 30
    while find_mount(path) is not None or table.find(path) is not None:
        assert time.monotonic() < end, "the daemon outlived its parent"
        time.sleep(0.02)
    again = mounting.mount(mounting.volume())
    assert (again / "file").read_text() == "written"


def test_the_control_socket_is_its_users_alone(mounting: Mounting) -> None:
    """Socket, record and log cannot be opened by others, and no secret is in the process list."""
    volume = mounting.volume()
    Volume.configure(mounting.root, key=b"k" * 32)
    path = mounting.mount(volume)
    record = table.find(path)
    assert record is not None
    assert stat.S_IMODE(Path(record.socket).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(record.socket).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(record.log).stat().st_mode) == 0o600
    shown = Path(f"/proc/{record.pid}/cmdline").read_bytes() + Path(f"/proc/{record.pid}/environ").read_bytes()
    assert (b"k" * 32).hex().encode() not in shown
    (path / "sealed").write_text("secret words")
    version = volume.blocking.commit()
    assert version.files.read_text("/sealed") == "secret words"
    assert all(b"secret words" not in pack.read_bytes() for pack in (mounting.directory / "root").rglob("packs/*/*"))


def test_metrics_of_a_mount_are_served(mounting: Mounting) -> None:
    """A mount's own endpoint counts its requests."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    (path / "file").write_text("x")
    record = table.find(path)
    assert record is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{record.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'stow_mount_requests_total{operation="create"} 1.0' in text
    assert "stow_mount_used_bytes 1.0" in text


def test_what_cannot_be_mounted_says_why(mounting: Mounting, tmp_path: Path) -> None:
    """A path in use, a file, memory of this process, and too little time: each error names what is wrong."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    with pytest.raises(VolumeError, match="mounted at"):
        mounting.mount(volume, "other")
    with pytest.raises(MountFailed, match="already"):
        mounting.mount(mounting.volume("second"), path.name)
    (tmp_path / "file").write_text("")
    with pytest.raises((StoreError, OSError)):
        mounting.mount(mounting.volume("third"), "file")
    with pytest.raises(Unsupported, match="memory of this process"):
        Volume.new("fourth", "mem://somewhere/else").blocking.mount(tmp_path / "fourth")
    with pytest.raises(DeadlineExceeded, match="not mounted within"):
        mounting.volume("fifth").blocking.mount(tmp_path / "fifth", timeout=0.01)
    assert find_mount(tmp_path / "fifth") is None
    with pytest.raises(VolumeError, match="not mounted"):
        mounting.volume("sixth").blocking.unmount()


def test_mounts_come_and_go_without_a_trace(mounting: Mounting) -> None:
    """Ten rounds leave no process, socket, record or mount."""
    volume = mounting.volume()
    for number in range(10):
        path = mounting.mount(volume)
        (path / "file").write_text(str(number))
        volume.blocking.unmount()
        assert find_mount(path) is None
    left = {name.suffix for name in (mounting.directory / "run").iterdir()}
    assert left <= {".log"}


def test_the_command_line_mounts(mounting: Mounting) -> None:
    """mount --create, commit, stats, warmup, mounts and umount, as a person types them."""
    path = mounting.directory / "mnt"
    mounting._paths.append(path)

    def stow(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "stowstore", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    stow("mount", "--create", f"{mounting.root}#made", str(path))
    (path / "file").write_text("text")
    assert stow("commit", str(path), "-m", "by hand").startswith(f"{mounting.root}#made@")
    assert json.loads(stow("stats", str(path), "--json"))["inodes"] == 2
    assert "read 1 files" in stow("warmup", str(path))
    (listed,) = json.loads(stow("mounts", "--json"))
    assert (listed["path"], listed["state"]) == (str(path), "writing")
    stow("umount", str(path))
    assert json.loads(stow("mounts", "--json")) == []
    missing = subprocess.run([sys.executable, "-m", "stowstore", "umount", str(path)], capture_output=True, check=False)
    assert missing.returncode == 1
    assert b"no volume is mounted" in missing.stderr


def test_a_mount_of_its_own_outlives_whoever_made_it(mounting: Mounting) -> None:
    """With a lifetime of its own the daemon serves on when its parent has gone."""
    path = mounting.directory / "mnt"
    mounting._paths.append(path)
    program = f"""
from stowstore import Volume
from stowstore.mounts.options import MountOptions
Volume.new("data", {mounting.root!r}).blocking.mount({str(path)!r}, options=MountOptions(lifetime="own"))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    (path / "file").write_text("served")
    assert (path / "file").read_text() == "served"
    assert Lifetime.OWN == "own"
