"""A volume that is full behaves as a tmpfs of its size: it is filled to the byte, and then says ENOSPC."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowstore.mounts import control
from stowstore.mounts.options import MountOptions
from stowstore.versions.errors import VolumeError
from tests.mounting.places import Place

_KIB = 1 << 10
_SIZE = 1536 * _KIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of the same size."""
    directory = tmp_path / "tmpfs"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", directory], check=True, timeout=20)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True, timeout=20)


def _mounted(place: Place, kernel_cache: str) -> Path:
    volume = place.volume()
    with volume.blocking as files:
        files.set_limits(limit_bytes=_SIZE)
        volume.blocking.commit("limited")
    return place.mount(volume, options=MountOptions(kernel_cache=kernel_cache))


def _used(path: Path) -> int:
    used: int = control.ask(path, "usage")["used_bytes"]
    return used


def _by_dd(directory: Path) -> object:
    """As operators fill a file system."""
    done = subprocess.run(
        ["dd", "if=/dev/urandom", f"of={directory}/f", "bs=1M"], check=False, capture_output=True, timeout=60
    )
    return done.returncode, b"No space left" in done.stderr


def _written(directory: Path, flags: int, pieces: list[tuple[int, int]]) -> list[int]:
    """How much was written of each length at an offset; error numbers are negative."""
    found = []
    descriptor = os.open(directory / "f", os.O_CREAT | os.O_RDWR | flags, 0o644)
    try:
        for number, (offset, length) in enumerate(pieces):
            try:
                found.append(os.pwrite(descriptor, bytes([number + 1]) * length, offset))
            except OSError as error:
                found.append(-(error.errno or 0))
    finally:
        os.close(descriptor)
    return found


def _python(mode: str, length: int) -> Callable[[Path], object]:
    def write(directory: Path) -> object:
        (directory / "f").touch()
        with pytest.raises(OSError, match="No space") as caught, open(directory / "f", mode) as file:
            file.write(b"p" * length)
        return caught.value.errno

    return write


_FILLINGS: dict[str, Callable[[Path], object]] = {
    "dd": _by_dd,
    "larger than all": lambda at: _written(at, 0, [(0, 5 * _SIZE), (_SIZE, 1), (_SIZE, 5 * _SIZE)]),
    "larger than what is left": lambda at: _written(at, 0, [(0, 1024 * _KIB), (1024 * _KIB, 1024 * _KIB), (_SIZE, 1)]),
    "appended": lambda at: _written(at, os.O_APPEND, [(0, 1024 * _KIB), (0, 1024 * _KIB), (0, 1)]),
    "over what is there": lambda at: _written(at, 0, [(0, _SIZE), (0, _SIZE), (4 * _KIB, 2 * _SIZE), (_SIZE, 1)]),
    "into holes": lambda at: _written(at, 0, [(2 * _SIZE, 1024 * _KIB), (0, _SIZE), (0, 64 * _KIB), (_SIZE, 4096)]),
    "as a buffered file": _python("wb", 2 * _SIZE + 1),
    "as a file that is updated": _python("r+b", 2 * _SIZE + 1),
    "as a file that is appended to": _python("ab", 2 * _SIZE + 1),
}


@pytest.mark.parametrize("filling", _FILLINGS)
def test_a_volume_is_filled_to_the_byte(place: Place, small: Path, filling: str) -> None:
    """Counts, errors, sizes and content are those of tmpfs, and a file that is removed leaves its room."""
    path = _mounted(place, "writethrough")
    for _ in range(2):
        expected = _FILLINGS[filling](small)
        assert expected == _FILLINGS[filling](path)
        assert (small / "f").stat().st_size == (path / "f").stat().st_size
        assert _SIZE == _used(path)
        if filling != "dd":
            assert (small / "f").read_bytes() == (path / "f").read_bytes()
        (small / "f").unlink()
        (path / "f").unlink()


@pytest.mark.parametrize("closes", [False, True])
def test_what_the_kernel_has_cached_is_never_lost_in_silence(place: Place, closes: bool) -> None:
    """It takes writes before there is room for them: then fsync and close fail, and what fitted is there."""
    path = _mounted(place, "writeback")
    data = os.urandom(3 * _SIZE)
    descriptor = os.open(path / "f", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        assert len(data) == os.write(descriptor, data)
    finally:
        if not closes:
            with pytest.raises(OSError, match="No space"):
                os.fsync(descriptor)
            os.close(descriptor)
        else:
            with pytest.raises(OSError, match="No space"):
                os.close(descriptor)
    assert _SIZE == _used(path)
    (path / "f").unlink()
    (path / "g").write_bytes(data[:_SIZE])
    assert data[:_SIZE] == (path / "g").read_bytes()


@pytest.mark.parametrize("kernel_cache", ["writethrough", "writeback"])
def test_a_mapping_that_does_not_fit_says_so_when_synced(place: Place, kernel_cache: str) -> None:
    """Pages that were written through a mapping come from the kernel's cache in either mode."""
    path = _mounted(place, kernel_cache)
    with open(path / "f", "w+b") as file:
        file.truncate(2 * _SIZE)
        with mmap.mmap(file.fileno(), 2 * _SIZE) as mapped:
            mapped[:] = os.urandom(2 * _SIZE)
            with pytest.raises(OSError, match="No space") as caught:
                mapped.flush()
    assert errno.ENOSPC == caught.value.errno
    assert _SIZE == _used(path)


@pytest.mark.parametrize("kernel_cache", ["writethrough", "writeback"])
def test_direct_writes_are_taken_whole_or_refused(place: Place, kernel_cache: str) -> None:
    """They pass the kernel's cache by in either mode; it has no way to tell of one that was cut short."""
    path = _mounted(place, kernel_cache)
    size = 1024 * _KIB
    with mmap.mmap(-1, size) as data:
        data[:] = os.urandom(size)
        descriptor = os.open(path / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
        try:
            assert size == os.write(descriptor, data)
            with pytest.raises(OSError, match="No space"):
                os.write(descriptor, data)
            assert (size, size) == (os.fstat(descriptor).st_size, _used(path))
            with memoryview(data)[: _SIZE - size] as piece:
                assert _SIZE - size == os.write(descriptor, piece)
        finally:
            os.close(descriptor)
        assert data[:] + data[: _SIZE - size] == (path / "f").read_bytes()
    assert _SIZE == _used(path)


def test_a_mount_whose_journal_is_full_is_not_taken_away(place: Place, small: Path) -> None:
    """What is not committed would end with it; it can be read meanwhile, and is kept as soon as there is room."""
    volume = place.volume()
    path = place.mount(volume, meta_dir=small / "meta")
    _by_dd(small)
    for number in range(2000):
        (path / f"{number:0200}").touch()
    with pytest.raises(VolumeError, match=r"stays mounted: what is not committed cannot be written"):
        volume.blocking.unmount()
    assert len(os.listdir(path)) == 2000
    (small / "f").unlink()
    volume.blocking.unmount()
    assert len(os.listdir(place.mount(volume, meta_dir=small / "meta"))) == 2000
