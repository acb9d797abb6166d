"""Versions, clones and backups of named volumes: what one holds is what the other gets, and neither harms the other."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from datastore.errors import PreconditionFailed
from stowstore.named import Holder, NamedVolumes
from stowstore.named.copying import copy_in, copy_out
from stowstore.named.errors import BelowUsed, VolumeExists, VolumeInUse
from stowstore.versions.errors import NoSuchVersion, RootInUse
from stowstore.volumes import Volume
from tests.named.conftest import mounted_below


def _write(volumes: NamedVolumes, name: str, content: dict[str, bytes]) -> None:
    with volumes.attach(name, holder=Holder(job="writer")) as attached:
        for path, data in content.items():
            (attached.path / path).parent.mkdir(parents=True, exist_ok=True)
            (attached.path / path).write_bytes(data)


def _read(volumes: NamedVolumes, name: str, snapshot: str | None = None) -> dict[str, bytes]:
    with volumes.attach(name, holder=Holder(job="reader"), snapshot=snapshot) as attached:
        return {
            str(path.relative_to(attached.path)): path.read_bytes()
            for path in sorted(attached.path.rglob("*"))
            if path.is_file()
        }


@pytest.mark.parametrize("volume_type", ["filesystem", "memory"])
def test_a_volume_goes_back_to_a_snapshot_and_loses_nothing(host: NamedVolumes, volume_type: str) -> None:
    """What was not in a version yet is made one first; a job that has the volume is not pulled the rug from under."""
    host.create("data", size="1MB", volume_type=volume_type)
    _write(host, "data", {"f": b"one", "g": b"same"})
    first = host.snapshot("data", "first", tag="v1")
    assert host.snapshot("data") == first
    _write(host, "data", {"f": b"two", "h": b"new"})
    with host.attach("data", holder=Holder(job="trainer")), pytest.raises(VolumeInUse, match="trainer"):
        host.restore("data", "v1")
    host.restore("data", "v1")
    assert _read(host, "data") == {"f": b"one", "g": b"same"}
    log = host.log("data")
    assert [entry.version.message for entry in log][1:] == ["before it was restored", "first"]
    host.restore("data", log[1].id)
    assert _read(host, "data") == {"f": b"two", "g": b"same", "h": b"new"}
    assert _read(host, "data", snapshot="v1") == {"f": b"one", "g": b"same"}
    assert [change.path for change in host.diff("data", "v1")] == ["f", "h"]
    with pytest.raises(NoSuchVersion):
        host.restore("data", "v9")
    info = host.inspect("data").to_data()
    assert (info["head"] is not None, info["used_bytes"], info["snapshots"]) == (True, 10, len(host.log("data")))


def test_a_snapshot_is_attached_for_reading_beside_the_volume(host: NamedVolumes) -> None:
    """Two states of one volume at once; the older one cannot be written."""
    host.create("data", size="1MB")
    _write(host, "data", {"f": b"one"})
    version = host.snapshot("data").rpartition("@")[2].partition(":")[0]
    _write(host, "data", {"f": b"two"})
    holder = Holder(job="compare")
    with host.attach("data", holder=holder) as now, host.attach("data", holder=holder, snapshot=version) as then:
        assert ((now.path / "f").read_bytes(), (then.path / "f").read_bytes()) == (b"two", b"one")
        assert then.read_only
        with pytest.raises(OSError, match="Read-only"):
            (then.path / "f").write_bytes(b"x")
        with pytest.raises(VolumeInUse):
            host.remove("data")
        assert len(mounted_below(host.base)) == 2
    host.remove("data")
    assert mounted_below(host.base) == []


def test_a_clone_shares_bytes_and_goes_its_own_way(host: NamedVolumes) -> None:
    """Writes to one are not seen in the other, and either outlives the other's removal."""
    host.create("source", size="8MB", labels={"team": "ml"})
    body = os.urandom(3_000_000)
    _write(host, "source", {"big": body, "f": b"one"})
    host.snapshot("source", tag="v1")
    _write(host, "source", {"f": b"two"})
    made = host.clone("source", "now").to_data()
    assert (made["size"], made["labels"], made["used_bytes"]) == ("8MB", {"team": "ml"}, 3_000_003)
    assert made["parent"].startswith("source@")
    host.clone("source", "then", version="v1", size="4MB")
    stored = {
        (found.st_dev, found.st_ino): found.st_size
        for path in (host.base / ".areas").glob("*/store/packs/*/*")
        if (found := path.stat()).st_size
    }
    assert sum(stored.values()) < 2 * len(body)
    _write(host, "now", {"f": b"three"})
    host.remove("source")
    assert _read(host, "now") == {"big": body, "f": b"three"}
    assert _read(host, "then") == {"big": body, "f": b"one"}
    for name, how, error in (
        ("now", {}, VolumeExists),
        ("small", {"size": "1MB"}, BelowUsed),
        ("old", {"version": "v9"}, NoSuchVersion),
    ):
        with pytest.raises(error):
            host.clone("then", name, **how)  # type: ignore[arg-type]
    assert host.names() == ["now", "then"]


def test_hosts_exchange_a_volume_by_a_root(host: NamedVolumes, tmp_path: Path, job: Holder) -> None:
    """Pushed, pulled by the locator elsewhere, changed there, pushed, and pulled back; diverged ones are refused."""
    root = f"file://{tmp_path}/remote/root"
    there = NamedVolumes(tmp_path / "elsewhere")
    try:
        host.create("data", size="4MB")
        _write(host, "data", {"f": b"one", "big": os.urandom(1_000_000)})
        locator = host.push("data", root)
        assert host.push("data", root) == locator
        there.pull(locator, "copy", size="2MB")
        assert _read(there, "copy") == _read(host, "data")
        _write(there, "copy", {"f": b"two"})
        there.push("copy", f"{root}#data")
        moved = host.pull(f"{root}#data", "data").to_data()
        assert (moved["size"], _read(host, "data")["f"]) == ("4MB", b"two")
        _write(host, "data", {"f": b"mine"})
        _write(there, "copy", {"f": b"theirs"})
        there.push("copy", f"{root}#data")
        with pytest.raises(PreconditionFailed):
            host.push("data", root)
        with pytest.raises(VolumeExists):
            host.pull(f"{root}#data", "data")
        assert _read(host, "data")["f"] == b"mine"
        with host.attach("data", holder=job), pytest.raises(VolumeInUse):
            host.pull(f"{root}#data", "data")
        with pytest.raises(BelowUsed):
            host.pull(locator, "tiny", size="1KB")
    finally:
        for name in there.names():
            there.remove(name, force=True)


def test_a_volume_may_keep_its_versions_in_a_store(host: NamedVolumes, tmp_path: Path) -> None:
    """Its name is taken there, others read it by its address, and removing it here removes it there."""
    root = f"file://{tmp_path}/remote/root"
    host.create("data", size="1MB", store=root)
    with pytest.raises(RootInUse):
        NamedVolumes(tmp_path / "elsewhere").create("data", size="1MB", store=root)
    _write(host, "data", {"f": b"one"})
    host.snapshot("data")
    found = Volume.blocking.at(f"{root}#data")
    assert found.used_bytes == 3
    host.clone("data", "fork")
    host.remove("data")
    assert _read(host, "fork") == {"f": b"one"}
    host.remove("fork")
    assert not list((tmp_path / "remote" / "root" / "refs").glob("*/head"))


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.gz"])
def test_a_backup_restores_everything(host: NamedVolumes, tmp_path: Path, name: str) -> None:
    """Modes, owners, times, links and holes come back; the archive is plain tar for everybody."""
    host.create("data", size="10MB")
    with host.attach("data", holder=Holder(job="writer")) as attached:
        top = attached.path
        (top / "dir").mkdir(mode=0o750)
        (top / "dir" / "f").write_bytes(b"content")
        (top / "dir" / "f").chmod(0o640)
        os.link(top / "dir" / "f", top / "hard")
        os.symlink("dir/f", top / "soft")
        with open(top / "sparse", "wb") as file:
            file.seek(5 << 20)
            file.write(b"end")
        os.utime(top / "dir" / "f", ns=(10**18, 10**18))
        os.utime(top / "dir", ns=(10**18, 10**18))
    target = tmp_path / name
    assert host.backup("data", target) == str(target)
    with tarfile.open(target) as archive:
        assert {"dir/f", "hard", "soft", "sparse"} <= set(archive.getnames())
    assert [path for path in tmp_path.iterdir() if path.name.startswith(f".{name}")] == []
    host.restore_backup(str(target), "copy", size="10MB")
    with host.attach("copy", holder=Holder(job="reader")) as attached:
        top = attached.path
        found = os.stat(top / "dir" / "f")
        assert (stat.S_IMODE(found.st_mode), found.st_nlink, found.st_mtime_ns) == (0o640, 2, 10**18)
        assert found.st_ino == os.stat(top / "hard").st_ino
        assert stat.S_IMODE(os.stat(top / "dir").st_mode) == 0o750
        assert os.stat(top / "dir").st_mtime_ns == 10**18
        assert os.readlink(top / "soft") == "dir/f"
        sparse = os.stat(top / "sparse")
        assert (sparse.st_size, sparse.st_blocks < 100) == ((5 << 20) + 3, True)
    with pytest.raises(OSError, match="No space"):
        host.restore_backup(str(target), "small", size="5B")
    with pytest.raises(VolumeExists):
        host.restore_backup(str(target), "copy")
    assert host.names() == ["copy", "data"]


def test_a_backup_goes_through_a_pipe_and_a_damaged_one_leaves_nothing(host: NamedVolumes) -> None:
    """A stream that ends early is an error, and no half volume gets the name."""
    host.create("data", size="1MB")
    _write(host, "data", {"f": b"x" * 100_000})
    stream = io.BytesIO()
    host.backup("data", stream)
    for cut in (0, 700, 50_000):
        with pytest.raises((tarfile.TarError, OSError, EOFError)):
            host.restore_backup(io.BytesIO(stream.getvalue()[:cut]), "cut", size="1MB")
    host.restore_backup(io.BytesIO(stream.getvalue()), "whole", size="1MB")
    assert _read(host, "whole") == {"f": b"x" * 100_000}
    assert host.names() == ["data", "whole"]
    assert len(list((host.base / ".areas").iterdir())) == 2


def test_a_backup_goes_to_any_root(host: NamedVolumes, tmp_path: Path) -> None:
    """The same as a push, and restored under any name."""
    host.create("data", size="1MB")
    _write(host, "data", {"f": b"one"})
    locator = host.backup("data", f"file://{tmp_path}/remote/root")
    assert host.restore_backup(locator, "copy", size="2MB").to_data()["size"] == "2MB"
    assert _read(host, "copy") == {"f": b"one"}


def test_links_in_a_volume_lead_no_copy_out_of_it(tmp_path: Path) -> None:
    """A job may have put anything into its volume; the host's own files stay what they are and where they are."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    os.symlink(outside, volume / "dir")
    os.symlink(outside / "secret", volume / "file")
    source = tmp_path / "source"
    source.write_text("mine")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copy_in(source, volume, "/dir/secret", recursive=False)
    copy_in(source, volume, "/file", recursive=False)
    assert (volume / "file").read_text() == "mine"
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copy_out(volume, "/dir/secret", tmp_path / "out", recursive=False)
    copy_out(volume, "/", tmp_path / "all", recursive=True)
    assert os.readlink(tmp_path / "all" / "dir") == str(outside)
    with pytest.raises(OSError, match="does not go up"):
        copy_out(volume, "/../outside/secret", tmp_path / "out", recursive=False)
    assert (outside / "secret").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["secret"]
    assert not (tmp_path / "out").exists()
