"""What a live mount publishes, and how it moves to what others publish."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from datastore.errors import StoreError
from stowstore import Volume
from stowstore.mounts import control, table
from stowstore.mounts.options import MountOptions
from stowstore.versions.errors import NoSuchVersion, RootInUse, VolumeError
from stowstore.volumes import reset_producer, set_producer
from tests.mounting.places import Place, eventually, running

#: Maps a file shared, writes into it, and keeps it mapped without telling the kernel to write anything.
_MAPS = """
import mmap, os
size = int(sys.argv[2])
file = open(sys.argv[1], "w+b")
file.truncate(size)
mapping = mmap.mmap(file.fileno(), size)
for number in range(int(sys.argv[3])):
    for at in range(0, size, int(sys.argv[4])):
        mapping[at : at + 8] = b"round%03d" % number
    print(number, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("cache", ["writethrough", "writeback"])
@pytest.mark.parametrize(("size", "step"), [(4096, 4096), (64 << 20, 4096), (32 << 20, 8192)])
def test_a_commit_has_the_dirty_pages_of_mappings(place: Place, cache: str, size: int, step: int) -> None:
    """What is written into a shared mapping is in the next version, without msync, however much it is.

    Every other page of a file is a request of its own each, many more than the kernel sends at a time.
    """
    volume = place.volume()
    path = place.mount(volume, options=MountOptions(kernel_cache=cache))
    with running(_MAPS, path / "f", size, 2, step) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        for number in range(2):
            assert f"{number}\n" == user.stdout.readline()
            data = volume.blocking.commit().blocking.files.read_bytes("/f")
            assert {b"round%03d" % number} == {data[at : at + 8] for at in range(0, size, step)}
            user.stdin.write("\n")
            user.stdin.flush()


def test_a_commit_has_what_the_kernel_gathers(place: Place) -> None:
    """With the kernel's write cache, what a write has returned from is in the next version."""
    volume = place.volume()
    path = place.mount(volume, options=MountOptions(kernel_cache="writeback"))
    with open(path / "f", "wb", buffering=0) as file:
        for number in range(5):
            file.write(bytes([number]) * 3_000_001)
            version = volume.blocking.commit()
            assert bytes([number]) * 3_000_001 == version.blocking.files.read_bytes("/f")[-3_000_001:]


def test_a_version_is_one_moment(place: Place) -> None:
    """Of a program that writes two files in turns, no version has the later without the earlier."""
    volume = place.volume()
    path = place.mount(volume)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for name in ("first", "second"):
                (path / f"{name}.new").write_text(str(number))
                (path / f"{name}.new").rename(path / name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert eventually((path / "second").exists)
        versions = [volume.blocking.commit(f"{number}") for number in range(10)]
    finally:
        stop.set()
        writer.join()
    for version in versions:
        files = version.blocking.files
        first, second = int(files.read_text("/first")), int(files.read_text("/second"))
        assert second in (first, first - 1)
        version.blocking.close()


def test_others_write_while_a_commit_goes_on(place: Place) -> None:
    """A commit is no pause: files are made and closed between its beginning and its end."""
    volume = place.volume()
    path = place.mount(volume, upload_delay="1h")
    for number in range(4):
        (path / f"large{number}").write_bytes(os.urandom(64 << 20))
    committed = threading.Event()

    def commit() -> None:
        volume.blocking.commit()
        committed.set()

    publisher = threading.Thread(target=commit)
    publisher.start()
    made = 0
    while not committed.is_set():
        (path / f"small{made}").write_bytes(b"x")
        made += 1
    publisher.join()
    # One that stood still would let the first through when it is over, and no more.
    assert made > 2


def test_versions_say_who_made_them(place: Place) -> None:
    """``produced_by`` is the client's, not the daemon's."""
    volume = place.volume()
    path = place.mount(volume)
    token = set_producer({"run": "r1"})
    try:
        (path / "f").write_text("1")
        first = volume.blocking.commit("one")
    finally:
        reset_producer(token)
    assert ({"run": "r1"}, "one") == (first.produced_by, first.message)
    token = set_producer({"run": "r2"})
    try:
        (path / "f").write_text("2")
        second = volume.blocking.finalize("two")
    finally:
        reset_producer(token)
    assert ({"run": "r2"}, {"run": "r1"}) == (second.produced_by, second.parent_produced_by)


def test_nothing_changed_is_the_same_version(place: Place) -> None:
    """A commit right after another makes none."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("1")
    assert volume.blocking.commit().locator == volume.blocking.commit().locator
    assert 1 == len(volume.blocking.log())


def test_a_fork_of_a_mount_has_what_is_not_committed(place: Place) -> None:
    """And the mount goes on, with no version of its own made by it."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("committed")
    volume.blocking.commit()
    with running(_MAPS, path / "mapped", 4096, 1, 4096) as user:
        assert user.stdout is not None
        user.stdout.readline()
        (path / "f").write_text("not committed")
        branch = volume.blocking.fork("branch")
        snapshot = volume.blocking.fork("snapshot", "ro")
    other = place.mount(branch, at="other")
    for found in (other / "f", other / "mapped"):
        assert found.read_bytes()[:8] in (b"not comm", b"round000")
    assert "not committed" == snapshot.blocking.files.read_text("/f")
    (other / "f").write_text("the branch's")
    assert "not committed" == (path / "f").read_text()
    assert 1 == len(volume.blocking.log())
    with pytest.raises(RootInUse):
        volume.blocking.fork("branch")


def test_finalizing_publishes_even_while_files_are_open(place: Place) -> None:
    """Publishing does not wait for whoever keeps a file open."""
    volume = place.volume()
    path = place.mount(volume)
    opens = "f = open('f', 'w'); f.write('seen'); f.flush(); print('open', flush=True); sys.stdin.read()"
    with running(opens, cwd=path) as user:
        assert user.stdout is not None
        user.stdout.readline()
        version = volume.blocking.finalize()
        assert "seen" == version.blocking.files.read_text("/f")
        assert user.poll() is None
    assert eventually(lambda: not place.mounts() and not place.daemons())


def test_a_slow_finalize_is_not_cut_short_by_an_open_file(place: Place) -> None:
    """The daemon gives up on whoever keeps a file open, never on a version that is still being published."""
    volume = place.volume()
    path = place.mount(volume, upload_delay="1h")
    for number in range(10):
        (path / f"f{number}").write_bytes(os.urandom(64 << 20))
    pid = place.record(path).pid
    over = threading.Event()

    def slow_down() -> None:
        """Lets the daemon have a twentieth of the time once it is detached, as on a busy machine with a slow store."""
        eventually(lambda: not place.mounts())
        # It ends at a moment of its own.
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.19)
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.01)

    brake = threading.Thread(target=slow_down)
    opens = "keep = open('f0', 'rb'); print('open', flush=True); sys.stdin.read()"
    with running(opens, cwd=path) as user:
        assert user.stdout is not None
        user.stdout.readline()
        brake.start()
        try:
            version = volume.blocking.finalize()
        finally:
            over.set()
            brake.join()
    assert [f"f{number}" for number in range(10)] == version.blocking.files.listdir()
    assert eventually(lambda: not place.daemons())
    assert [] == table.known()


def test_what_a_program_sees_is_what_finalize_publishes(place: Place) -> None:
    """Dirty pages of a mapping that is still there are in the last version, too."""
    volume = place.volume()
    path = place.mount(volume)
    with running(_MAPS, path / "f", 1 << 20, 1, 4096) as user:
        assert user.stdout is not None
        user.stdout.readline()
        data = volume.blocking.finalize().blocking.files.read_bytes("/f")
    assert {b"round000"} == {data[at : at + 8] for at in range(0, 1 << 20, 4096)}


def test_without_writeback_a_closed_file_is_in_the_store(place: Place) -> None:
    """Close and fsync return when the data are in packs; a commit then uploads none."""
    volume = place.volume()
    path = place.mount(volume, writeback=False)
    data = os.urandom(3 << 20)

    def stored() -> int:
        return sum(
            found.stat().st_size for found in Path(place.directory, "root", "packs").rglob("*") if found.is_file()
        )

    (path / "f").write_bytes(data)
    assert stored() >= len(data)
    with open(path / "g", "wb", buffering=0) as file:
        file.write(data[::-1])
        os.fsync(file.fileno())
        assert stored() >= 2 * len(data)
    before = stored()
    version = volume.blocking.commit()
    assert before == stored()
    assert data == version.blocking.files.read_bytes("/f")


def test_what_is_overwritten_before_its_delay_is_never_uploaded(place: Place) -> None:
    """With ``upload_delay`` scratch files cost the store nothing."""
    volume = place.volume()
    path = place.mount(volume, upload_delay="1h", max_uploads=3)
    for _ in range(5):
        (path / "scratch").write_bytes(os.urandom(5 << 20))
    (path / "scratch").unlink()
    (path / "f").write_text("kept")
    volume.blocking.commit()
    assert sum(found.stat().st_size for found in _packs(place)) < 1 << 20


def test_a_reader_moves_to_the_newest_version(place: Place) -> None:
    """``refresh``: names, contents and listings are the new ones although the kernel kept the old for an hour."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "same").write_text("same")
    (path / "changed").write_text("old")
    (path / "gone").write_text("gone")
    (path / "d").mkdir()
    volume.blocking.commit("one")
    hour = {"attr_cache": 3600.0, "entry_cache": 3600.0, "dir_entry_cache": 3600.0}
    with running(
        "import json\n"
        "from stowstore import Volume\n"
        "volume = Volume.blocking.at(sys.argv[1])\n"
        "volume.blocking.mount(sys.argv[2], timeout=30, read_only=True, **json.loads(sys.argv[3]))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n",
        f"{place.root}#data",
        place.directory / "ro",
        json.dumps(hour),
    ) as other:
        assert other.stdout is not None
        assert "ready\n" == other.stdout.readline()
        ro = place.directory / "ro"
        assert ["changed", "d", "gone", "same"] == sorted(os.listdir(ro))
        assert ("old", 3) == ((ro / "changed").read_text(), (ro / "changed").stat().st_size)
        assert not (ro / "new").exists()
        (path / "changed").write_text("newer")
        (path / "gone").unlink()
        (path / "new").write_text("new")
        (path / "d" / "below").write_text("below")
        latest = volume.blocking.commit("two")
        assert "old" == (ro / "changed").read_text()
        assert latest.locator == control.ask(ro, "refresh")["locator"]
        assert ["changed", "d", "new", "same"] == sorted(os.listdir(ro))
        assert ("newer", 5) == ((ro / "changed").read_text(), (ro / "changed").stat().st_size)
        assert ("new", "below", "same") == tuple((ro / name).read_text() for name in ("new", "d/below", "same"))
        assert not (ro / "gone").exists()
        assert 0 == control.ask(ro, "refresh")["changed"]


def test_a_writer_does_not_move(place: Place) -> None:
    """It is the newest state itself."""
    path = place.mount(place.volume())
    with pytest.raises(VolumeError, match="read"):
        control.ask(path, "refresh")


def test_a_reader_does_not_publish(place: Place) -> None:
    """The error says what to do instead."""
    volume = place.volume()
    (place.mount(volume) / "f").write_text("x")
    version = volume.blocking.commit()
    path = version.blocking.mount(place.directory / "ro", timeout=30.0)
    with pytest.raises(VolumeError, match="reading only") as caught:
        control.ask(path, "commit")
    assert "fork" in str(caught.value.hint)


def test_warming_up_fetches_before_anybody_reads(place: Place) -> None:
    """What was warmed up is read without the store, which is not there any more."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "d").mkdir()
    for number in range(20):
        (path / "d" / f"f{number}").write_bytes(os.urandom(10_000))
    (path / "large").write_bytes(os.urandom(3 << 20))
    expected = {found.name: found.read_bytes() for found in (*(path / "d").iterdir(), path / "large")}
    version = volume.blocking.finalize()
    ro = version.blocking.mount(place.directory / "ro", timeout=30.0)
    said = control.ask(ro, "warmup", paths=["/d", "large"])
    assert (21, 200_000 + (3 << 20)) == (said["files"], said["bytes"])
    (place.directory / "root").rename(place.directory / "elsewhere")
    try:
        assert expected == {found.name: found.read_bytes() for found in (*(ro / "d").iterdir(), ro / "large")}
    finally:
        (place.directory / "elsewhere").rename(place.directory / "root")
    with pytest.raises(FileNotFoundError):
        control.ask(ro, "warmup", paths=["/not/there"])


def test_statistics_tell_what_is_done(place: Place) -> None:
    """Counted since the mount began."""
    path = place.mount(place.volume())
    (path / "f").write_bytes(os.urandom(1 << 20))
    said = control.ask(path, "stats")
    assert (1 << 20, 1 << 20) == (said["written_bytes"], said["used_bytes"])
    assert 1 == said["requests"]["create"]
    assert not said["read_only"]


def test_commands_nobody_knows_are_refused(place: Place) -> None:
    """As are arguments."""
    path = place.mount(place.volume())
    with pytest.raises(StoreError, match="explode"):
        control.ask(path, "explode")
    with pytest.raises(StoreError, match="nonsense"):
        control.ask(path, "commit", nonsense=1)
    assert control.ask(path, "ping")["pid"] == place.record(path).pid


def test_a_mounted_volume_says_so_when_it_is_used_otherwise(place: Place) -> None:
    """Its files are at the path; merging needs it unmounted; it is not opened a second time."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_text("x")
    version = volume.blocking.commit()
    for use in (lambda: volume.files, lambda: volume.blocking.restore(version)):
        with pytest.raises(VolumeError, match="mounted"):
            use()
    with pytest.raises(StoreError):
        volume.blocking.open(**place.dirs())
    assert "x" == (path / "f").read_text()


def test_closing_a_mounted_volume_unmounts_it(place: Place) -> None:
    """As the end of ``async with`` does."""
    volume = place.volume()
    place.mount(volume)
    volume.blocking.close()
    assert [] == place.mounts()


def test_published_versions_are_there_for_others(place: Place) -> None:
    """The locator of a mounted volume is that of its last version, and anybody can use it."""
    volume = place.volume()
    path = place.mount(volume)
    assert volume.locator is None
    (path / "f").write_text("x")
    version = volume.blocking.commit()
    assert version.locator == volume.locator
    assert version.locator is not None
    assert "x" == Volume.blocking.from_locator(version.locator).blocking.files.read_text("/f")
    with pytest.raises(NoSuchVersion):
        Volume.blocking.at(f"{place.root}#data@never")


def _packs(place: Place) -> list[Path]:
    """The objects with the data of every volume of the place."""
    return [found for found in (place.directory / "root" / "packs").rglob("*") if found.is_file()]
