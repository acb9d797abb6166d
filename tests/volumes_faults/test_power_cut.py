"""What a volume on a local disk still has after the power was cut: everything that was synced."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from stowstore.config import ContainerPolicy
from stowstore.versions.address import open_root
from stowstore.versions.check import check
from stowstore.versions.findings import CheckDepth
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import RootFormat
from stowstore.versions.session import Session
from tests.volumes_faults.programs import read_file, write_file
from tests.volumes_faults.writing import VOLUME

_SIZE = 64 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk that can be looked at as the power would leave it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    return image


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


@contextmanager
def _session(disk: Path) -> Iterator[Session]:
    """A volume whose root, journal and cache all lie on a disk."""
    root = open_root(f"file://{disk}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
    options = SessionOptions(cache_dir=disk / "cache", meta_dir=disk / "meta")
    session = Session.write(root, VOLUME, options)
    try:
        yield session
    finally:
        session.close()
        root.store.close()


def _contents(count: int) -> dict[str, bytes]:
    return {f"f{number}": Random(number).randbytes(200_000) for number in range(count)}


def test_what_refers_to_blocks_survives(image: Path, tmp_path: Path) -> None:
    """Large files refer to blocks before any commit: what is synced then is the blocks, and what keeps them."""
    expected = {f"large{number}": Random(number).randbytes(9_000_000) for number in range(2)}
    with _mounted(image, tmp_path / "disk") as disk, _session(disk) as session:
        for name, data in expected.items():
            write_file(session.files, name, data)
        for _ in range(500):
            if session.files.content.staging.held <= 2 * 1_000_000:
                break
            time.sleep(0.01)
        session.files.fsync()
        assert [one.name for one in (disk / "root" / "leases").iterdir() if one.name.startswith("_journal-")]
        shutil.copyfile(image, tmp_path / "after")
    with _mounted(tmp_path / "after", tmp_path / "disk") as disk:
        (disk / "root" / "leases" / VOLUME).unlink()  # its time is over, too
        assert [one.name for one in (disk / "root" / "leases").iterdir() if one.name.startswith("_journal-")]
        assert list((disk / "root" / "packs").rglob("*"))
        with _session(disk) as session:
            assert expected == {name: read_file(session.files, name) for name in expected}
            session.commit()
            assert check(session.root, session.chunks, VOLUME, depth=CheckDepth.DATA).is_whole


@pytest.mark.parametrize("publishing", ["commits", "uploads", "nothing"])
def test_what_was_synced_survives(image: Path, tmp_path: Path, publishing: str) -> None:
    """Also when a commit or an upload has moved it from the journal to packs since, which the disk may not have; and
    when what was synced next lies in another file of the staging area, whose name the disk may not have."""
    expected = _contents(20)
    with _mounted(image, tmp_path / "disk") as disk, _session(disk) as session:
        for name, data in expected.items():
            write_file(session.files, name, data)
        session.files.fsync()
        if publishing == "commits":
            session.commit()
        else:
            if publishing == "uploads":
                session.files.upload()
            else:
                session.files.content.staging.begin_anew()
            for name in ("more", "most"):
                expected[name] = name.encode() * 1250
                write_file(session.files, name, expected[name])
                session.files.fsync()
        shutil.copyfile(image, tmp_path / "after")
    with _mounted(tmp_path / "after", tmp_path / "disk") as disk:
        (disk / "root" / "leases" / VOLUME).unlink()  # its time is over, too
        with _session(disk) as session:
            assert expected == {name: read_file(session.files, name) for name in expected}
            session.commit()
            assert check(session.root, session.chunks, VOLUME, depth=CheckDepth.DATA).is_whole
