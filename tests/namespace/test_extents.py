"""Extent maps: where the bytes of one file lie."""

from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stowstore.chunks.block import BlockRef
from stowstore.index.keys import extents_key
from stowstore.index.records import (
    EXTENT_BYTES,
    INLINE_EXTENTS,
    CorruptRecord,
    Extent,
    InodeRecord,
    pack_extents,
    unpack_extents,
)
from stowstore.namespace.extents import END, WINDOW_BYTES, ExtentMap, Move, Piece, unpack_window
from stowstore.namespace.interfaces import Scan

PAGE = WINDOW_BYTES // 16
INO = 7


class Staged:
    """Something that holds bytes, as segments do."""

    def __init__(self, number: int) -> None:
        self.number = number

    def journal_reference(self, start: int, length: int) -> BlockRef:
        return BlockRef(self.number.to_bytes(16, "big"), start, 0, length, 0xFF, bytes(32))


def block(number: int) -> BlockRef:
    """A full block of its own."""
    return BlockRef(number.to_bytes(16, "big"), 0, WINDOW_BYTES, WINDOW_BYTES, 0, number.to_bytes(32, "big"))


def holds(extents: ExtentMap, pages: dict[int, tuple[object, int]]) -> None:
    """Checks a map against pages: the source and the place in it of each that is no hole."""
    found = {}
    end = 0
    for offset, length, skip, source in extents.pieces(0, END):
        assert offset >= end
        assert length > 0
        assert offset // WINDOW_BYTES == (offset + length - 1) // WINDOW_BYTES
        end = offset + length
        for at in range(0, length, PAGE):
            found[(offset + at) // PAGE] = source, skip + at
    assert found == pages
    assert extents.allocated == len(pages) * PAGE
    assert extents.staged == any(isinstance(source, Staged) for source, _ in pages.values())


class Machine(RuleBasedStateMachine):
    """Any sequence of changes, forks, commits and reopenings leaves what a table of pages says."""

    SIZE = 64

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[bytes, bytes] = {}
        self.record = InodeRecord(0o100644, 0, 0, 1, 0, 0, 0, 0, 0)
        self.extents = ExtentMap()
        self.pages: dict[int, tuple[object, int]] = {}
        self.number = 0
        self.scanned = 0

    def scan(self, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self.stored):
            if key >= start and (stop is None or key < stop):
                self.scanned += 1
                yield key, self.stored[key]

    def load(self) -> ExtentMap:
        if self.record.many_extents:
            return ExtentMap.stored(INO, self.scan, self.record.allocated)
        return ExtentMap(map(Piece._make, unpack_extents(self.record.extents)))

    @rule(page=st.integers(0, SIZE - 1), count=st.integers(1, 20), staged=st.booleans())
    def write(self, page: int, count: int, staged: bool) -> None:
        self.number += 1
        if staged:
            source: object = Staged(self.number)
            self.extents.put(page * PAGE, count * PAGE, 3 * PAGE, source)
            skip = 3
        else:
            count = min(count, 16)
            source, skip = block(self.number), 0
            self.extents.put(page * PAGE, count * PAGE, 0, source)
        for at in range(count):
            self.pages[page + at] = source, (skip + at) * PAGE

    @rule(page=st.integers(0, SIZE + 20))
    def truncate(self, page: int) -> None:
        self.extents.drop(page * PAGE, END)
        self.pages = {at: place for at, place in self.pages.items() if at < page}

    @rule(page=st.integers(0, SIZE), count=st.integers(0, 40))
    def punch(self, page: int, count: int) -> None:
        self.extents.drop(page * PAGE, (page + count) * PAGE)
        self.pages = {at: place for at, place in self.pages.items() if not page <= at < page + count}

    @rule(start=st.integers(0, SIZE), page=st.integers(0, SIZE), count=st.integers(1, 20))
    def clone(self, start: int, page: int, count: int) -> None:
        pieces = list(self.extents.pieces(start * PAGE, (start + count) * PAGE))
        self.extents.share(pieces, page * PAGE, (page + count) * PAGE, (page - start) * PAGE)
        taken = {at - start + page: self.pages[at] for at in range(start, start + count) if at in self.pages}
        self.pages = {at: place for at, place in self.pages.items() if not page <= at < page + count} | taken

    @rule(page=st.integers(0, SIZE), later=st.booleans())
    def commit(self, page: int, later: bool) -> None:
        """A fork becomes the version below, while the live map goes on."""
        fork = self.extents.fork()
        before = dict(self.pages)
        if later:
            self.write(page, 3, True)
        places: dict[int, tuple[object, int]] = {}
        for offset, length, skip, source in list(fork.pieces(0, END)):
            if isinstance(source, Staged):
                self.number += 1
                fork.moves.append(Move(offset, length, skip, source, 0, block(self.number)))
                for at in range(0, length, PAGE):
                    places[(offset + at) // PAGE] = block(self.number), at
        fork.move(fork.moves)
        holds(fork, before | places)
        encoded = fork.encode(INO)
        for key, value in encoded.changes.items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value
        assert encoded.many or not self.stored
        self.record = InodeRecord(
            0o100644,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            extents=encoded.inline,
            many_extents=encoded.many,
            allocated=fork.allocated,
        )
        holds(self.load(), before | places)
        self.extents.move(fork.moves)
        self.extents.rebase(fork)
        for at, place in places.items():
            if self.pages.get(at) == before[at]:
                self.pages[at] = place

    @rule()
    def reopen(self) -> None:
        """What is not committed is gone, and the rest is read again as it is needed."""
        if not self.extents.staged:
            self.commit(0, later=False)
            self.extents = self.load()

    @rule(page=st.integers(0, SIZE + 10))
    def seek(self, page: int) -> None:
        stop = (self.SIZE + 40) * PAGE
        following = sorted(at for at in self.pages if at >= page)
        assert self.extents.next_data(page * PAGE, stop) == (following[0] * PAGE if following else None)
        hole = page
        while hole in self.pages:
            hole += 1
        assert self.extents.next_hole(page * PAGE, stop) == hole * PAGE

    @rule(page=st.integers(0, SIZE), count=st.integers(0, 30))
    def covered(self, page: int, count: int) -> None:
        expected = sum(page <= at < page + count for at in self.pages) * PAGE
        assert self.extents.covered(page * PAGE, count * PAGE) == expected

    def teardown(self) -> None:
        holds(self.extents, self.pages)

    @invariant()
    def counted(self) -> None:
        assert self.extents.allocated == len(self.pages) * PAGE


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase


def test_what_is_not_loaded_outlives_the_records_it_would_be_read_from() -> None:
    """A fork that has come to fit into one record takes the others away; the map it is of still has all they held."""
    machine = Machine()
    for page in (0, 2, 4, 20, 40):
        machine.write(page, 1, False)
    machine.reopen()
    machine.truncate(22)
    machine.commit(0, False)
    assert not machine.record.many_extents
    holds(machine.extents, machine.pages)


def scattered(count: int, gap: int = 2 * WINDOW_BYTES) -> tuple[dict[bytes, bytes], list[int]]:
    """Records of a file that has one small extent every ``gap`` bytes, and a list that counts what is read."""
    extents = ExtentMap()
    for number in range(count):
        extents.put(number * gap, 4096, 0, block(number))
    changes = extents.encode(INO).changes
    return {key: value for key, value in changes.items() if value is not None}, []


def counting(stored: dict[bytes, bytes], reads: list[int]) -> Scan:
    keys = sorted(stored)

    def scan(start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        for key in keys[bisect_left(keys, start) : len(keys) if stop is None else bisect_left(keys, stop)]:
            reads.append(1)
            yield key, stored[key]

    return scan


def test_one_overwrite_changes_one_record() -> None:
    """A small overwrite in the middle of a file of 2,560 blocks changes one record of a few hundred bytes."""
    extents = ExtentMap()
    for number in range(2560):
        extents.put(number * WINDOW_BYTES, WINDOW_BYTES, 0, block(number))
    first = extents.encode(INO)
    assert first.many
    assert len(first.changes) == 2560
    stored = {key: value for key, value in first.changes.items() if value is not None}
    reads: list[int] = []
    opened = ExtentMap.stored(INO, counting(stored, reads), extents.allocated)
    opened.put(1000 * WINDOW_BYTES + 12345, 4096, 0, block(5000))
    changes = opened.encode(INO).changes
    assert list(changes) == [extents_key(INO, 1000 * WINDOW_BYTES)]
    assert [len(value or b"") for value in changes.values()] == [3 * EXTENT_BYTES]
    assert len(reads) < 70


def test_touching_a_file_of_many_extents_reads_a_batch() -> None:
    """Reading, writing and asking for data in a file of 100,000 extents reads some dozens of records."""
    stored, reads = scattered(100_000)
    extents = ExtentMap.stored(INO, counting(stored, reads), 100_000 * 4096)
    middle = 50_000 * 2 * WINDOW_BYTES
    assert [piece.offset for piece in extents.pieces(middle, middle + 4096)] == [middle]
    assert extents.next_data(middle + 4096, END) == middle + 2 * WINDOW_BYTES
    extents.put(middle + 4096, 4096, 0, block(1))
    assert len(reads) < 150
    assert len(extents.encode(INO).changes) == 1


def test_emptying_reads_no_record_and_deletes_all() -> None:
    """A file of many extents is emptied without reading them; encoding deletes every record."""
    stored, reads = scattered(1000)
    extents = ExtentMap.stored(INO, counting(stored, reads), 1000 * 4096)
    extents.drop(0, END)
    assert (extents.allocated, len(reads)) == (0, 0)
    extents.put(0, 4096, 0, block(1))
    encoded = extents.encode(INO)
    assert not encoded.many
    assert encoded.changes == dict.fromkeys(stored)


@pytest.mark.parametrize("size", [10**15, 1 << 62])
def test_giant_sizes_cost_nothing(size: int) -> None:
    """A truncate to 10^15 bytes and a hole of petabytes keep a map of one extent as it is."""
    extents = ExtentMap()
    extents.put(0, 4096, 0, block(1))
    extents.drop(size, END)
    extents.drop(4096, size)
    extents.put(size, 4096, 0, block(2))
    assert [piece.offset for piece in extents.pieces(0, END)] == [0, size]
    assert extents.next_hole(0, END) == 4096
    assert extents.next_data(4096, END) == size


def test_neighbours_join() -> None:
    """Extents that continue each other in file and source are one, up to the end of a window."""
    source = Staged(1)
    extents = ExtentMap()
    for at in range(0, 2 * WINDOW_BYTES, PAGE):
        extents.put(at, PAGE, at, source)
    assert list(extents.pieces(0, END)) == [
        Piece(0, WINDOW_BYTES, 0, source),
        Piece(WINDOW_BYTES, WINDOW_BYTES, WINDOW_BYTES, source),
    ]


def test_few_extents_stay_in_the_inode() -> None:
    """Up to INLINE_EXTENTS extents are inline; one more gives them records of their own."""
    extents = ExtentMap()
    for number in range(INLINE_EXTENTS):
        extents.put(number * 2 * PAGE, PAGE, 0, block(number))
    encoded = extents.encode(INO)
    assert (len(encoded.inline), encoded.many, encoded.changes) == (INLINE_EXTENTS * EXTENT_BYTES, False, {})
    extents.put(100 * PAGE, PAGE, 0, block(9))
    encoded = extents.encode(INO)
    assert (encoded.inline, encoded.many, len(encoded.changes)) == (b"", True, 2)


def test_staged_data_never_reach_a_version() -> None:
    """Extents that are staged refuse to be encoded for a version."""
    extents = ExtentMap()
    extents.put(0, 10, 0, Staged(1))
    with pytest.raises(RuntimeError, match="staged"):
        extents.encode(INO)


@given(noise=st.binary(max_size=400), offset=st.integers(0, 1 << 40))
def test_hostile_records_are_refused(noise: bytes, offset: int) -> None:
    """A record either is refused or has extents in its own window."""
    try:
        found = list(unpack_window(offset, noise))
    except CorruptRecord:
        return
    assert all(offset <= piece.offset < offset + WINDOW_BYTES for piece in found)


@pytest.mark.parametrize(
    ("offset", "pieces"),
    [
        (PAGE, [Piece(PAGE, 10, 0, block(1))]),
        (0, [Piece(WINDOW_BYTES - 5, 10, 0, block(1))]),
        (WINDOW_BYTES, [Piece(0, 10, 0, block(1))]),
        (0, []),
    ],
)
def test_extents_outside_their_window_are_refused(offset: int, pieces: list[Piece]) -> None:
    """A record under an unaligned key, or whose extents lie elsewhere, is corrupt."""
    with pytest.raises(CorruptRecord):
        list(unpack_window(offset, pack_extents([Extent(*piece) for piece in pieces])))  # type: ignore[arg-type]


def test_forking_a_large_file_shares_its_extents() -> None:
    """Many forks of a file of 50,000 extents take the room of one."""
    extents = ExtentMap()
    for number in range(50_000):
        extents.put(number * 2 * PAGE, PAGE, 0, block(number))
    forks = [extents.fork() for _ in range(100)]
    leaves = {id(leaf) for fork in forks for leaf in fork._leaves}
    assert leaves == {id(leaf) for leaf in extents._leaves}
    forks[0].put(PAGE, PAGE, 0, Staged(1))
    assert not extents.staged
    assert len({id(leaf) for fork in forks for leaf in fork._leaves} - leaves) == 1
