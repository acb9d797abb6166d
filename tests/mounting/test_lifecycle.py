"""How a mount begins and ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from datastore.context import deadline
from datastore.errors import ConfigError, DeadlineExceeded, PermissionDenied, StoreError
from stowstore import Volume
from stowstore.chunks.encryption import Passphrase, WrongKey
from stowstore.cli.mounting import finalize
from stowstore.cli.opening import Opener
from stowstore.fuse import device
from stowstore.fuse.device import MountFailed
from stowstore.mounts import control, leftovers, starting, table
from stowstore.mounts.options import Lifetime, MountOptions
from stowstore.mounts.unmounting import unmount
from stowstore.versions.errors import RootInUse, VolumeError
from tests.mounting.places import REPOSITORY, Place, eventually, running
from tests.servers.requiring import are_required

#: A cycle takes about a second, nearly all of it the start of an interpreter.
_CYCLES = 100 if are_required() else 8

_MOUNTS_AND_WAITS = """
from pathlib import Path
from stowstore import Volume
from stowstore.mounts.options import MountOptions
place = Path(sys.argv[1])
volume = Volume.new("data", bucket=f"file://{place}/root")
dirs = {"meta_dir": place / "data-meta", "cache_dir": place / "data-cache"}
volume.blocking.mount(place / "mnt", timeout=30, options=MountOptions(lifetime=sys.argv[2]), **dirs)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_mount_answers_when_it_returns(place: Place) -> None:
    """What other programs write at the path is in the volume."""
    volume = place.volume()
    path = place.mount(volume)
    subprocess.run(["sh", "-c", "mkdir d && echo hello >d/f"], cwd=path, check=True)
    assert volume.mount_path == path
    version = volume.blocking.finalize()
    assert "hello\n" == version.blocking.files.read_text("/d/f")
    assert volume.mount_path is None


def test_finalizing_by_command_minds_no_daemon_that_has_just_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may end at any moment while the command looks whether it is still there."""
    path = place.mount(place.volume())

    def late(where: Path, **how: Any) -> None:
        assert eventually(lambda: not place.daemons())
        unmount(where, **how)

    monkeypatch.setattr("stowstore.mounts.unmounting.unmount", late)
    monkeypatch.setattr("stowstore.volumes.mounting.unmount", late)
    opener = Opener.of(store_url=None, config_path=None, options=(), timeout=None)
    finalize.main([str(path)], standalone_mode=False, obj=opener)
    assert "#data@" in capsys.readouterr().out


async def _mount_and_finalize(place: Place) -> str:
    volume = place.volume()
    path = await volume.mount(place.directory / "mnt", timeout=30.0, **place.dirs())
    (path / "f").write_text("by coroutine")
    version = await volume.finalize(message="done")
    return version.blocking.files.read_text("/f")


def test_coroutines_do_the_same(place: Place) -> None:
    """`mount` and `finalize` are awaited, as the documents have it."""
    import asyncio

    assert "by coroutine" == asyncio.run(_mount_and_finalize(place))


def test_without_a_path_it_lies_below_the_home(place: Place) -> None:
    """The default path is the user's own."""
    volume = place.volume()
    path = volume.blocking.mount(timeout=30.0, **place.dirs())
    assert path.is_relative_to(Path.home())
    volume.blocking.unmount()


def test_a_volume_that_is_not_open_in_time_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gives up in time to say what it was waiting for, and no directory is left of the mount."""
    monkeypatch.setattr(starting, "_TELLING", 1.0)
    with pytest.raises(DeadlineExceeded, match=r"not mounted within 30 s: .*format\.json: the deadline of 0 s"):
        place.mount(place.volume(), "new/mnt")
    assert not (place.directory / "new").exists()


def test_a_deadline_around_a_mount_holds(place: Place) -> None:
    """What is left of the caller's time is all that a mount may take."""
    with deadline(0.0), pytest.raises(DeadlineExceeded):
        place.mount(place.volume())
    assert not place.mounts()


def test_unmounting_keeps_what_is_not_committed(place: Place) -> None:
    """The next mount on the same directories goes on where this one ended."""
    volume = place.volume()
    (place.mount(volume) / "f").write_text("uncommitted")
    volume.blocking.unmount()
    assert [] == place.mounts()
    assert "uncommitted" == (place.mount(volume) / "f").read_text()


@pytest.mark.timeout(400)
def test_cycles_leave_nothing(place: Place) -> None:
    """Neither processes, mounts, sockets and records, nor descriptors in whoever mounts."""
    volume = place.volume()
    # Servers of other tests may be children of this process as well.
    others = set(place.children())
    place.mount(volume)
    volume.blocking.unmount()
    assert eventually(lambda: set(place.children()) <= others)
    # The first has brought up what the process keeps for good.
    before = len(os.listdir("/proc/self/fd"))
    for number in range(_CYCLES):
        (place.mount(volume) / f"f{number}").write_text(str(number))
        volume.blocking.unmount()
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())
    left = sorted(name.suffix for name in table.runtime_directory().iterdir())
    assert [".log"] == left
    assert eventually(lambda: set(place.children("Z")) <= others)
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_one_that_cannot_begin_says_why(place: Place) -> None:
    """The daemon's error arrives as it is, and nothing is left."""
    (place.directory / "root").mkdir()
    (place.directory / "root" / "something").write_text("else")
    with pytest.raises(RootInUse, match="root"):
        place.mount(place.volume())
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())
    assert [] == table.known()


def test_one_that_is_not_ready_in_time_says_so(place: Place) -> None:
    """A store that never answers: the error names the time and the log, and the daemon is gone."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{deaf.getsockname()[1]}"
        Volume.configure(url, options={"access_key": "someone", "secret_key": "hushhush"})
        volume = Volume.new("data", bucket=url, region="us-east-1")
        with pytest.raises(DeadlineExceeded, match=r"within 3 s") as caught:
            volume.blocking.mount(place.directory / "mnt", timeout=3.0, **place.dirs())
    assert "log" in str(caught.value.hint)
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())


def test_errors_of_mounting_arrive_as_what_they_are() -> None:
    """Whatever side raised them."""
    failure = control.as_failure(MountFailed("it is no directory", hint="take another"))
    with pytest.raises(MountFailed, match="no directory"):
        raise control.raised(failure)
    with pytest.raises(PermissionDenied, match=r"^this is not the key"):
        raise control.raised(control.as_failure(WrongKey("this is not the key")))
    refused = PermissionDenied("not with this key").about("read", "s3://bucket/key")
    with pytest.raises(PermissionDenied, match=r"^read s3://bucket/key: not with this key$"):
        raise control.raised(control.as_failure(refused))
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere")
    with pytest.raises(FileNotFoundError, match="directory: '/nowhere'"):
        raise control.raised(control.as_failure(missing))


def test_a_path_that_is_mounted_is_refused(place: Place) -> None:
    """Two volumes do not lie over each other."""
    place.mount(place.volume())
    with pytest.raises(StoreError, match="mounted"):
        place.mount(place.volume("other"))
    assert 1 == len(place.mounts())


def test_one_mount_lies_in_another(place: Place) -> None:
    """Each is unmounted for itself."""
    path = place.mount(place.volume())
    (path / "below").mkdir()
    nested = place.mount(place.volume("other"), at="mnt/below")
    (nested / "f").write_text("nested")
    unmount(nested)
    assert [] == os.listdir(path / "below")


def test_a_path_that_is_no_directory_is_refused(place: Place) -> None:
    """What lies there is not touched."""
    (place.directory / "mnt").write_text("a file")
    with pytest.raises(MountFailed, match="no directory"):
        place.mount(place.volume())
    with pytest.raises(MountFailed, match="cannot be made"):
        place.volume().blocking.mount("/proc/mnt", **place.dirs())
    assert "a file" == (place.directory / "mnt").read_text()


def test_a_path_that_holds_what_the_daemon_needs_is_refused(place: Place) -> None:
    """A mount over its own root, journal or control socket would wait for itself."""
    volume = place.volume()
    for at, what in (("root", "root"), ("data-meta", "journal"), ("data-cache", "cache"), (".", "")):
        with pytest.raises(MountFailed, match=f"holds the {what}"):
            place.mount(volume, at=at)
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())


def test_a_path_through_a_symbolic_link_is_the_place_it_leads_to(place: Place) -> None:
    """Under both names it is found, refused a second time, and unmounted."""
    (place.directory / "real").mkdir()
    (place.directory / "link").symlink_to("real")
    place.mount(place.volume(), at="link")
    with pytest.raises(StoreError, match="mounted"):
        place.mount(place.volume("other"), at="real")
    assert table.find(place.directory / "link") == table.find(place.directory / "real") is not None
    unmount(place.directory / "link")
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_uploads": 0}, "max_uploads"),
        ({"upload_delay": "a while"}, "duration"),
        ({"upload_delay": float("nan")}, "upload_delay"),
        ({"attr_cache": float("inf")}, "attr_cache"),
        ({"dir_entry_cache": float("nan")}, "dir_entry_cache"),
        ({"writeback": "no"}, "writeback"),
        ({"read_only": "no"}, "read_only"),
        ({"cache_dir": ""}, "empty"),
    ],
)
def test_arguments_that_cannot_be_are_refused_at_once(place: Place, arguments: dict[str, Any], message: str) -> None:
    """No daemon is started to find it out; the error names the argument."""
    with pytest.raises(ConfigError, match=message):
        place.mount(place.volume(), **arguments)
    assert not (place.directory / "run").exists()


def test_one_process_mounts_a_version_at_several_paths(place: Place) -> None:
    """Readers of the same version stand side by side, beside the writer; each is unmounted alone, or all together."""
    volume = place.volume()
    (place.mount(volume) / "f").write_text("one")
    version = volume.blocking.commit("one")
    paths = [version.blocking.mount(place.directory / f"ro{number}", timeout=30.0) for number in range(3)]
    paths.append(volume.blocking.mount(place.directory / "newest", timeout=30.0, read_only=True))
    assert ["one"] * 4 == [(path / "f").read_text() for path in paths]
    assert place.directory / "mnt" == volume.blocking.mount_path
    version.blocking.unmount(paths[1])
    with pytest.raises(VolumeError, match="not mounted"):
        version.blocking.unmount(paths[1])
    assert "one" == (paths[2] / "f").read_text()
    version.blocking.unmount()
    volume.blocking.unmount()
    assert version.blocking.mount_path is None
    assert [] == place.mounts()


def test_the_command_leaves_a_mount_to_programs_that_use_it(place: Place) -> None:
    """It says so, and they go on; ``--lazy`` takes it from them, and what they have written is kept."""
    volume = place.volume()
    path = place.mount(volume)
    command = [sys.executable, "-m", "stowstore", "umount", str(path)]
    with (path / "f").open("wb", buffering=0) as used:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
        assert (1, True) == (done.returncode, "is busy" in done.stderr)
        used.write(b"kept")
        subprocess.run([*command, "--lazy"], cwd=REPOSITORY, timeout=60, check=True)
        with pytest.raises(OSError, match="not connected"):
            used.write(b"lost")
    assert [] == place.mounts()
    assert b"kept" == (place.mount(volume) / "f").read_bytes()


def test_a_second_writer_is_refused_and_told_who_writes(place: Place) -> None:
    """The error names the process that holds the volume."""
    path = place.mount(place.volume())
    again = Volume.from_json(place.volume().to_json())
    with running(
        "from stowstore import Volume\n"
        "from pathlib import Path\n"
        "volume = Volume.from_json(sys.argv[1])\n"
        "from stowstore.versions.errors import LeaseHeld\n"
        "try: volume.blocking.mount(sys.argv[2], timeout=30)\n"
        "except LeaseHeld as error: print('held', error, flush=True)\n",
        again.to_json(),
        place.directory / "second",
    ) as other:
        said = other.communicate(timeout=60)[0]
    assert said.startswith("held")
    assert f"process {place.record(path).pid}," in said


def test_readers_lie_side_by_side(place: Place) -> None:
    """Versions and a volume mounted with ``read_only`` read beside the writer, and cannot be written."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("one")
    first = volume.blocking.commit("one")
    (path / "f").write_text("two")
    second = volume.blocking.commit("two")
    for number, version in enumerate((first, second)):
        version.blocking.mount(place.directory / f"ro{number}", timeout=30.0)
    with running(
        "from stowstore import Volume\n"
        "volume = Volume.blocking.at(sys.argv[1])\n"
        "print(volume.blocking.mount(sys.argv[2], timeout=30, read_only=True), flush=True)\n"
        "sys.stdin.read()\n",
        f"{place.root}#data",
        place.directory / "ro2",
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert ["one", "two", "two"] == [(place.directory / f"ro{n}" / "f").read_text() for n in range(3)]
        for number in range(3):
            with pytest.raises(OSError, match="Read-only"):
                (place.directory / f"ro{number}" / "g").write_text("x")
        assert 4 == len(place.mounts())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(place: Place, number: signal.Signals) -> None:
    """And keeps what is not committed."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("kept")
    os.kill(place.record(path).pid, number)
    assert eventually(lambda: not place.mounts() and not place.daemons())
    assert "kept" == (place.mount(volume) / "f").read_text()


def test_it_ends_with_its_parent(place: Place) -> None:
    """A parent that is killed takes the mount along; what was written is in the journal."""
    with running(_MOUNTS_AND_WAITS, place.directory, Lifetime.PARENT) as parent:
        assert parent.stdout is not None
        assert "ready\n" == parent.stdout.readline()
        (place.directory / "mnt" / "f").write_text("orphaned")
        parent.kill()
        assert eventually(lambda: not place.mounts() and not place.daemons())
    assert "orphaned" == (place.mount(place.volume()) / "f").read_text()


def test_it_outlives_its_parent_when_asked(place: Place) -> None:
    """Then any process commits and unmounts by its path."""
    with running(_MOUNTS_AND_WAITS, place.directory, Lifetime.OWN) as parent:
        assert parent.stdout is not None
        assert "ready\n" == parent.stdout.readline()
        parent.kill()
        parent.wait()
    path = place.directory / "mnt"
    (path / "f").write_text("later")
    version = place.volume().blocking.commit("from elsewhere", mount_path=path)
    assert "later" == version.blocking.files.read_text("/f")
    unmount(path)
    assert [] == place.mounts()


def test_only_its_user_reaches_the_control_socket(place: Place) -> None:
    """The socket is 0600 in a directory that is 0700."""
    path = place.mount(place.volume())
    where = Path(place.record(path).socket)
    assert 0o600 == stat.S_IMODE(where.stat().st_mode)
    assert 0o700 == stat.S_IMODE(where.parent.stat().st_mode)
    assert 0o600 == stat.S_IMODE(Path(place.record(path).log).stat().st_mode)


def test_a_runtime_directory_that_others_reach_is_refused(place: Place) -> None:
    """Whoever could put a socket there could answer for a daemon."""
    (place.directory / "run").mkdir()
    (place.directory / "run").chmod(0o777)
    with pytest.raises(StoreError, match="this user alone"):
        place.mount(place.volume())
    (place.directory / "run").chmod(0o700)


def test_secrets_are_nowhere_to_be_seen(place: Place) -> None:
    """Credentials and keys reach the daemon, and neither its arguments, its environment, its log nor the table."""
    secret, password = "s3cr3t-of-the-store", "correct horse battery staple"
    Volume.configure(place.root, key=Passphrase(password))
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("sealed")
    version = volume.blocking.commit()
    record = place.record(path)
    process = Path(f"/proc/{record.pid}")
    seen = [process / "cmdline", process / "environ", Path(record.log), *table.runtime_directory().glob("*.json")]
    for text in (secret, password):
        assert [] == [str(name) for name in seen if text.encode() in name.read_bytes()]
    assert "sealed" == version.blocking.files.read_text("/f")


def test_a_failed_mount_does_not_log_credentials(place: Place) -> None:
    """An error of the store's goes to the log without them."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{port}"
    Volume.configure(url, options={"access_key": "someone", "secret_key": "hushhush"})
    volume = Volume.new("data", bucket=url, region="us-east-1")
    with pytest.raises(StoreError) as caught:
        volume.blocking.mount(place.directory / "mnt", timeout=20.0, **place.dirs())
    texts = [str(caught.value), *(log.read_text() for log in table.runtime_directory().glob("*.log"))]
    assert not any("hushhush" in text for text in texts)


def test_metrics_are_served_on_the_loopback_address(place: Place) -> None:
    """On a free port, which the table tells."""
    path = place.mount(place.volume())
    (path / "f").write_bytes(bytes(100_000))
    port = place.record(path).metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "stow_mount_written_bytes_total 100000.0" in text
    assert 'stow_mount_requests_total{operation="create"} 1.0' in text


def test_metrics_can_be_left_out(place: Place) -> None:
    """Then no port is open."""
    path = place.mount(place.volume(), options=MountOptions(metrics_port=None))
    assert place.record(path).metrics_port is None


def test_a_log_file_goes_where_it_was_said(place: Place) -> None:
    """And tells of the beginning."""
    log = place.directory / "here.log"
    path = place.mount(place.volume(), options=MountOptions(log_file=str(log)))
    assert str(log) == place.record(path).log
    assert eventually(lambda: "mount.ready" in log.read_text())


def test_an_open_file_does_not_keep_a_forced_unmount_waiting(place: Place) -> None:
    """Whoever has it open gets an error instead."""
    volume = place.volume()
    path = place.mount(volume)
    with running(
        "open('f', 'w').write('x'); keep = open('f'); print('open', flush=True); sys.stdin.read()", cwd=path
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        volume.blocking.unmount(force=True)
        assert [] == place.mounts()
        assert eventually(lambda: not place.daemons())


def test_unmounting_what_is_not_mounted_says_so(place: Place) -> None:
    """By path and by volume."""
    with pytest.raises(control.NotServed, match="no volume is mounted"):
        unmount(place.directory)
    with pytest.raises(VolumeError, match="not mounted"):
        place.volume().blocking.unmount()


def test_what_another_user_has_mounted_is_refused_at_once(place: Place) -> None:
    """The error says whose it is; nothing is tried for half a minute first."""
    path = place.mount(place.volume())
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionDenied, match="mounted by the user 0"):
            device.unmount(path, patience=3600.0)
    finally:
        os.seteuid(0)
    assert 1 == len(place.mounts())


def test_a_volume_in_memory_is_not_mounted(place: Place) -> None:
    """No daemon reaches it, and the error says what to do."""
    with pytest.raises(StoreError, match="memory"):
        Volume.new("data", bucket="mem://mounting/root").blocking.mount(place.directory / "mnt")


def test_logs_of_ended_mounts_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones go, and the oldest of many; those of mounts that are listed stay, however old, and dead ones are."""
    directory = table.runtime_directory()

    def put(name: str, age: float) -> None:
        (directory / name).write_text("")
        os.utime(directory / name, (time.time() - age, time.time() - age))

    month = 30 * 86_400.0
    ended, crashed = "e" * 16, "c" * 16
    kept = {f"{crashed}.json", f"{crashed}.log", f"{crashed}.sock", "somebody-elses.log"}
    for name in (*kept, f"{ended}.log", f"{ended}.sock", f"{ended}.1234"):
        put(name, month)
    monkeypatch.setattr(leftovers, "_KEPT", 3)
    for number in range(5):
        put(f"{number:016}.log", 60.0 * number)
    put(f"{5:016}.sock", 60.0)
    leftovers.sweep()
    newest = {*(f"{number:016}.log" for number in range(3)), f"{5:016}.sock"}
    assert {name.name for name in directory.iterdir()} == kept | newest


def test_a_large_log_is_put_aside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next mount at the same path begins another one."""
    log = table.names_of(place.directory / "mnt")[0].with_suffix(".log")
    log.write_text("much was said\n")
    monkeypatch.setattr(leftovers, "_LARGE", 1)
    place.mount(place.volume())
    assert "much was said" not in log.read_text()
    assert log.with_suffix(".old.log").read_text() == "much was said\n"


def test_a_process_with_many_files_open_mounts_as_well(place: Place) -> None:
    """Descriptors beyond 1023 are waited for as all others are."""
    with contextlib.ExitStack() as many:
        for _ in range(1100):
            many.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        path = place.mount(place.volume())
        (path / "f").write_bytes(b"there")
        assert b"there" == (path / "f").read_bytes()
        unmount(path)
