"""Volumes that are used: limits to the byte, resized under their jobs, removed only when nobody has them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import evolve

from datastore.errors import ConfigError
from stowstore.mounts import table
from stowstore.named import Access, Holder, NamedVolumes
from stowstore.named.backings.chunked import ChunkedBacking
from stowstore.named.errors import BelowUsed, InvalidSize, InvalidType, NoSpace, NotAllowed, VolumeInUse, VolumeNotFound
from stowstore.named.registry import Registry
from tests.named.conftest import mounted_below


def _fill(path: Path, piece: int = 4096) -> int:
    """Writes until there is no room, and returns how much there was."""
    written = 0
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                written += file.write(b"x" * piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return written


def _wait(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("volume_type", ["filesystem", "memory"])
def test_fifty_kilobytes_are_fifty_kilobytes(host: NamedVolumes, job: Holder, volume_type: str) -> None:
    """A size too small for upstream's ext4, which gave no limit at all instead; bytes and df agree."""
    host.create("small", size="50KB", volume_type=volume_type)
    with host.attach("small", holder=job) as attached:
        assert _fill(attached.path / "f", 1000) == 51_200
        with open(attached.path / "g", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            file.write(b"z")
        found = os.statvfs(attached.path)
        assert found.f_blocks * found.f_frsize == 49_152
        assert found.f_bavail == 0
        os.unlink(attached.path / "f")
        os.unlink(attached.path / "g")
        assert _fill(attached.path / "h", 1024) == 51_200
    assert host.usage("small").used_bytes == 51_200


def test_inodes_are_limited_as_well(host: NamedVolumes, job: Holder) -> None:
    """The directory itself is one of them."""
    host.create("few", size="1MB", inodes=4)
    with host.attach("few", holder=job) as attached:
        for name in "abc":
            (attached.path / name).touch()
        with pytest.raises(OSError, match="No space"):
            (attached.path / "d").touch()
        host.resize("few", "1MB", inodes=5)
        (attached.path / "d").touch()
        with pytest.raises(BelowUsed, match="5 inodes"):
            host.resize("few", "1MB", inodes=3)


def test_a_volume_is_resized_under_its_job(host: NamedVolumes, job: Holder) -> None:
    """Up at once, down above what is used only; the job sees it by df, and its reads never stop."""
    host.create("data", size="1MB")
    with host.attach("data", holder=job) as attached:
        (attached.path / "f").write_bytes(b"x" * 600_000)
        stop, read = threading.Event(), [0]

        def reader() -> None:
            while not stop.is_set():
                assert len((attached.path / "f").read_bytes()) == 600_000
                read[0] += 1

        thread = threading.Thread(target=reader)
        thread.start()
        steps = {"2GB": 2 << 30, "+1GB": 3 << 30, "-2GB": 1 << 30, "4PB": 4 << 50, "700KB": 716_800}
        for size, expected in steps.items():
            assert host.resize("data", size).to_data()["size_bytes"] == expected
            found = os.statvfs(attached.path)
            assert found.f_blocks * found.f_frsize == expected // 4096 * 4096
        stop.set()
        thread.join()
        assert read[0] > 0
        with pytest.raises(BelowUsed, match="600000 bytes, and 524288") as caught:
            host.resize("data", "512KB")
        assert (caught.value.used, caught.value.requested) == (600_000, 524_288)
        assert os.statvfs(attached.path).f_blocks == 716_800 // 4096
    for wrong in ("-1GB", "0", "+0", "max", "++1GB", "+8388608TB"):
        with pytest.raises(InvalidSize):
            host.resize("data", wrong)
    assert host.inspect("data").to_data()["size"] == "700KB"


def test_a_resize_lasts(host: NamedVolumes, job: Holder) -> None:
    """The new size is that of the next mount too, and of a volume that is not mounted."""
    host.create("data", size="1MB")
    host.resize("data", "8KB")
    with host.attach("data", holder=job) as attached:
        assert _fill(attached.path / "f") == 8192
    _wait(lambda: not mounted_below(host.base))
    with pytest.raises(BelowUsed):
        host.resize("data", "4KB")
    host.resize("data", "12KB")
    with host.attach("data", holder=job) as attached:
        assert _fill(attached.path / "g") == 4096


def test_a_new_volume_of_an_old_name_has_its_own_limit(host: NamedVolumes, job: Holder) -> None:
    """Nothing of a removed volume is left to its successor: neither quota nor bytes."""
    for size, room in (("8KB", 8192), ("16KB", 16_384)):
        host.create("data", size=size)
        with host.attach("data", holder=job) as attached:
            assert os.listdir(attached.path) == []
            assert _fill(attached.path / "f") == room
        host.remove("data")


def test_one_mount_serves_all_jobs(host: NamedVolumes) -> None:
    """Two jobs share a volume, what one writes the other reads, and both are shown."""
    host.create("shared", size="1MB")
    first = host.attach("shared", holder=Holder(job="a", command="writer"))
    second = host.attach("shared", access=Access.RO, holder=Holder(job="b", command="reader"))
    assert first.path == second.path
    assert (first.read_only, second.read_only) == (False, True)
    (first.path / "f").write_text("hello")
    assert (second.path / "f").read_text() == "hello"
    info = host.inspect("shared")
    assert [(holder.job, holder.access) for holder in info.jobs] == [("a", Access.RW), ("b", Access.RO)]
    assert (info.to_data()["job_count"], info.is_in_use, info.is_mounted) == (2, True, True)
    assert {one.name for one in host.list(in_use=True)} == {"shared"}
    first.release()
    first.release()
    assert [holder.job for holder in host.jobs()["shared"]] == ["b"]
    second.release()
    assert host.jobs() == {}


def test_a_volume_in_use_is_not_removed_and_its_bytes_stay(host: NamedVolumes, job: Holder) -> None:
    """Upstream unmounted in vain, deleted the files through the live mount and reported success."""
    host.create("busy", size="1MB")
    with host.attach("busy", holder=job) as attached:
        (attached.path / "f").write_text("kept")
        with pytest.raises(VolumeInUse, match="job-1"):
            host.remove("busy")
        assert (attached.path / "f").read_text() == "kept"
    # No job has it, but a person stands in it.
    with open(attached.path / "f"), pytest.raises(VolumeInUse, match="somebody works in"):
        host.remove("busy")
    host.remove("busy")
    assert mounted_below(host.base) == []


def test_a_forced_removal_frees_the_name_and_deletes_after_the_job(host: NamedVolumes, tmp_path: Path) -> None:
    """The job goes on in what it has, another volume has the name at once, and the bytes go with the last process."""
    host.create("busy", size="1MB")
    script = """
import os, subprocess, sys
from stowstore.named import Holder, NamedVolumes
attached = NamedVolumes(sys.argv[1]).attach("busy", holder=Holder(job="train"))
os.chdir(attached.path)
open("mine", "w").write("old")
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], pass_fds=attached.pass_fds, stdin=sys.stdin)
child.wait()
"""
    worker = """
import os, sys
print("ready", flush=True)
for line in sys.stdin:
    open("more", "a").write(line)
    print(sorted(os.listdir(".")), open("mine").read(), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(host.base), worker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        host.remove("busy", force=True)
        assert host.names() == []
        with pytest.raises(VolumeNotFound):
            host.inspect("busy")
        host.create("busy", size="2MB")
        with host.attach("busy", holder=Holder(job="next")) as attached:
            assert os.listdir(attached.path) == []
            (attached.path / "other").write_text("new")
            running.stdin.write("x\n")
            running.stdin.flush()
            assert running.stdout.readline() == "['mine', 'more'] old\n"
            assert len(list((host.base / ".gone").iterdir())) == 1
            running.stdin.close()
            running.wait()
            _wait(lambda: not list((host.base / ".gone").iterdir()))
            assert (attached.path / "other").read_text() == "new"
    assert [path.name for path in (host.base / ".areas").iterdir()] == [Registry(host.base).load("busy").id]


def test_a_job_killed_in_mid_write_leaves_what_was_synced(host: NamedVolumes, job: Holder) -> None:
    """Neither the job's death nor the daemon's takes what fsync has promised; the volume is free at once."""
    host.create("data", size="100MB")
    script = """
import os, sys
from stowstore.named import Holder, NamedVolumes
attached = NamedVolumes(sys.argv[1]).attach("data", holder=Holder(job="writer"))
with open(attached.path / "synced", "wb") as file:
    file.write(b"s" * 100_000)
    file.flush()
    os.fsync(file.fileno())
print("synced", flush=True)
with open(attached.path / "flying", "wb", buffering=0) as file:
    while True:
        file.write(b"f" * 4096)
"""
    for victim in ("job", "daemon and job"):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(host.base)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "synced\n"
            if victim != "job":
                record = table.find(host.base / "data" / "data")
                assert record is not None
                os.kill(record.pid, signal.SIGKILL)
            running.kill()
        assert host.jobs() == {}
        with host.attach("data", holder=job) as attached:
            assert (attached.path / "synced").read_bytes() == b"s" * 100_000
            for path in attached.path.iterdir():
                path.unlink()
    host.remove("data")


def test_a_restart_brings_every_volume_back(host: NamedVolumes, job: Holder) -> None:
    """After a crash of everything the files are there, created_time is what it was, and nobody holds anything."""
    made = host.create("data", size="1MB", labels={"a": "b"}).to_data()["created_time"]
    host.create("gone", size="1MB", volume_type="memory")
    for name in ("data", "gone"):
        with host.attach(name, holder=job) as attached:
            (attached.path / "f").write_text(name)
            descriptor = os.open(attached.path / "f", os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    _wait(lambda: host.list(name="gone")[0].usage.used_bytes == 4)
    for record in table.known():
        os.kill(record.pid, signal.SIGKILL)
        subprocess.run(["umount", "-l", record.path], check=False, capture_output=True)
        table.forget(record.path)
    (host.base / "data" / "jobs" / "stale.json").write_text("{")
    again = NamedVolumes(host.base)
    assert again.inspect("gone").usage.is_lost
    again.recover()
    assert again.jobs() == {}
    assert not list((host.base / "data" / "jobs").iterdir())
    with again.attach("data", holder=job) as attached:
        assert (attached.path / "f").read_text() == "data"
        assert os.path.ismount(attached.path)
    with again.attach("gone", holder=job) as attached:
        assert os.listdir(attached.path) == []
    assert not again.inspect("gone").usage.is_lost
    shown = again.inspect("data").to_data()
    assert (made, {"a": "b"}) == (shown["created_time"], shown["labels"])


def test_a_volume_nobody_uses_ends_its_daemon(host: NamedVolumes, job: Holder) -> None:
    """But not one in memory, whose daemon is where the bytes are."""
    host.create("disk", size="1MB")
    host.create("ram", size="1MB", volume_type="memory")
    for name in ("disk", "ram"):
        with host.attach(name, holder=job) as attached:
            (attached.path / "f").write_text(name)
    _wait(lambda: mounted_below(host.base) == [str(host.base / "ram" / "data")])
    assert host.list(name="disk")[0].usage.used_bytes == 4
    with host.attach("disk", holder=job) as attached:
        assert (attached.path / "f").read_text() == "disk"
    with host.attach("ram", holder=job) as attached:
        assert (attached.path / "f").read_text() == "ram"


def test_nothing_leaks_over_many_rounds(host: NamedVolumes, job: Holder) -> None:
    """Create, attach, write, release, remove: afterwards there is no mount, no process and no file."""
    for number in range(8):
        name = f"v{number % 2}"
        host.create(name, size="1MB", volume_type="memory" if number % 2 else "filesystem")
        with host.attach(name, holder=job) as attached:
            (attached.path / "f").write_bytes(b"x" * 10_000)
        host.remove(name, force=number % 3 == 0)
    _wait(lambda: not list((host.base / ".gone").iterdir()))
    assert mounted_below(host.base) == []
    assert [record for record in table.known() if record.is_alive] == []
    assert not list((host.base / ".areas").iterdir())


def test_memory_beyond_the_host_is_refused(plain: NamedVolumes) -> None:
    """The kernel's tmpfs takes any size, and means no limit by zero."""
    with pytest.raises(NoSpace, match="of memory are asked for"):
        plain.create("huge", size="1PB", volume_type="memory")
    with pytest.raises(InvalidSize):
        plain.create("huge", size="0", volume_type="memory")
    assert plain.names() == []


def test_an_operator_limits_what_a_host_has(plain: NamedVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number, size and memory of volumes; what there is goes on, and what is not a number is refused."""
    plain.create("first", size="2MB", backing="directory")
    monkeypatch.setenv("STOWSTORE_VOLUMES_MAX_SIZE", "4MB")
    with pytest.raises(NotAllowed, match=r"5\.0 MiB, and 4\.0 MiB are allowed"):
        plain.create("large", size="5MB", backing="directory")
    with pytest.raises(NotAllowed):
        plain.resize("first", "5MB")
    plain.resize("first", "4MB")
    monkeypatch.setenv("STOWSTORE_VOLUMES_DEFAULT_SIZE", "3MB")
    assert plain.create("second", backing="directory").to_data()["size"] == "3MB"
    monkeypatch.setenv("STOWSTORE_VOLUMES_MAX_VOLUMES", "2")
    with pytest.raises(NotAllowed, match="2 volumes, and 2 are allowed"):
        plain.create("third", backing="directory")
    monkeypatch.setenv("STOWSTORE_VOLUMES_MAX_VOLUMES", "9")
    monkeypatch.setattr(ChunkedBacking, "probe", lambda self, base: None)
    monkeypatch.setenv("STOWSTORE_VOLUMES_MAX_MEMORY", "3MB")
    plain.create("ram", size="2MB", volume_type="memory")
    with pytest.raises(NotAllowed, match=r"4\.0 MiB, and 3\.0 MiB"):
        plain.create("more", size="2MB", volume_type="memory")
    with pytest.raises(NotAllowed):
        plain.resize("ram", "4MB")
    plain.resize("ram", "3MB")
    monkeypatch.setenv("STOWSTORE_VOLUMES_MAX_MEMORY_VOLUMES", "1")
    with pytest.raises(NotAllowed, match="1 volumes in memory"):
        plain.create("more", size="1KB", volume_type="memory")
    monkeypatch.setenv("STOWSTORE_VOLUMES_MAX_VOLUMES", "many")
    with pytest.raises(ConfigError, match="STOWSTORE_VOLUMES_MAX_VOLUMES"):
        plain.create("more", size="1KB")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"volume_type": "tape"}, InvalidType),
        ({"backing": "nfs"}, InvalidType),
        ({"backing": "tmpfs"}, InvalidType),
        ({"volume_type": "memory", "backing": "directory"}, InvalidType),
        ({"size": "-1"}, InvalidSize),
        ({"size": "9223372036854775808"}, InvalidSize),
        ({"size": ""}, InvalidSize),
        ({"inodes": 0}, Exception),
        ({"labels": {"": "x"}}, Exception),
        ({"labels": {"../x": "x"}}, Exception),
    ],
    ids=str,
)
def test_what_cannot_be_created_leaves_nothing(
    plain: NamedVolumes, given: dict[str, object], error: type[Exception]
) -> None:
    """Arguments are checked before the disk is touched."""
    with pytest.raises(error):
        plain.create("data", **given)  # type: ignore[arg-type]
    assert not plain.base.exists()


def test_a_full_disk_of_the_host_leaves_no_half_volume(plain: NamedVolumes, tmp_path: Path) -> None:
    """What cannot be written whole is not there, and what was there goes on."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        volumes = NamedVolumes(small / "v")
        volumes.create("first", size="1KB", backing="directory")
        made = []
        with pytest.raises((OSError, NoSpace), match="No space left"):  # noqa: PT012 - which one is the last is not known
            for number in range(100):
                volumes.create(f"v{number}", size="1KB", backing="directory")
                made.append(f"v{number}")
        assert sorted(["first", *made]) == volumes.names()
        assert all(info.problem is None for info in volumes.list())
        volumes.remove(made[0])
        volumes.remove(made[1])
        volumes.create("last", size="1KB", backing="directory")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_what_a_full_disk_cannot_take_stays_in_the_mount(
    host: NamedVolumes, job: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle server does not end with changes that only it has; it writes them when there is room again."""
    monkeypatch.setenv("STOWSTORE_IDLE_SECONDS", "0.1")
    small = tmp_path / "volumes"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    host.create("data", size="1MB")
    with host.attach("data", holder=job) as attached:
        (attached.path / "f").write_text("written")
        with (small / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(1 << 12))
        # In the memory of the server, which has no room for its journal any more.
        (attached.path / "g").write_text("only there")
    # Long enough for a server that would not mind to be gone.
    time.sleep(1.5)
    assert host.list()[0].is_mounted
    (small / "filler").unlink()
    _wait(lambda: not host.list()[0].is_mounted)
    with host.attach("data", holder=job) as attached:
        assert ["written", "only there"] == [(attached.path / name).read_text() for name in ("f", "g")]


def test_lists_filter_by_name_type_label_and_use(plain: NamedVolumes) -> None:
    """Filters add up; a label without a value may have any."""
    plain.create("alpha", size="1MB", backing="directory", labels={"team": "ml", "tier": "1"})
    plain.create("beta", size="2MB", backing="directory", labels={"team": "web"})
    plain.create("gamma", size="3MB", backing="directory")

    def names(**how: object) -> list[str]:
        return [info.name for info in plain.list(**how)]  # type: ignore[arg-type]

    assert names() == ["alpha", "beta", "gamma"]
    assert names(name="a") == ["alpha", "beta", "gamma"]
    assert names(name="lph") == ["alpha"]
    assert names(labels={"team": None}) == ["alpha", "beta"]
    assert names(labels={"team": "ml", "tier": None}) == ["alpha"]
    assert names(volume_type="memory") == []
    assert names(in_use=True) == []
    plain.label("beta", {"team": None, "tier": "2"})
    assert names(labels={"team": None}) == ["alpha"]
    assert plain.inspect("beta").to_data()["labels"] == {"tier": "2"}


def test_prune_takes_what_holds_nothing_and_never_more(host: NamedVolumes, job: Holder) -> None:
    """Without a label or being told so, no byte is ever lost by it."""
    for name in ("empty", "full", "used", "labelled"):
        host.create(name, size="1MB", labels={"scratch": "yes"} if name == "labelled" else {})
    for name in ("full", "labelled"):
        with host.attach(name, holder=job) as attached:
            (attached.path / "f").write_text("x")
            descriptor = os.open(attached.path / "f", os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    _wait(lambda: all(host.list(name=name)[0].usage.used_bytes for name in ("full", "labelled")))
    with host.attach("used", holder=evolve(job, job="holder")):
        assert [info.name for info in host.prunable()] == ["empty"]
        assert [info.name for info in host.prunable(labels={"scratch": None})] == ["labelled"]
        assert [info.name for info in host.prunable(everything=True)] == ["empty", "full", "labelled"]
        assert host.prune(["empty", "used", "never"]) == ["empty"]
    assert host.names() == ["full", "labelled", "used"]


def test_prune_looks_again_before_it_takes_anything(plain: NamedVolumes, job: Holder) -> None:
    """A plain directory is counted by nobody while jobs write, and what was empty when listed may not stay so."""
    for name in ("written", "later", "empty"):
        plain.create(name, size="1MB", backing="directory")
    with plain.attach("written", holder=job) as attached:
        (attached.path / "f").write_text("precious")
    assert plain.list(name="written")[0].usage.used_bytes is None
    found = [info.name for info in plain.prunable()]
    assert found == ["empty", "later"]
    with plain.attach("later", holder=job) as attached:
        (attached.path / "f").write_text("precious")
    assert plain.prune(found, only_empty=True) == ["empty"]
    assert plain.names() == ["later", "written"]


def test_largest_directories_come_from_the_index(host: NamedVolumes, job: Holder) -> None:
    """What is committed and what is not count together, links once, and what was removed not at all."""
    host.create("data", size="10MB")
    with host.attach("data", holder=job) as attached:
        for name, size in (("a", 300_000), ("a/b", 200_000), ("c", 100_000)):
            (attached.path / name).mkdir()
            (attached.path / name / "f").write_bytes(b"x" * size)
        host.snapshot("data")
        (attached.path / "c" / "more").write_bytes(b"x" * 500_000)
        (attached.path / "a" / "b" / "f").unlink()
        found = {one["path"]: (one["bytes"], one["files"]) for one in host.largest("data")}
    assert found == {"/": (900_000, 3), "/a": (300_000, 1), "/a/b": (0, 0), "/c": (600_000, 2)}
