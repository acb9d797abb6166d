"""``stowstore bench PATH``: how fast a directory is, mounted or not."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from attrs import frozen

from datastore.errors import LimitExceeded
from stowstore.cli.output import size_text

__all__ = ["PathRow", "measure_path"]

_PAGE = 4096
_PIECE = 1 << 20


@frozen
class PathRow:
    """One measurement of a directory."""

    what: str
    operations: int
    seconds: float
    per_second: float
    throughput: str


def measure_path(path: Path, small: int, large: int) -> Iterator[PathRow]:
    """Small files and one large file, in a directory of their own that is removed afterwards.

    Raises:
        LimitExceeded: they do not fit.
        OSError: the directory cannot be written.
    """
    try:
        work = Path(tempfile.mkdtemp(prefix="stowstore-bench-", dir=path))
        try:
            yield from _small(work, small)
            yield from _large(work, large)
        finally:
            shutil.rmtree(work)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = size_text(max(small * _PAGE, large))
            raise LimitExceeded(
                f"{path} has no room for {needed}: {error.strerror}", hint="--small and --large take less"
            ) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _small(work: Path, count: int) -> Iterator[PathRow]:
    data = os.urandom(_PAGE)
    names = [f"{work}/{number}" for number in range(count)]

    def create(name: str) -> None:
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            _write(descriptor, data)
        finally:
            os.close(descriptor)

    def read(name: str) -> None:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.read(descriptor, _PAGE)
        finally:
            os.close(descriptor)

    steps: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("create 4 KiB", create),
        ("stat", os.stat),
        ("open and read 4 KiB", read),
        ("stat absent", lambda name: os.path.exists(f"{name}-absent")),
        ("rename", lambda name: os.rename(name, f"{name}x")),
        ("unlink", lambda name: os.unlink(f"{name}x")),
    )
    for what, step in steps:
        began = perf_counter()
        for name in names:
            step(name)
        yield _row(what, count, perf_counter() - began, None)


def _large(work: Path, size: int) -> Iterator[PathRow]:
    data = os.urandom(_PIECE)
    pieces = max(size // _PIECE, 1)
    descriptor = os.open(work / "large", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        began = perf_counter()
        for _ in range(pieces):
            _write(descriptor, data)
        yield _row("write 1 MiB", pieces, perf_counter() - began, pieces * _PIECE)
        began = perf_counter()
        os.fsync(descriptor)
        yield _row("fsync", 1, perf_counter() - began, None)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(descriptor, 0, os.SEEK_SET)
        began = perf_counter()
        while os.read(descriptor, _PIECE):
            pass
        yield _row("read 1 MiB, cold kernel", pieces, perf_counter() - began, pieces * _PIECE)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    # What is nearly full takes a part.
    if os.write(descriptor, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _row(what: str, count: int, seconds: float, size: int | None) -> PathRow:
    rate = f"{size_text(size / seconds)}/s" if size is not None and seconds else ""
    return PathRow(what, count, seconds, count / seconds if seconds else 0.0, rate)
