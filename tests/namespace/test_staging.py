"""The staging area: written data on the local disk until a commit."""

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from pathlib import Path
from random import Random

import pytest

from datastore.errors import ConfigError
from stowstore.chunks.block import BlockRef
from stowstore.namespace.staging import JOURNAL_CODEC, StagedPart, StagingArea
from stowstore.namespace.staging_segments import RetiredSegment, Segment

MIB = 1 << 20


def read(parts: list[StagedPart]) -> bytes:
    return b"".join(part.source.read(part.start, part.length) for part in parts)


def references(parts: list[StagedPart]) -> list[BlockRef]:
    """What a journal keeps of parts."""
    return [part.source.journal_reference(part.start, part.length) for part in parts]


def files(directory: Path) -> int:
    return len(list(directory.glob("*.segment")))


@pytest.fixture(params=["disk", "memory"])
def area(request: pytest.FixtureRequest, tmp_path: Path) -> StagingArea:
    """An area with segments of 4 MiB and room for 16."""
    directory = tmp_path if request.param == "disk" else None
    return StagingArea(directory, max_bytes=16 * MIB, segment_bytes=4 * MIB, patience=0.2)


def test_data_read_back_as_written(area: StagingArea) -> None:
    """Pieces of any size are read back at once, before and after they are written out, whole and in part."""
    random = Random(1)
    taken = [
        (data, area.append(data))
        for data in (random.randbytes(random.choice([1, 5000, 300_000, 5 * MIB])) for _ in range(9))
    ]
    for _ in range(2):
        for data, parts in taken:
            assert read(parts) == data
            segment, start, length = parts[0]
            assert segment.read(start + length // 3, length // 2) == data[length // 3 : length // 3 + length // 2]
        area.write_out(durable=True)


def test_a_directory_is_synced_for_the_files_made_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each, since it costs as much as to sync the data; and again where that has failed."""
    synced: list[Path] = []
    failures = [OSError(errno.EIO, "the disk is broken")]

    def sync(directory: Path) -> None:
        if synced and failures:
            raise failures.pop()
        synced.append(directory)

    monkeypatch.setattr("stowstore.namespace.staging.sync_directory", sync)
    area = StagingArea(tmp_path / "staging")

    def taken_and_synced() -> int:
        held.append(area.append(b"x" * 5000))
        area.write_out(durable=False)
        area.write_out(durable=True)
        return len(synced)

    held: list[list[StagedPart]] = []
    assert [1, 1] == [taken_and_synced() for _ in range(2)]
    area.begin_anew()
    with pytest.raises(OSError, match="broken"):
        taken_and_synced()
    assert [2, 2] == [taken_and_synced() for _ in range(2)]
    references([part for parts in held for part in parts])
    area.close()
    held.clear()
    # Another process does not know whether the former had come to it.
    area = StagingArea(tmp_path / "staging")
    for _ in range(2):
        area.write_out(durable=True)
        assert len(synced) == 3
    area.close()


def test_neighbours_in_time_are_neighbours_in_a_segment(area: StagingArea) -> None:
    """Small pieces that follow each other lie back to back, so that their extents join."""
    parts = [area.append(bytes([number]) * 4096)[0] for number in range(100)]
    assert {part.source for part in parts} == {parts[0].source}
    assert [part.start for part in parts] == list(range(0, 409600, 4096))


def test_what_nobody_wants_is_deleted(tmp_path: Path) -> None:
    """A segment goes when the last part of it does, and its room with it."""
    area = StagingArea(tmp_path, segment_bytes=MIB)
    first = area.append(b"a" * MIB)
    second = area.append(b"b" * MIB)
    area.append(b"c")
    assert (files(tmp_path), area.used) == (3, 2 * MIB + 1)
    first.clear()
    assert (files(tmp_path), area.used) == (2, MIB + 1)
    assert read(second) == b"b" * MIB


def test_a_full_area_refuses_after_waiting(area: StagingArea) -> None:
    """Without room a writer gets ENOSPC, nothing is kept of its data, and what is there stays readable."""
    kept = [area.append(bytes([number]) * 4 * MIB) for number in range(4)]
    with pytest.raises(OSError, match="staged") as raised:
        area.append(b"x" * MIB)
    assert raised.value.errno == errno.ENOSPC
    assert area.used == 16 * MIB
    assert [read(parts)[0] for parts in kept] == [0, 1, 2, 3]
    kept.pop()
    assert read(area.append(b"x" * MIB)) == b"x" * MIB


def test_a_writer_waits_for_room(area: StagingArea) -> None:
    """A writer goes on as soon as whoever is asked to has given up staged data."""
    area.patience = 30.0
    kept = [area.append(bytes([number]) * 4 * MIB) for number in range(4)]
    asked = threading.Event()
    area.on_full = asked.set
    found: list[bytes] = []
    writer = threading.Thread(target=lambda: found.append(read(area.append(b"x" * MIB))))
    writer.start()
    assert asked.wait(10)
    assert not found
    kept.clear()
    writer.join(10)
    assert found == [b"x" * MIB]


def test_what_a_journal_is_about_to_refer_to_outlives_its_last_extent(tmp_path: Path) -> None:
    """Whoever moves data into blocks meanwhile does not take them from a journal that has been encoded already."""
    area = StagingArea(tmp_path)
    kept = {size: area.append(bytes([size % 251]) * size) for size in (5000, 300_000)}
    area.hold(8 * MIB, lambda: False)
    kept[400_000] = area.append(bytes([400_000 % 251]) * 400_000)
    taken = {size: references(parts) for size, parts in kept.items()}
    kept.clear()
    area.write_out(durable=True)
    area.close()
    again = StagingArea(tmp_path)
    for size, refs in taken.items():
        found = [part for part in map(again.find, refs) if part is not None]
        assert read(found) == bytes([size % 251]) * size
    again.close()


def test_many_writers_at_once(area: StagingArea) -> None:
    """Threads that write at the same time get their own bytes back."""
    wrong: list[int] = []

    def work(number: int) -> None:
        random = Random(number)
        kept = [
            (data, area.append(data))
            for data in (random.randbytes(random.choice([10, 4096, 400_000])) for _ in range(12))
        ]
        wrong.extend(number for data, parts in kept if read(parts) != data)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_full_disk_is_told_and_nothing_torn(tmp_path: Path) -> None:
    """When the disk takes no more, the writer is told; earlier data stay, and the rest works once there is room."""
    script = """
import errno, resource, signal, sys
from pathlib import Path
from stowstore.namespace.staging import StagingArea
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
area = StagingArea(Path(sys.argv[1]), segment_bytes=64 << 20)
kept = area.append(b"a" * (2 << 20)) + area.append(b"small")
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, limits[1]))
for size in (2 << 20, 2 << 20):
    try:
        area.append(b"b" * size)
    except OSError as error:
        assert error.errno == errno.EFBIG, error
    else:
        raise SystemExit("no error")
assert area.used == (2 << 20) + 5, area.used
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
kept += area.append(b"c" * (2 << 20))
assert b"".join(p.source.read(p.start, p.length) for p in kept) == b"a" * (2 << 20) + b"small" + b"c" * (2 << 20)
refs = [p.source.journal_reference(p.start, p.length) for p in kept]
area.write_out(durable=True)
area.close()
again = StagingArea(Path(sys.argv[1]))
found = [again.find(ref) for ref in refs]
assert b"".join(p.source.read(p.start, p.length) for p in found) == b"a" * (2 << 20) + b"small" + b"c" * (2 << 20)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_the_error_of_a_full_device_is_enospc(tmp_path: Path) -> None:
    """ENOSPC of the disk reaches the writer as it is."""
    area = StagingArea(tmp_path)
    kept = area.append(b"a" * 10)
    full = os.open("/dev/full", os.O_RDWR)
    disk = os.dup(kept[0].source.descriptor)
    os.dup2(full, kept[0].source.descriptor)
    with pytest.raises(OSError, match="No space") as raised:
        area.append(b"b" * MIB)
    assert raised.value.errno == errno.ENOSPC
    os.dup2(disk, kept[0].source.descriptor)
    assert read(kept) == b"a" * 10
    assert read(area.append(b"b" * MIB)) == b"b" * MIB
    os.close(full)
    os.close(disk)


def test_a_killed_process_leaves_what_was_written_out(tmp_path: Path) -> None:
    """After SIGKILL the next process finds by the journal's references what was written out, and sweeps the rest."""
    script = """
import os, signal, sys
from pathlib import Path
from stowstore.namespace.staging import StagingArea
area = StagingArea(Path(sys.argv[1]), segment_bytes=1 << 20)
kept = [area.append(bytes([n]) * (300_000 + n)) for n in range(20)]
area.write_out(durable=False)
for parts in kept[::2]:
    for part in parts:
        reference = part.source.journal_reference(part.start, part.length)
        print(reference.pack_bytes().hex(), part.source.read(part.start, 1)[0])
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    area = StagingArea(tmp_path)
    wanted = [
        (BlockRef.unpack(bytes.fromhex(ref)), int(value)) for ref, value in map(str.split, ended.stdout.splitlines())
    ]
    keeping = [wanted[0], wanted[3]]
    found = [(area.find(ref), value) for ref, value in keeping]
    area.sweep()
    for part, value in found:
        assert part is not None
        assert read([part]) == bytes([value]) * part.length
    assert files(tmp_path) == len({ref.pack for ref, _ in keeping})


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_data_are_never_served(tmp_path: Path, damage: str) -> None:
    """What a crash has left is proved by its checksum: a flipped, short or missing segment is an error."""
    area = StagingArea(tmp_path)
    refs = references(area.append(b"a" * 500_000))
    area.close()
    del area
    gc.collect()
    (path,) = tmp_path.glob("*.segment")
    if damage == "flip":
        with path.open("r+b") as file:
            file.seek(250_000)
            file.write(b"b")
    elif damage == "cut":
        os.truncate(path, 400_000)
    else:
        path.unlink()
    again = StagingArea(tmp_path)
    with pytest.raises(OSError, match=refs[0].pack.hex()) as raised:
        again.find(refs[0])
    assert raised.value.errno == errno.EIO


def test_an_area_left_unread_keeps_everything(tmp_path: Path) -> None:
    """Opening and closing an area without asking for anything deletes nothing."""
    area = StagingArea(tmp_path)
    refs = references(area.append(b"a" * 1000))
    area.close()
    StagingArea(tmp_path).close()
    again = StagingArea(tmp_path)
    part = again.find(refs[0])
    assert part is not None
    assert read([part]) == b"a" * 1000


def test_journalled_data_wait_for_the_next_batch(tmp_path: Path) -> None:
    """What a journal may refer to outlives its last extent, until a later batch is known to be there."""
    area = StagingArea(tmp_path, segment_bytes=MIB)
    parts = area.append(b"a" * MIB)
    references(parts)
    area.write_out(durable=False)
    area.append(b"b")
    early = area.checkpoint()
    parts.clear()
    assert files(tmp_path) == 2
    area.reclaim(early)
    assert files(tmp_path) == 2
    assert area.used == MIB + 1
    area.reclaim(area.checkpoint())
    assert files(tmp_path) == 1
    assert area.used == 1


def test_references_of_others_are_unknown(tmp_path: Path) -> None:
    """A reference that is no journal's stands for nothing; a journal's to another area's data is an error."""
    area = StagingArea(tmp_path)
    assert area.find(BlockRef(bytes(16), 0, 5, 5, 0, bytes(32))) is None
    with pytest.raises(OSError, match="journal"):
        area.find(BlockRef(bytes(16), 0, 0, 5, JOURNAL_CODEC, bytes(32)))


def test_a_directory_has_one_area(tmp_path: Path) -> None:
    """A second area of a directory is refused while the first is open."""
    area = StagingArea(tmp_path)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        StagingArea(tmp_path)
    area.close()
    StagingArea(tmp_path).close()
    with pytest.raises(OSError, match="closed"):
        area.append(b"late")


def test_a_forked_child_deletes_nothing(tmp_path: Path) -> None:
    """Segments belong to the process that made them: what a child drops stays."""
    area = StagingArea(tmp_path, segment_bytes=MIB)
    parts = area.append(b"a" * MIB)
    child = os.fork()
    if not child:
        parts.clear()
        del area
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read(parts) == b"a" * MIB
    assert files(tmp_path) == 1


def test_a_segment_that_is_found_while_it_ends_writes_to_no_other_file(tmp_path: Path) -> None:
    """A thread that gets hold of a segment by a weak reference while another finalises it uses its own descriptors."""
    found: list[Segment] = []

    class Finder(deque[RetiredSegment]):
        def append(self, item: RetiredSegment) -> None:
            held = reference()
            assert held is not None
            found.append(held)
            super().append(item)

    paths = [tmp_path / "one.segment", tmp_path / "one.sums"]
    files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in paths]
    segment = Segment(bytes(16), files[0], files[1], paths[0], Finder(), set())
    reference = weakref.ref(segment)
    segment.append(memoryview(b"small"))
    del segment
    others = [os.open(tmp_path / f"other-{number}", os.O_RDWR | os.O_CREAT, 0o600) for number in range(2)]

    found[0].write_out(durable=True)

    assert [0, 0] == [os.fstat(descriptor).st_size for descriptor in others]
    assert not any(path.exists() for path in paths)
    found.clear()
    for descriptor in files:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)
    for descriptor in others:
        os.close(descriptor)
