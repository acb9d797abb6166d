"""Writing to local files: all of it, at whatever place, in pieces."""

import errno
import os
from pathlib import Path

import pytest

from stowstore.disk_writes import WRITE_BYTES, write_all
from tests.chunks.chunk_stores import noise


@pytest.mark.parametrize("size", [0, 1, WRITE_BYTES, WRITE_BYTES + 1, 3 * WRITE_BYTES + 5])
@pytest.mark.parametrize("offset", [None, 0, 12_345])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_everything_is_written(tmp_path: Path, size: int, offset: int | None, kind: type) -> None:
    """Whatever the size and the kind of memory; without an offset where the file stands, which then moves."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, b"before")
        write_all(descriptor, kind(noise(size)), offset)
        at = 6 if offset is None else offset
        assert os.pread(descriptor, size + 1, at)[:size] == noise(size)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == (6 + size if offset is None else 6)
    finally:
        os.close(descriptor)


def test_what_is_taken_in_part_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that is nearly full takes some of it, and says that it is full only when it is asked again."""
    taken: list[bytes] = []

    def pwrite(_: int, data: bytes, offset: int) -> int:
        if len(taken) == 3:
            raise OSError(errno.ENOSPC, "full")
        taken.append(bytes(data[:1000]))
        assert offset == 500 + 1000 * (len(taken) - 1)
        return len(taken[-1])

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="full"):
        write_all(-1, noise(5000), 500)
    assert b"".join(taken) == noise(5000)[:3000]


def test_no_write_is_larger_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is slower with more where a virtual machine has given free memory back."""
    sizes: list[int] = []

    def write(_: int, data: bytes) -> int:
        sizes.append(len(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    write_all(-1, noise(2 * WRITE_BYTES + 7))
    assert sizes == [WRITE_BYTES, WRITE_BYTES, 7]
