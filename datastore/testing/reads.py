"""What ``read_raw`` hands out: whole objects, ranges, limits, and streams that behave like files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import zip_longest

import pytest

from datastore.errors import LimitExceeded, NotFound, PreconditionFailed
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, content
from datastore.testing.harness import Harness

__all__ = ["ReadTests"]

_SIZE = 1000
_LIMIT = 1 << 20

#: Start, length, and the slice of the object they mean.
_RANGES: list[tuple[int, int | None, slice]] = [
    (0, None, slice(0, None)),
    (0, _SIZE, slice(0, None)),
    (0, 1, slice(0, 1)),
    (1, 1, slice(1, 2)),
    (10, 20, slice(10, 30)),
    (_SIZE - 1, 1, slice(-1, None)),
    (_SIZE - 1, None, slice(-1, None)),
    (500, None, slice(500, None)),
    # past the end: clipped, or empty
    (500, _SIZE, slice(500, None)),
    (0, 10 * _SIZE, slice(0, None)),
    (_SIZE, None, slice(_SIZE, None)),
    (_SIZE, 1, slice(_SIZE, None)),
    (_SIZE + 1, None, slice(_SIZE, None)),
    (10 * _SIZE, 10, slice(_SIZE, None)),
    # nothing asked for
    (0, 0, slice(0, 0)),
    (10, 0, slice(0, 0)),
    (-10, 0, slice(0, 0)),
    # from the end
    (-1, None, slice(-1, None)),
    (-10, None, slice(-10, None)),
    (-10, 3, slice(-10, -7)),
    (-10, 10, slice(-10, None)),
    (-10, 100, slice(-10, None)),
    (-_SIZE, None, slice(0, None)),
    (-_SIZE - 1, None, slice(0, None)),
    (-10 * _SIZE, 5, slice(0, 5)),
]


class ReadTests(KitTests):
    """Reading returns exactly the bytes asked for, or an error that says why not."""

    @pytest.fixture
    def thousand(self, store: Store, place: DataReference) -> DataReference:
        """An object of 1,000 bytes."""
        ref = place.join("thousand")
        store.write_bytes(ref, content(_SIZE))
        return ref

    def test_reading_the_whole_object(self, store: Store, thousand: DataReference) -> None:
        """Without a range the stream yields the object, and its metadata say what head says."""
        with store.read_raw(thousand) as stream:
            assert stream.size == _SIZE
            assert content(_SIZE) == stream.read()
            assert stream.read() == b""
            assert stream.position == _SIZE
            assert store.head(thousand).etag == stream.metadata.etag

    @pytest.mark.parametrize(("start", "length", "meant"), _RANGES)
    def test_reading_ranges(
        self, store: Store, thousand: DataReference, start: int, length: int | None, meant: slice
    ) -> None:
        """A range is clipped to the object; the stream knows its own size and that of the whole object."""
        expected = content(_SIZE)[meant]
        with store.read_raw(thousand, start, length) as stream:
            assert len(expected) == stream.size
            assert expected == stream.read()
            assert stream.metadata.size == _SIZE

    @pytest.mark.parametrize("start", [0, 1, -1, 100])
    def test_reading_ranges_of_an_empty_object(self, store: Store, place: DataReference, start: int) -> None:
        """Every range of nothing is empty."""
        ref = place.join("empty")
        store.write_bytes(ref, b"")
        assert store.read_bytes(ref, start) == b""
        assert store.read_bytes(ref, start, 5) == b""

    def test_a_negative_length_is_refused(self, store: Store, thousand: DataReference) -> None:
        """Minus one is not "everything"."""
        with pytest.raises(ValueError, match="length"):
            store.read_raw(thousand, 0, -1)

    def test_reading_nothing_is_not_found(self, store: Store, place: DataReference) -> None:
        """A missing object is a FileNotFoundError when it is opened, ranges and empty ranges included."""
        for start, length in ((0, None), (10, 5), (0, 0), (-3, None)):
            with pytest.raises(NotFound):
                store.read_raw(place.join("nothing"), start, length)

    def test_reading_in_a_missing_container_is_not_found(self, store: Store, missing_container: DataReference) -> None:
        """So is an object in a container that is not there."""
        with pytest.raises(NotFound):
            store.read_raw(missing_container.join("nothing"))

    def test_reading_if_the_etag_matches(self, store: Store, thousand: DataReference) -> None:
        """The etag of head opens the object, with its quotes too; another one, and that of an old object, do not."""
        etag = store.head(thousand).etag
        for spelling in (etag, f'"{etag}"'):
            with store.read_raw(thousand, 5, 10, if_match=spelling) as stream:
                assert content(_SIZE)[5:15] == stream.read()
        with pytest.raises(PreconditionFailed):
            store.read_raw(thousand, if_match="0123456789abcdef")
        store.write_bytes(thousand, b"new")
        with pytest.raises(PreconditionFailed):
            store.read_raw(thousand, if_match=etag)

    def test_the_download_limit(self, harness: Harness, place: DataReference) -> None:
        """Exactly the limit passes, one byte more does not; ranges count by their own size, and a call may differ."""
        exact, over = place.join("exact"), place.join("over")
        with harness.open_store(max_download_bytes=_LIMIT) as limited:
            limited.write_bytes(exact, content(_LIMIT))
            limited.write_bytes(over, content(_LIMIT + 1))
            assert content(_LIMIT) == limited.read_bytes(exact)
            with pytest.raises(LimitExceeded) as refused:
                limited.read_raw(over)
            assert f"{_LIMIT + 1}" in str(refused.value)
            assert f"{_LIMIT} " in str(refused.value)
            assert content(_LIMIT + 1)[1:] == limited.read_bytes(over, 1)
            for override in (0, _LIMIT + 1):
                with limited.read_raw(over, max_bytes=override) as stream:
                    assert content(_LIMIT + 1) == stream.read()
            with pytest.raises(LimitExceeded):
                limited.read_raw(exact, max_bytes=_LIMIT - 1)
            assert limited.head(over).size == _LIMIT + 1
            limited.copy_raw(over, place.join("copied"))
            assert limited.head(place.join("copied")).size == _LIMIT + 1
            limited.delete_many([exact, over, place.join("copied")])

    def test_a_limit_for_one_call(self, store: Store, thousand: DataReference) -> None:
        """A call may bring its own limit to a store without one; a negative one is refused."""
        with store.read_raw(thousand, max_bytes=_SIZE) as stream:
            assert content(_SIZE) == stream.read()
        with pytest.raises(LimitExceeded):
            store.read_raw(thousand, max_bytes=_SIZE - 1)
        with pytest.raises(ValueError, match="max_bytes"):
            store.read_raw(thousand, max_bytes=-1)

    @pytest.mark.parametrize("step", [1, 7, 333, 999, 1000, 1001])
    def test_reading_in_steps(self, store: Store, thousand: DataReference, step: int) -> None:
        """Steps of any size add up to the object; none is longer than asked for."""
        with store.read_raw(thousand) as stream:
            pieces = list(iter(lambda: stream.read(step), b""))
        assert content(_SIZE) == b"".join(pieces)
        assert max(map(len, pieces)) <= step

    def test_reading_in_other_ways(self, store: Store, thousand: DataReference) -> None:
        """readinto, iteration, read(None), read(0) and mixtures yield the same bytes."""
        with store.read_raw(thousand) as stream:
            assert stream.read(0) == b""
            buffer = bytearray(100)
            count = stream.readinto(buffer)
            assert 0 < count <= 100
            first = bytes(buffer[:count]) + stream.read(1)
            assert content(_SIZE) == first + stream.read(None)
            assert stream.readinto(buffer) == 0
        with store.read_raw(thousand) as stream:
            assert content(_SIZE) == b"".join(stream)

    def test_streams_are_files(self, store: Store, place: DataReference) -> None:
        """A stream stands under the standard library's buffered and text readers."""
        text = "".join(f"line {number} ü\n" for number in range(300))
        ref = place.join("text")
        store.write_bytes(ref, text.encode())
        lines = text.splitlines(keepends=True)
        with store.read_raw(ref) as stream, stream.buffered(100) as reader:
            assert lines[0].encode() == reader.readline()
            assert lines[1][:4].encode() == reader.peek(4)[:4]
            assert [line.encode() for line in lines[1:]] == list(reader)
        with store.read_raw(ref) as stream, io.TextIOWrapper(stream.buffered(), encoding="utf-8") as wrapped:
            assert lines == list(wrapped)

    def test_closing_early(self, store: Store, place: DataReference, harness: Harness) -> None:
        """A stream may be closed at any point; it then reads no more, and the store goes on."""
        ref = place.join("early")
        data = content(harness.scale.large)
        store.write_bytes(ref, data)
        for wanted in (0, 1, 100_000):
            stream = store.read_raw(ref)
            assert data[:wanted].startswith(stream.read(wanted))
            stream.close()
            stream.close()
            assert stream.closed
            with pytest.raises(ValueError, match="closed"):
                stream.read(1)
        assert data[:10] == store.read_bytes(ref, 0, 10)

    def test_reading_twice(self, store: Store, thousand: DataReference) -> None:
        """Reading takes nothing away."""
        assert content(_SIZE) == store.read_bytes(thousand) == store.read_bytes(thousand)

    def test_two_streams_of_one_object(self, store: Store, place: DataReference) -> None:
        """Streams read in turns do not disturb each other."""
        ref = place.join("shared")
        data = content(300_000)
        store.write_bytes(ref, data)
        with store.read_raw(ref) as one, store.read_raw(ref, 1000) as other:
            found: tuple[list[bytes], list[bytes]] = ([], [])
            for first, second in zip_longest(_steps(one.read), _steps(other.read), fillvalue=b""):
                found[0].append(first)
                found[1].append(second)
        assert data == b"".join(found[0])
        assert data[1000:] == b"".join(found[1])

    def test_a_stream_outlives_what_happens_to_its_object(self, store: Store, place: DataReference) -> None:
        """A stream opened before an overwrite yields the old object whole, or fails; it never mixes the two."""
        ref = place.join("moving")
        old, new = content(3 << 20, 1), content(3 << 20, 2)
        store.write_bytes(ref, old)
        with store.read_raw(ref) as stream:
            start = stream.read(1000)
            store.write_bytes(ref, new)
            try:
                found = start + stream.read()
            except (PreconditionFailed, NotFound, ConnectionError):
                return
        assert found in (old, new)


def _steps(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(10_007):
        yield piece
