"""Loop devices, tmpfs and directories: what serves where there is no FUSE, and what it says of itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from stowstore.named import BackingKind, Holder, NamedVolumes, VolumeType
from stowstore.named.backings import choosing
from stowstore.named.backings.chunked import ChunkedBacking
from stowstore.named.backings.loop import LoopBacking
from stowstore.named.errors import BackingUnsupported, BelowUsed, InvalidSize, NoSpace, VolumeInUse
from tests.named.conftest import mounted_below

_KINDS = [("loop", "filesystem"), ("tmpfs", "memory"), ("directory", "filesystem")]


def _loops() -> str:
    return subprocess.run(["losetup", "-a"], check=False, capture_output=True, text=True).stdout


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("backing", "volume_type"), _KINDS)
def test_every_backing_keeps_limits_and_says_what_it_is(
    host: NamedVolumes, job: Holder, backing: str, volume_type: str
) -> None:
    """The same life as a chunked volume: fill, resize, clone, back up, remove; no mount or loop device is left."""
    made = host.create("data", size="4MB", backing=backing, volume_type=volume_type).to_data()
    assert (made["backing"], made["enforced"]) == (backing, backing != "directory")
    with host.attach("data", holder=job) as attached:
        assert os.path.ismount(attached.path) is (backing != "directory")
        if backing != "directory":
            with pytest.raises(OSError, match="No space"):
                (attached.path / "f").write_bytes(b"x" * 5_000_000)
        (attached.path / "f").write_bytes(b"x" * 2_000_000)
        used = host.usage("data").used_bytes
        assert used is not None
        assert 2_000_000 <= used < 2_200_000
        with pytest.raises((BelowUsed, BackingUnsupported)):
            host.resize("data", "1MB")
        with pytest.raises(VolumeInUse):
            host.remove("data")
        if backing == "tmpfs":
            host.resize("data", "8MB")
            assert os.statvfs(attached.path).f_blocks * 4096 == 8 << 20
    host.resize("data", "16MB")
    with pytest.raises(BelowUsed):
        host.resize("data", "1MB")
    host.resize("data", "12MB")
    with host.attach("data", holder=job) as attached:
        assert (attached.path / "f").stat().st_size == 2_000_000
        (attached.path / "g").write_bytes(b"y" * 6_000_000)
    host.clone("data", "copy")
    with host.attach("copy", holder=job) as attached:
        assert {path.name: path.stat().st_size for path in attached.path.iterdir() if path.is_file()} == {
            "f": 2_000_000,
            "g": 6_000_000,
        }
    with pytest.raises(BackingUnsupported, match="has no versions"):
        host.snapshot("data")
    area = str(host.base)
    for name in ("data", "copy"):
        host.remove(name)
    assert mounted_below(host.base) == []
    assert area not in _loops()
    assert not list((host.base / ".areas").iterdir())


@pytest.mark.usefixtures("loops")
def test_an_empty_loop_volume_is_not_shown_as_used(host: NamedVolumes, job: Holder) -> None:
    """Upstream counted what ext4 sets aside as used."""
    host.create("data", size="100MB", backing="loop")
    with host.attach("data", holder=job):
        used = host.usage("data").used_bytes
    assert used is not None
    assert used < 100_000


@pytest.mark.usefixtures("loops")
def test_a_loop_volume_comes_back_after_a_restart(host: NamedVolumes, job: Holder) -> None:
    """Upstream left an empty directory without limits in its place."""
    host.create("data", size="4MB", backing="loop")
    with host.attach("data", holder=job) as attached:
        (attached.path / "f").write_text("kept")
    subprocess.run(["umount", str(host.base / "data" / "data")], check=True)
    again = NamedVolumes(host.base)
    with again.attach("data", holder=job) as attached:
        assert os.path.ismount(attached.path)
        assert (attached.path / "f").read_text() == "kept"
    subprocess.run(["umount", str(host.base / "data" / "data")], check=True)
    next((host.base / ".areas").glob("*/volume.img")).unlink()
    with pytest.raises(Exception, match="has lost its image"):
        again.attach("data", holder=job)
    assert again.jobs() == {}


@pytest.mark.usefixtures("loops")
def test_loop_volumes_take_room_that_is_there(host: NamedVolumes) -> None:
    """More than the host has is refused at once: later writes would only fail when they are flushed."""
    with pytest.raises(NoSpace):
        host.create("data", size="100PB", backing="loop")
    with pytest.raises(InvalidSize, match=r"256\.0 KiB"):
        host.create("data", size="50KB", backing="loop")
    host.create("data", size="2MB", backing="loop", preallocate=True)
    assert next((host.base / ".areas").glob("*/volume.img")).stat().st_blocks * 512 >= 2 << 20
    assert host.names() == ["data"]


def test_without_anything_to_mount_a_directory_serves_and_says_so(
    plain: NamedVolumes, monkeypatch: pytest.MonkeyPatch, job: Holder
) -> None:
    """Never silently: a fallback has its reasons in what is returned, and can be refused."""

    def fails(self: object, base: Path) -> None:
        raise BackingUnsupported("not on this host")

    monkeypatch.setattr(ChunkedBacking, "probe", fails)
    monkeypatch.setattr(LoopBacking, "probe", fails)
    made = plain.create("data", size="1MB").to_data()
    assert (made["backing"], made["enforced"]) == ("directory", False)
    assert "chunked: not on this host; loop: not on this host" in made["problem"]
    with plain.attach("data", holder=job) as attached:
        (attached.path / "f").write_bytes(b"x" * 100_000)
    assert plain.usage("data").used_bytes == 102_400
    assert plain.list()[0].usage.used_bytes == 102_400
    with pytest.raises(BackingUnsupported, match="would not be enforced"):
        plain.create("strict", size="1MB", require_enforced=True)
    for kind in (BackingKind.CHUNKED, BackingKind.LOOP):
        with pytest.raises(BackingUnsupported):
            plain.create("strict", size="1MB", backing=kind)
    assert plain.names() == ["data"]


def test_memory_without_anything_is_refused(plain: NamedVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory on the disk is no memory."""

    def fails(self: object, base: Path) -> None:
        raise BackingUnsupported("not on this host")

    for kind in (BackingKind.CHUNKED, BackingKind.TMPFS):
        monkeypatch.setattr(type(choosing.backing_of(kind)), "probe", fails)
    with pytest.raises(BackingUnsupported, match="no volume of type memory"):
        plain.create("data", size="1MB", volume_type=VolumeType.MEMORY)


@pytest.mark.usefixtures("loops")
def test_volumes_of_joblet_are_taken_over_where_they_lie(host: NamedVolumes, job: Holder) -> None:
    """Listed as they are; the first command that changes one makes it ours, with its files and its time."""
    told = {"size": "4MB", "sizeBytes": 4 << 20, "createdTime": "2025-08-01T10:20:30.123456789Z"}
    for name in ("looped", "plain"):
        (host.base / name / "data").mkdir(parents=True)
        record = {"name": name, "type": "filesystem", **told}
        (host.base / name / "volume-info.json").write_text(json.dumps(record))
    image = host.base / "looped" / "volume.img"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    (host.base / "plain" / "data" / "f").write_text("kept")
    (host.base / "broken").mkdir()
    (host.base / "broken" / "volume-info.json").write_text('{"name": "broken", "sizeBytes": -1}')
    shown = {info.name: info.to_data() for info in host.list()}
    assert (shown["looped"]["backing"], shown["plain"]["backing"]) == ("loop", "directory")
    assert (shown["plain"]["enforced"], shown["looped"]["created_time"]) == (False, "2025-08-01T10:20:30.123456Z")
    assert shown["broken"]["problem"] is not None
    with host.attach("looped", holder=job) as attached:
        (attached.path / "f").write_text("new")
    host.resize("looped", "8MB")
    with host.attach("looped", holder=job) as attached:
        assert (attached.path / "f").read_text() == "new"
    with host.attach("plain", holder=job) as attached:
        assert (attached.path / "f").read_text() == "kept"
    assert host.inspect("looped").to_data()["created_time"] == "2025-08-01T10:20:30.123456Z"
    for name in ("looped", "plain"):
        host.remove(name)
    host.remove("broken", force=True)
    assert (host.names(), mounted_below(host.base)) == ([], [])
