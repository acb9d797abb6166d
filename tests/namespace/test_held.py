"""Written data in memory: what is held back from the disk until it lies in blocks, and how much of it."""

import errno
import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowstore.chunks.patience import WouldWait, never_waiting
from stowstore.namespace.staging import StagedPart, StagingArea
from stowstore.namespace.staging_segments import Segment
from stowstore.namespace.staging_stretches import RetiredStretch, Stretch

MIB = 1 << 20


def read(parts: list[StagedPart]) -> bytes:
    return b"".join(part.source.read(part.start, part.length) for part in parts)


def written(directory: Path) -> int:
    """Bytes that segments take on the disk."""
    return sum(512 * path.stat().st_blocks for path in directory.glob("*.segment"))


@pytest.fixture
def area(tmp_path: Path) -> StagingArea:
    """An area that may hold 8 MiB, with nobody who would give any of it up."""
    made = StagingArea(tmp_path)
    made.hold(8 * MIB, lambda: False)
    return made


def test_what_is_given_up_in_time_never_reaches_the_disk(area: StagingArea, tmp_path: Path) -> None:
    """Large writes cost no file as long as no journal refers to them, whatever goes through memory."""
    for number in range(40):
        data = Random(number).randbytes(MIB)
        parts = area.append(data)
        assert read(parts) == data
        area.write_out(durable=True)
        del parts
    assert (list(tmp_path.glob("*.segment")), area.used <= 4 * MIB) == ([], True)
    area.begin_anew()
    assert area.used == 0


def test_data_of_any_size_read_back(area: StagingArea, tmp_path: Path) -> None:
    """In whole and in part, from memory and from the disk, also what is larger than memory may hold."""
    random = Random(3)
    sizes = (64 << 10, 100_000, 3 * MIB, 5 * MIB, 20 * MIB, 1)
    taken = [(data, area.append(memoryview(data))) for data in map(random.randbytes, sizes)]
    for _ in range(2):
        for data, parts in taken:
            assert read(parts) == data
            source, start, length = parts[0]
            assert source.read(start + length // 3, length // 2) == data[length // 3 : length // 3 + length // 2]
        for _, parts in taken:
            for part in parts:
                part.source.journal_reference(part.start, part.length)
        area.write_out(durable=True)
    assert written(tmp_path) >= sum(sizes) - 4096
    assert area.used == sum(sizes)
    del taken, data, parts, source, part
    area.begin_anew()


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=20),
    ranges=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20),
    writes_down=st.booleans(),
)
def test_any_range_of_a_stretch(sizes: list[int], ranges: list[tuple[float, float]], writes_down: bool) -> None:
    """It is read as the bytes that were appended, wherever its pieces end, in memory and from its segment."""
    segment = Segment(bytes(16), os.memfd_create("segment"), None, None, deque(), set())
    stretch = Stretch(lambda asking: (segment, segment.reserve(asking.size)), set(), deque())
    whole = b"".join(Random(size).randbytes(size) for size in sizes)
    at = 0
    for size in sizes:
        assert stretch.append(whole[at : at + size]) == at
        at += size
    if writes_down:
        segment.reserve(77)
        stretch.place = (segment, segment.reserve(stretch.size))
        assert (stretch.write_down(), stretch.write_down()) == (len(whole), 0)
    for first, second in ranges:
        start, stop = sorted((int(first * len(whole)), int(second * len(whole))))
        assert stretch.read(start, stop - start) == whole[start:stop] if start < stop else True


def test_memory_is_bounded(area: StagingArea, tmp_path: Path) -> None:
    """Beyond the bound the oldest data are on the disk, read as before, and gone with their last reference."""
    kept = [area.append(Random(number).randbytes(MIB)) for number in range(40)]
    assert area.held <= 8 * MIB
    assert written(tmp_path) >= 32 * MIB
    assert all(read(parts) == Random(number).randbytes(MIB) for number, parts in enumerate(kept))
    del kept
    area.begin_anew()
    assert (area.used, area.held) == (0, 0)
    assert list(tmp_path.glob("*.segment")) == []


def test_a_writer_waits_for_what_is_about_to_be_given_up(tmp_path: Path) -> None:
    """Then nothing goes to the disk, and whoever must not wait is told so."""
    area = StagingArea(tmp_path)
    kept: deque[list[StagedPart]] = deque()
    area.hold(8 * MIB, lambda: bool(kept))
    for _ in range(2):
        kept.append(area.append(bytes(4 * MIB)))
    with never_waiting(), pytest.raises(WouldWait):
        area.append(bytes(MIB))

    def give_up() -> None:
        kept.popleft()
        area.given_up()

    timer = threading.Timer(0.1, give_up)
    timer.start()
    more = area.append(bytes(MIB))
    timer.join()
    assert (len(more), list(tmp_path.glob("*.segment"))) == (1, [])


def test_a_writer_waits_no_longer_than_it_helps(tmp_path: Path) -> None:
    """Where data are to be given up and are not, they go to the disk after a moment."""
    area = StagingArea(tmp_path)
    area.hold(8 * MIB, lambda: True)
    kept = [area.append(Random(number).randbytes(MIB)) for number in range(9)]
    assert written(tmp_path) >= 4 * MIB
    assert read(kept[0]) == Random(0).randbytes(MIB)


def test_a_full_disk_loses_nothing(area: StagingArea) -> None:
    """A writer for whom there is no room is refused; what is in memory stays, and is written when there is room."""
    asked = threading.Event()
    area.on_full = asked.set
    small = area.append(b"x" * 5000)
    kept = [area.append(Random(number).randbytes(4 * MIB)) for number in range(2)]
    segment = small[0].source
    assert isinstance(segment, Segment)
    disk, full = os.dup(segment.descriptor), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, segment.descriptor)
    for _ in range(2):
        asked.clear()
        with pytest.raises(OSError, match="No space") as raised:
            area.append(bytes(MIB))
        assert (raised.value.errno, asked.is_set()) == (errno.ENOSPC, True)
    references = [part.source.journal_reference(part.start, part.length) for parts in kept for part in parts]
    with pytest.raises(OSError, match="No space"):
        area.write_out(durable=True)
    # That journal is not written; the next one asks again.
    references = [part.source.journal_reference(part.start, part.length) for parts in kept for part in parts]
    os.dup2(disk, segment.descriptor)
    os.close(full)
    os.close(disk)
    assert [read(parts) for parts in kept] == [Random(number).randbytes(4 * MIB) for number in range(2)]
    area.write_out(durable=True)
    found = [area.find(reference) for reference in references]
    assert [part.source.read(part.start, part.length) for part in found if part] == [read(parts) for parts in kept]


_CRASH = """
import os, signal, sys
from pathlib import Path
from random import Random
from stowstore.namespace.staging import StagingArea
area = StagingArea(Path(sys.argv[1]))
area.hold(8 << 20, lambda: False)
kept = [area.append(Random(number).randbytes(1 << 20)) for number in range(6)]
references = [part.source.journal_reference(part.start, part.length) for part in kept[1]]
area.write_out(durable=True)
print(*(f"{r.pack.hex()} {r.offset} {r.length}" for r in references), sep="\\n", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_journal_refers_to_outlives_the_process(tmp_path: Path) -> None:
    """Once it is written out; what no journal refers to is not asked for."""
    killed = subprocess.run([sys.executable, "-c", _CRASH, str(tmp_path)], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    (line,) = killed.stdout.splitlines()
    pack, offset, length = line.split()
    again = StagingArea(tmp_path)
    segment = again._recoverable[bytes.fromhex(pack)]
    assert segment.has(int(offset), int(length))
    assert segment.read(int(offset), int(length)) == Random(1).randbytes(MIB)


def test_a_stretch_says_when_it_is_gone() -> None:
    """Only one that was never written down: the room of others is their segment's."""
    retired: deque[RetiredStretch] = deque()
    segment = Segment(bytes(16), os.memfd_create("segment"), None, None, deque(), set())
    for writes_down in (True, False):
        stretch = Stretch(lambda asking: (segment, segment.reserve(asking.size)), set(), retired)
        stretch.append(b"abc")
        if writes_down:
            stretch.place = (segment, segment.reserve(3))
            stretch.write_down()
        del stretch
    assert list(retired) == [RetiredStretch(3, has_place=False)]
