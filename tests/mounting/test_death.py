"""What is left of a mount whose daemon is killed or hangs, or whose store fails; and how to go on."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from datastore.context import deadline
from datastore.errors import DeadlineExceeded, StoreError
from stowstore import RWVolume, Volume
from stowstore.cli.app import main
from stowstore.daemon.listening import ControlServer
from stowstore.fuse import device
from stowstore.mounts import control, table
from stowstore.mounts.unmounting import unmount
from tests.mounting.places import REPOSITORY, Place, eventually, running

#: Writes files of random bytes, some of them again, and says each name once the file has been synced.
_WRITES = """
import os, random
chance = random.Random(int(sys.argv[1]))
number = 0
while True:
    name = f"f{chance.randrange(40)}"
    data = chance.randbytes(chance.randrange(1, 60_000))
    descriptor = os.open(name + ".new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, data)
    os.close(descriptor)
    os.rename(name + ".new", name)
    descriptor = os.open(name, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    print(number, flush=True)
    number += 1
"""


def _replayed(seed: int, count: int) -> dict[str, list[bytes]]:
    """Every content that the first so many steps of `_WRITES` gave each file, in order."""
    chance = Random(seed)
    found: dict[str, list[bytes]] = {}
    for _ in range(count):
        name = f"f{chance.randrange(40)}"
        found.setdefault(name, []).append(chance.randbytes(chance.randrange(1, 60_000)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_was_synced_survives_a_killed_daemon(place: Place, seed: int) -> None:
    """Under load, at some moment: the mount answers ENOTCONN, and the next one has all that was acknowledged."""
    volume = place.volume()
    path = place.mount(volume)
    with running(_WRITES, seed, cwd=path) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        for _ in range(Random(seed).randrange(20, 150)):
            assert f"{acknowledged}\n" == writer.stdout.readline()
            acknowledged += 1
            if acknowledged == 10:
                volume.blocking.commit("on the way")
        os.kill(place.record(path).pid, signal.SIGKILL)
        # What it still acknowledged before it noticed counts as well.
        acknowledged += len(writer.stdout.read().splitlines())
        writer.wait()
    with pytest.raises(OSError, match="not connected") as caught:
        os.listdir(path)
    assert errno.ENOTCONN == caught.value.errno
    unmount(path)
    assert [] == place.mounts()
    again = place.mount(volume)
    for name, contents in _replayed(seed, acknowledged + 1).items():
        # The one step under way may have been done or not; all before it have.
        promised = _replayed(seed, acknowledged).get(name)
        allowed = [contents[-1]] if promised is None else [promised[-1], contents[-1]]
        if promised is None and not (again / name).exists():
            continue
        assert (again / name).read_bytes() in allowed
    expected = {found.name: found.read_bytes() for found in again.iterdir()}
    files = volume.blocking.finalize().blocking.files
    assert expected == {name: files.read_bytes(name) for name in files.listdir()}


def test_the_next_mount_clears_what_a_dead_one_left(place: Place) -> None:
    """Without an unmount in between, at the same path, and by a process that knows nothing of it."""
    path = place.mount(place.volume())
    (path / "f").write_text("journalled")
    with open(path / "f", "rb") as file:
        os.fsync(file.fileno())
    os.kill(place.record(path).pid, signal.SIGKILL)
    assert eventually(lambda: not place.record(path).is_alive)
    with running(
        "from pathlib import Path\n"
        "from stowstore import Volume\n"
        "volume = Volume.from_json(sys.argv[1])\n"
        "meta, cache, path = map(Path, sys.argv[2:])\n"
        "print(volume.blocking.mount(path, meta, cache, timeout=30), flush=True)\n"
        "print((path / 'f').read_text(), flush=True)\n",
        place.volume().to_json(),
        *place.dirs().values(),
        path,
    ) as other:
        said, complaint = other.communicate(timeout=60)
    assert f"{path}\njournalled\n" == said, complaint


def test_a_dead_mount_is_listed_as_dead_and_says_what_to_do(place: Place) -> None:
    """The table tells it from one that lives, commands name the log and the way out."""
    path = place.mount(place.volume())
    os.kill(place.record(path).pid, signal.SIGKILL)
    assert eventually(lambda: not place.record(path).is_alive)
    (record,) = table.known()
    assert (False, True) == (record.is_alive, record.is_mounted)
    with pytest.raises(control.NotServed, match="is gone") as caught:
        control.ask(path, "commit")
    assert "umount" in str(caught.value.hint)
    unmount(path)
    assert [] == table.known()


def test_plain_umount_of_a_dead_mount_is_enough(place: Place) -> None:
    """The system's own command; the table notices."""
    path = place.mount(place.volume())
    os.kill(place.record(path).pid, signal.SIGKILL)
    assert eventually(lambda: not place.record(path).is_alive)
    subprocess.run(["umount", path], check=True, timeout=20)
    assert [] == table.known()


def test_a_daemon_that_hangs_is_cut_off(place: Place) -> None:
    """Whoever hung in the mount gets an error, and nothing of it is left."""
    path = place.mount(place.volume())
    (path / "f").write_text("x")
    pid = place.record(path).pid
    os.kill(pid, signal.SIGSTOP)
    with subprocess.Popen(["ls", "-l", path / "not looked up yet"], stderr=subprocess.DEVNULL) as caller:
        unmount(path, timeout=1.0)
        assert 0 != caller.wait(20)
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())


def test_the_command_that_cuts_off_a_hung_mount_does_not_hang_in_it(place: Place) -> None:
    """It does not look at the path itself, where the kernel would have it wait for ever."""
    # Nothing is remembered, so whoever looks at the path has to be answered.
    path = place.mount(place.volume(), attr_cache=0.0, entry_cache=0.0)
    os.kill(place.record(path).pid, signal.SIGSTOP)
    command = [sys.executable, "-m", "stowstore", "umount", "--wait", "0.5", str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY) as umount:
        ended = eventually(lambda: umount.poll() is not None)
        if not ended:
            # A process that hangs in a mount cannot be killed either.
            unmount(path, force=True)
        assert (True, 0) == (ended, umount.wait(20))
    assert [] == place.mounts()
    assert eventually(lambda: not place.daemons())


@pytest.fixture
def stopped(place: Place) -> Iterator[Path]:
    """A mount whose daemon is stopped, and goes on in the end."""
    path = place.mount(place.volume())
    (path / "f").write_text("x")
    pid = place.record(path).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield path
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


#: Commands, and how a stopped daemon makes them fail when it has half a second to answer a ping.
_UNANSWERED = [
    (["stats"], "does not answer: it is stopped"),
    (["--timeout", "0.1s", "stats"], "did not answer in time"),
    (["commit", "-m", "one"], "does not answer: it is stopped"),
    (["--timeout", "0.1s", "commit"], "did not answer in time"),
    (["warmup"], "does not answer: it is stopped"),
]


def test_commands_do_not_wait_for_a_stopped_daemon(
    stopped: Path, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They fail, and name the process and both ways out; once it goes on it serves as ever."""
    pid = place.record(stopped).pid
    with monkeypatch.context() as hasty:
        hasty.setattr(control, "_QUIET", 0.1)
        hasty.setattr(control, "_PATIENCE", 0.5)
        for command, pattern in _UNANSWERED:
            with pytest.raises(SystemExit) as left:
                main([*command, str(stopped)])
            error = capsys.readouterr().err
            assert 1 == left.value.code
            for said in (pattern, f"process {pid}", f"kill -CONT {pid}", f"umount --force {stopped}"):
                assert said in error
    os.kill(pid, signal.SIGCONT)
    assert "locator" in control.ask(stopped, "commit")


def test_a_stopped_daemon_that_many_have_asked_is_not_waited_for(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no further connection is taken, connecting would wait for ever."""
    monkeypatch.setattr(control, "_PATIENCE", 0.1)
    with ExitStack() as opened:
        with suppress(BlockingIOError):
            while True:
                connection = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.setblocking(False)
                connection.connect(table.names_of(stopped)[1].__fspath__())
        with pytest.raises(control.NotAnswering, match="does not answer"):
            control.ask(stopped, "ping")
        with pytest.raises(DeadlineExceeded, match="in time"), deadline(0.1):
            control.ask(stopped, "ping")


def test_a_daemon_may_take_as_long_as_it_answers_pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that is beyond the time that one ping may take."""
    monkeypatch.setenv("STOWSTORE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(control, "_QUIET", 0.01)
    pings = [0]
    enough = threading.Event()

    def commands(do: str, arguments: dict[str, object]) -> dict[str, object]:
        if do == "ping":
            pings[0] += 1
            if pings[0] == 20:
                enough.set()
            return {}
        enough.wait()
        return {"pings": pings[0]}

    path = tmp_path / "mnt"
    own = table.names_of(path)[1]
    started = table.started_at(os.getpid())
    assert started is not None
    table.remember(
        table.MountRecord(
            path=str(path), volume="v", pid=os.getpid(), started=started, socket=str(own), log="", read_only=False
        )
    )
    with ControlServer(own, commands):
        assert control.ask(path, "commit")["pings"] >= 20


def test_cutting_a_mount_off_frees_its_callers(place: Place) -> None:
    """The last resort needs no answer of the daemon's and nothing of /sys, which containers rarely show."""
    path = place.mount(place.volume())
    pid = place.record(path).pid
    os.kill(pid, signal.SIGSTOP)
    with subprocess.Popen(["stat", path / "absent"], stderr=subprocess.DEVNULL) as caller:
        device.cut_off(path)
        assert 0 != caller.wait(20)
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: not place.daemons())
    if place.mounts():
        # Listed by nobody any more, and the kernel still knows the attributes of its root.
        unmount(path)
    assert [] == place.mounts()
    assert [] == table.known()


@pytest.fixture
def connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kernel's list of connections, which is not mounted everywhere."""
    directory = tmp_path / "connections"
    directory.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", directory], check=True, timeout=20)
    monkeypatch.setattr(device, "_CONNECTIONS", directory)
    yield directory
    subprocess.run(["umount", directory], check=True, timeout=20)


def test_who_cuts_off_a_mount_that_is_gone_hits_no_other(place: Place, connections: Path) -> None:
    """The kernel gives the number of its connection to whoever mounts next."""
    gone = place.mount(place.volume("gone"))
    connection = device.Connection(device.connection_of(gone))
    unmount(gone)
    paths = [place.mount(place.volume(f"next-{count}"), at=f"mnt-{count}") for count in range(3)]
    connection.abort()
    connection.close()
    for path in paths:
        (path / "f").write_text("x")
        assert ["f"] == os.listdir(path)


def test_a_mount_can_be_cut_off_by_its_connection(place: Place, connections: Path) -> None:
    """Its daemon ends; callers get errors."""
    path = place.mount(place.volume())
    connection = device.Connection(device.connection_of(path))
    connection.abort()
    connection.close()
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.statvfs(path)
    assert eventually(lambda: not place.daemons())
    unmount(path)


def test_a_detached_mount_is_forgotten(place: Place) -> None:
    """Somebody unmounts it by the system's command: the daemon ends, and the next mount goes on."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("kept")
    subprocess.run(["umount", path], check=True, timeout=20)
    assert eventually(lambda: not place.daemons())
    assert [] == table.known()
    assert "kept" == (place.mount(volume) / "f").read_text()


def test_a_commit_that_the_store_refuses_loses_nothing(place: Place) -> None:
    """While the store is away, what is not in it is written and read on; once it is back, a commit has everything."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "before").write_text("before")
    volume.blocking.commit()
    store, elsewhere = place.directory / "root", place.directory / "elsewhere"
    (path / "during").write_bytes(b"d" * 100_000)
    with _away(store, elsewhere):
        with pytest.raises((StoreError, OSError)):
            volume.blocking.commit()
        (path / "meanwhile").write_text("meanwhile")
        assert b"d" * 100_000 == (path / "during").read_bytes()
    files = volume.blocking.commit().blocking.files
    assert ["before", "during", "meanwhile"] == files.listdir("/")
    assert b"d" * 100_000 == files.read_bytes("/during")


def test_a_finalize_that_the_store_refuses_keeps_the_journal(place: Place) -> None:
    """The mount is gone by then; the next one has everything, and publishes it."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("first")
    volume.blocking.commit()
    (path / "f").write_text("second")
    with _away(place.directory / "root", place.directory / "elsewhere"), pytest.raises((StoreError, OSError)):
        volume.blocking.finalize()
    assert eventually(lambda: not place.mounts() and not place.daemons())
    assert "second" == (place.mount(volume) / "f").read_text()
    assert "second" == volume.blocking.finalize().blocking.files.read_text("/f")


def test_a_read_that_the_store_refuses_is_an_error_and_no_zeros(place: Place) -> None:
    """EIO while it is away, the bytes once it is back; nothing hangs."""
    volume = place.volume()
    path = place.mount(volume)
    data = os.urandom(300_000)
    (path / "f").write_bytes(data)
    version = volume.blocking.finalize()
    ro = version.blocking.mount(place.directory / "ro", timeout=30.0)
    assert ["f"] == os.listdir(ro)
    with _away(place.directory / "root", place.directory / "elsewhere"):
        with pytest.raises(OSError, match="error") as caught:
            (ro / "f").read_bytes()
        assert errno.EIO == caught.value.errno
    assert data == (ro / "f").read_bytes()


def test_one_writer_follows_another_that_was_killed(place: Place) -> None:
    """Its lease is over with its process: nobody waits for it to run out."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("one")
    volume.blocking.commit()
    os.kill(place.record(path).pid, signal.SIGKILL)
    assert eventually(lambda: not place.record(path).is_alive)
    again = Volume.blocking.at(f"{place.root}#data")
    assert isinstance(again, RWVolume)
    other = again.blocking.mount(
        place.directory / "elsewhere", place.directory / "new-meta", place.directory / "new-cache", timeout=30.0
    )
    assert "one" == (other / "f").read_text()


@contextmanager
def _away(store: Path, elsewhere: Path) -> Iterator[None]:
    """The store is gone while this lasts: its directory has another name, and a file lies in its place."""
    store.rename(elsewhere)
    store.write_text("not a directory")
    try:
        yield
    finally:
        store.unlink()
        elsewhere.rename(store)
