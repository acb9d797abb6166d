"""Full disks below a volume: clear errors, nothing torn, and all goes on once there is room again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from datastore.errors import StoreError
from stowstore.versions.check import check
from stowstore.versions.findings import CheckDepth
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.volumes_faults.programs import ROOT_USER, Tree, read_file, tree_of, write_file
from tests.volumes_faults.writing import VOLUME, Place, root_of

_SIZE = 8 << 20


class _SmallDisk:
    """A file system of 8 MiB that can be filled up and cleared."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Takes all room but so many bytes."""
        with self._ballast.open("ab") as file:
            step = 1 << 20
            while step >= 512:
                try:
                    os.write(file.fileno(), bytes(step))
                except OSError:
                    step //= 2
            file.flush()
        if leave:
            os.truncate(self._ballast, max(self._ballast.stat().st_size - leave, 0))

    def clear(self) -> None:
        self._ballast.unlink()


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_SmallDisk]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(directory)]
    else:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("mkfs.ext4 is not installed")
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let us mount: {done.stderr.strip()}")
    try:
        yield _SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def _data(seed: int, size: int = 300_000) -> bytes:
    return Random(seed).randbytes(size)


def _require_newest(root: Root, expected: Tree) -> None:
    with Session.read(root, root.head(VOLUME)) as reader:
        assert tree_of(reader.files) == expected
        report = check(root, reader.chunks, depth=CheckDepth.DATA)
        assert report.is_whole, "\n".join(map(str, report.findings))


def test_full_cache_dir(disk: _SmallDisk, tmp_path: Path) -> None:
    """Writing answers ENOSPC and changes nothing; what was written before is read and committed; then there is room."""
    root = root_of(Place(tmp_path))
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=disk.directory / "cache")
    with Session.write(root, VOLUME, options) as session:
        files = session.files
        write_file(files, "before", _data(0))
        expected = tree_of(files)
        full = None
        for number in range(100):
            name = f"f{number}"
            expected[name] = b""
            try:
                write_file(files, name, _data(number))
            except OSError as error:
                full = error.errno
                break
            expected[name] = _data(number)
        assert full == errno.ENOSPC
        assert tree_of(files) == expected
        session.commit()
        assert tree_of(files) == expected
        _require_newest(root, expected)
        # The commit has given the staged data up; whoever was making room holds some of them a moment longer.
        deadline = time.monotonic() + 60
        while True:
            try:
                write_file(files, "after", _data(1000))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - there will be room
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                break
        files.fsync()
        expected["after"] = _data(1000)
        session.commit()
    _require_newest(root, expected)


def test_what_a_full_cache_dir_does_not_take_is_synced_to_the_root(disk: _SmallDisk, tmp_path: Path) -> None:
    """Large writes are in memory until a journal refers to them; where they have no room then, they become blocks."""
    root = root_of(Place(tmp_path))
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=disk.directory / "cache")
    session = Session.write(root, VOLUME, options)
    for number in range(10):
        write_file(session.files, f"f{number}", _data(number))
    disk.fill()
    session.files.fsync()
    expected = tree_of(session.files)
    session.close()
    with Session.write(root, VOLUME, options) as session:
        assert tree_of(session.files) == expected == {f"f{number}": _data(number) for number in range(10)}
        session.commit()
    _require_newest(root, expected)


def test_full_cache_dir_does_not_fail_readers(disk: _SmallDisk, tmp_path: Path) -> None:
    """A cache that cannot keep anything costs fetches, not errors."""
    root = root_of(Place(tmp_path))
    with Session.write(root, VOLUME) as session:
        for number in range(40):
            write_file(session.files, f"f{number}", _data(number))
        session.commit()
        expected = tree_of(session.files)
    options = SessionOptions(cache_dir=disk.directory / "cache", memory_cache_bytes=1 << 20)
    with Session.read(root, root.head(VOLUME), options) as reader:
        assert tree_of(reader.files) == expected
        disk.fill()
        assert tree_of(reader.files) == expected


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_full_meta_dir(disk: _SmallDisk, tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Fsync says that it is not durable; operations go on, a commit is refused or whole, and later all is recovered."""
    if kind == "redis":
        request.getfixturevalue("redis_server")
    root = root_of(Place(tmp_path))
    meta_dir = disk.directory / "meta"
    options = SessionOptions(meta_dir=meta_dir, cache_dir=tmp_path / "cache", metadata_store_type=kind)
    with Session.write(root, VOLUME, options) as session:
        files = session.files
        write_file(files, "before", _data(0, 1000))
        files.fsync()
        disk.fill()
        for number in range(3000):
            files.mkdir(1, b"%d" % number + b"x" * 200, 0o755, ROOT_USER)
        with pytest.raises((OSError, StoreError), match=r"(?i)no space|full") as caught:
            files.fsync()
        assert not isinstance(caught.value, OSError) or caught.value.errno in (errno.ENOSPC, errno.EIO)
        assert read_file(files, "before") == _data(0, 1000)
        write_file(files, "during", _data(1, 1000))
        expected = tree_of(files)
        with pytest.raises((OSError, StoreError)):
            session.commit()
        assert not root.has_volume(VOLUME)
        assert tree_of(files) == expected
        disk.clear()
        files.fsync()
    # Nothing has been committed: all of it comes from the journal.
    with Session.write(root, VOLUME, options) as session:
        assert tree_of(session.files) == expected
        session.commit()
    _require_newest(root, expected)


def test_closing_on_a_full_meta_dir(disk: _SmallDisk, tmp_path: Path) -> None:
    """What cannot be journalled is said when a session ends, and the volume is free for the next."""
    root = root_of(Place(tmp_path))
    options = SessionOptions(meta_dir=disk.directory / "meta", cache_dir=tmp_path / "cache")
    session = Session.write(root, VOLUME, options)
    write_file(session.files, "before", b"1")
    session.files.fsync()
    disk.fill()
    for number in range(3000):
        session.files.mkdir(1, b"%d" % number + b"x" * 200, 0o755, ROOT_USER)
    with pytest.raises((OSError, StoreError), match=r"(?i)no space|full"):
        session.close()
    session.close()
    disk.clear()
    with Session.write(root, VOLUME, options) as again:
        assert tree_of(again.files)["before"] == b"1"
        again.commit()


def test_closing_on_a_full_cache_dir(disk: _SmallDisk, tmp_path: Path) -> None:
    """What is staged in memory still and finds no room is lost with an error, and nothing else; the next may open."""
    root = root_of(Place(tmp_path))
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=disk.directory / "cache")
    session = Session.write(root, VOLUME, options)
    write_file(session.files, "before", b"1")
    session.files.fsync()
    disk.fill()
    for number in range(20):
        write_file(session.files, f"f{number}", _data(number, 5_000))
    with pytest.raises((OSError, StoreError), match=r"(?i)no space|full"):
        session.close()
    disk.clear()
    with Session.write(root, VOLUME, options) as again:
        assert read_file(again.files, "before") == b"1"
        again.commit()


def test_full_store(disk: _SmallDisk, tmp_path: Path) -> None:
    """A commit fails, publishes nothing and tears nothing; with room again it has everything."""
    root = root_of(Place(disk.directory))
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache")
    with Session.write(root, VOLUME, options) as session:
        write_file(session.files, "before", _data(0))
        session.commit()
        before, head = tree_of(session.files), root.head(VOLUME)
        write_file(session.files, "during", _data(1, 2_000_000))
        for leave in (0, 1 << 20):
            disk.fill(leave)
            with pytest.raises((OSError, StoreError), match=r"(?i)no space|full"):
                session.commit()
            assert root.head(VOLUME) == head
            _require_newest(root, before)
            disk.clear()
        # Somewhere here the data find room, and what names them does not yet.
        for slack in range(0, 64 << 10, 8 << 10):
            disk.fill(leave=2_000_000 + slack)
            try:
                session.commit()
            except (OSError, StoreError):
                assert root.head(VOLUME) == head
                _require_newest(root, before)
            else:
                _require_newest(root, tree_of(session.files))
                break
            finally:
                disk.clear()
        write_file(session.files, "after", _data(2))
        expected = tree_of(session.files)
        session.commit()
        _require_newest(root, expected)
