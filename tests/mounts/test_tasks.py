"""Tasks that mount volumes: what they return is unmounted and published, what a failed one has mounted is gone."""

from __future__ import annotations

import pytest

from stowstore.interop.tasks import published, running
from stowstore.volumes.registry import registry
from tests.mounts.conftest import Mounting


def test_a_mounted_volume_that_is_returned(mounting: Mounting) -> None:
    """A working copy is published as its mount left it, by the task that mounted it, and unmounted."""
    volume = mounting.volume()
    with running("mounts"):
        path = mounting.mount(volume, meta_dir=mounting.directory / "meta")
        (path / "file").write_text("text")
        version = published([volume])[0]
    assert "text" == version.files.read_text("file")
    assert "mounts" == version.produced_by
    assert registry.mount_of(volume._key()) is None
    assert not path.is_mount()


def test_a_mount_of_a_task_that_fails(mounting: Mounting) -> None:
    """Its mount goes with it, nothing is published, and the next attempt finds the newest version."""
    volume = mounting.volume()
    with volume.blocking as files:
        files.write_text("file", "text")
        volume.blocking.commit()

    def body() -> None:
        path = mounting.mount(volume, meta_dir=mounting.directory / "meta")
        (path / "file").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), running("fails"):
        body()
    assert not (mounting.directory / "mnt").is_mount()
    with volume.blocking as files:
        assert "text" == files.read_text("file")


def test_a_volume_mounted_to_be_read_that_is_returned(mounting: Mounting) -> None:
    """It is the version that was shown, and is unmounted; no version is made, and no lease taken of who writes."""
    volume = mounting.volume()
    with volume.blocking as files:
        files.write_text("file", "text")
        shown = volume.blocking.commit()
    path = mounting.mount(volume, read_only=True)
    assert "text" == (path / "file").read_text()
    assert shown == published([volume])[0]
    assert not path.is_mount()
    assert registry.mount_of(volume._key()) is None
    assert not registry.may_be_uncommitted(volume._key())


def test_what_is_not_committed_survives_a_mount_to_read(mounting: Mounting) -> None:
    """A mount for reading does not see the journal, a failed task leaves it, and publishing takes it up."""
    volume = mounting.volume()
    with volume.blocking as files:
        files.write_text("file", "old")
        volume.blocking.commit()
    files = volume.blocking.open(meta_dir=mounting.directory / "meta")
    files.write_text("file", "new")
    volume.blocking.close()

    def body() -> None:
        assert "old" == (mounting.mount(volume, read_only=True) / "file").read_text()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), running("fails"):
        body()
    mounting.mount(volume, read_only=True)
    assert "new" == published(volume).files.read_text("file")
