"""How the files of an import are read: in order, and by threads where that is slow."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from stowstore.transfer import reading
from stowstore.transfer.progress import TransferReport
from stowstore.transfer.reading import Found, Read, read_files, walk_directory


class _Pool(ThreadPoolExecutor):
    """Counts what it was given to do."""

    submitted = 0

    def submit(self, *task, **more):  # type: ignore[no-untyped-def]
        self.submitted += 1
        return super().submit(*task, **more)


def _read(source: Path) -> tuple[list[Read], int]:
    report = TransferReport()
    with _Pool(4) as pool:
        found = list(read_files(walk_directory(str(source), report), report, pool))
    assert not report.skipped
    return found, pool.submitted


def _make_files(source: Path, count: int) -> list[tuple[str, bytes]]:
    made = []
    for number in range(count):
        path = source / f"{number // 100:02}" / f"{number:04}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number)
        made.append((str(path), b"%d" % number))
    return made


@pytest.mark.parametrize(("slow", "tasks"), [(float("inf"), 0), (-1.0, 5)], ids=["fast", "slow"])
def test_files_come_in_order_whoever_reads_them(
    slow: float, tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads read where a file takes long, and nothing else does; content and order are the same."""
    made = _make_files(tmp_path, 350)
    monkeypatch.setattr(reading, "_SLOW", slow)
    found, submitted = _read(tmp_path)
    assert made == [(read.found.path, read.content) for read in found if read.content is not None]
    assert all(read.failure is None for read in found)
    assert tasks == submitted


def test_reading_is_tried_again_after_a_spell_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was slow may be fast further on: threads read so many batches and no more before that is tried."""
    made = _make_files(tmp_path, 640)
    verdicts = chain([1.0], iter(lambda: 0.0, None))
    monkeypatch.setattr(reading, "median", lambda _: next(verdicts))
    monkeypatch.setattr(reading, "_SPELL", 2)
    found, submitted = _read(tmp_path)
    assert [path for path, _ in made] == [read.found.path for read in found if read.content is not None]
    assert submitted == 2


def test_what_has_become_a_link_is_not_followed(tmp_path: Path) -> None:
    """A listing is old when it is read: a regular file that has been replaced since is taken as what it is."""
    (tmp_path / "secret").write_bytes(b"elsewhere")
    report = TransferReport()
    (tmp_path / "link").symlink_to("secret")
    found = Found(os.fspath(tmp_path / "link"), (), b"link", is_regular=True)
    with ThreadPoolExecutor(1) as pool:
        (read,) = read_files(iter([found]), report, pool)
    assert read.status is not None
    assert os.lstat(tmp_path / "link").st_ino == read.status.st_ino
    assert read.content is None


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    """A file that is deleted between listing and reading has no status but a reason."""
    report = TransferReport()
    found = Found(os.fspath(tmp_path / "gone"), (), b"gone", is_regular=True)
    with ThreadPoolExecutor(1) as pool:
        (read,) = read_files(iter([found]), report, pool)
    assert read.status is None
    assert isinstance(read.failure, FileNotFoundError)


def test_a_file_that_has_become_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """What was listed as a regular file is taken for what it is when it is read; nobody ever writes into this one."""
    (tmp_path / "f").write_bytes(b"regular")
    report = TransferReport()
    listed = list(walk_directory(str(tmp_path), report))
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    with ThreadPoolExecutor(1) as pool:
        [read] = read_files(iter(listed), report, pool)
    assert read.status is not None
    assert stat.S_ISFIFO(read.status.st_mode)
    assert (None, None) == (read.content, read.failure)
