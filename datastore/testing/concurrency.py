"""Many threads on one store: races have winners, readers see whole objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest

from datastore.errors import AlreadyExists, NotFound, PreconditionFailed
from datastore.model import Feature, Metadata, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, Unseekable, content, names_below, needs
from datastore.testing.harness import Harness, Scale

__all__ = ["ConcurrencyTests"]

T = TypeVar("T")

_RACERS = 32
_CREATE = WriteOptions(if_absent=True)


class ConcurrencyTests(KitTests):
    """A store may be used from any number of threads at once."""

    @needs(Feature.ATOMIC_CREATE)
    def test_exactly_one_create_wins(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Of 32 threads that create one object exactly one succeeds; the object is its, the others know they lost."""
        for number in range(harness.scale.rounds):
            ref = place.join(f"race-{number}")
            _check_one_winner(store, ref, partial(_create, store, ref))

    @needs(Feature.ATOMIC_CREATE)
    def test_exactly_one_streamed_create_wins(self, store: Store, place: DataReference) -> None:
        """The same for sources of unknown size."""
        ref = place.join("race")
        _check_one_winner(store, ref, lambda data: store.write_raw(ref, None, _CREATE, Unseekable(data)))

    @needs(Feature.CREATE_IF_ABSENT)
    def test_a_create_race_ends_whole(self, store: Store, place: DataReference) -> None:
        """Where creates may race, somebody still wins and the object is one of those written, whole."""
        ref = place.join("race")
        values = [content(2000, seed) for seed in range(8)]
        outcomes = _together([partial(store.write_bytes, ref, data, _CREATE) for data in values])
        winners, losers = _split(outcomes)
        assert winners
        assert all(isinstance(error, AlreadyExists) for error in losers), losers
        assert store.read_bytes(ref) in values

    @needs(Feature.REPLACE_IF_MATCH, Feature.ATOMIC_CREATE)
    def test_exactly_one_replacement_wins(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Of threads that replace the object they all saw exactly one succeeds."""
        ref = place.join("race")
        for _ in range(harness.scale.rounds):
            etag = store.write_bytes(ref, b"seen").etag
            values = [f"value {number}".encode() for number in range(_RACERS)]
            options = WriteOptions(if_match=etag)
            outcomes = _together([partial(store.write_bytes, ref, data, options) for data in values])
            winners, losers = _split(outcomes)
            assert len(winners) == 1, f"{len(winners)} winners"
            assert all(isinstance(error, PreconditionFailed) for error in losers), losers
            assert [values[number] for number in winners] == [store.read_bytes(ref)]

    def test_writers_of_one_object(self, harness: Harness, store: Store, place: DataReference) -> None:
        """After many wrote one key it holds one of the values, whole, with the size and etag of that one."""
        ref = place.join("object")
        values = [content(1000 + 5000 * seed, seed) for seed in range(harness.scale.threads)]
        outcomes = _together([partial(store.write_raw, ref, None, None, Unseekable(data, most=700)) for data in values])
        written, failed = _split(outcomes)
        assert failed == []
        found, known = store.read_bytes(ref), store.head(ref)
        assert found in values
        assert (len(found), written[values.index(found)].etag) == (known.size, known.etag)
        assert names_below(store, place) == ["object"]

    def test_readers_see_old_or_new(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Readers during overwrites see one of the values whole: never a mixture, never a part, never nothing."""
        ref = place.join("object")
        values = [content(200_000, 1), content(150_000, 2)]
        store.write_bytes(ref, values[0])
        writes = 10 if harness.scale is Scale.SMALL else 40
        done = threading.Event()

        def write() -> None:
            try:
                for number in range(writes):
                    store.write_bytes(ref, values[number % 2])
            finally:
                done.set()

        def read() -> int:
            rounds = 0
            while not (done.is_set() and rounds):
                try:
                    assert store.read_bytes(ref) in values
                except PreconditionFailed:
                    # Several requests for one read may notice that the object changed: honest, and nothing mixed.
                    pass
                assert store.head(ref).size in {len(value) for value in values}
                assert [ref] == store.list(place)[0]
                rounds += 1
            return rounds

        outcomes = _together([write, read, read, read])
        assert _split(outcomes)[1] == []

    def test_readers_never_see_a_write_that_fails(self, store: Store, place: DataReference) -> None:
        """While a write goes on that will fail in the end, its object is not there for anybody."""
        ref = place.join("object")
        seen: list[tuple[bool, list[DataReference]]] = []

        def look() -> None:
            seen.append((store.head(ref).exists, store.list(place)[0]))

        def pieces() -> Iterator[bytes]:
            for _ in range(3):
                yield content(400_000)
                look()
            raise KeyError("broken")

        outcomes = _together([lambda: store.write_raw(ref, None, None, pieces())])
        assert isinstance(outcomes[0], KeyError)
        assert seen == [(False, [])] * 3

    def test_everything_at_once(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Threads that write, read, list, copy and delete their own objects never see another's, nor lose theirs."""
        rounds = 3 if harness.scale is Scale.SMALL else 10

        def work(thread: int) -> None:
            mine = place.join("mixed", f"{thread:02}")
            for number in range(rounds):
                data = content(500 + thread * 37 + number, thread * 1000 + number)
                ref = mine.join(f"{number:02}")
                written = store.write_bytes(ref, data)
                assert data == store.read_bytes(ref)
                assert (len(data), written.etag) == (store.head(ref).size, store.head(ref).etag)
                store.copy_raw(ref, mine.join("copy"))
                assert data == store.read_bytes(mine.join("copy"))
                if number % 3 == 2:
                    store.delete(ref)
                kept = [f"{done:02}" for done in range(number + 1) if done % 3 != 2]
                assert [*kept, "copy"] == names_below(store, mine, 3)
                with pytest.raises(NotFound) as refused:
                    store.read_raw(mine.join("nothing"))
                assert str(mine.join("nothing")) == refused.value.reference

        outcomes = _together([partial(work, thread) for thread in range(harness.scale.threads)])
        assert _split(outcomes)[1] == []
        kept = [f"{number:02}" for number in range(rounds) if number % 3 != 2]
        expected = [f"{thread:02}/{name}" for thread in range(harness.scale.threads) for name in (*kept, "copy")]
        assert expected == names_below(store, place.join("mixed"))

    def test_deleting_one_object_from_many_threads(self, store: Store, place: DataReference) -> None:
        """Deletes of one object do not fail each other."""
        ref = place.join("object")
        store.write_bytes(ref, b"1")
        outcomes = _together([lambda: store.delete(ref)] * 8)
        assert outcomes == [None] * 8
        assert not store.head(ref).exists

    def test_neighbours_come_and_go(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Writing into a folder while others empty it never fails: folders are no objects."""
        rounds = 3 if harness.scale is Scale.SMALL else 20

        def work(thread: int) -> None:
            ref = place.join("folder", "deeper", str(thread))
            for _ in range(rounds):
                store.write_bytes(ref, b"1")
                store.delete(ref, missing_ok=False)

        outcomes = _together([partial(work, thread) for thread in range(8)])
        assert outcomes == [None] * 8
        assert names_below(store, place) == []


def _check_one_winner(store: Store, ref: DataReference, create: Callable[[bytes], object]) -> None:
    values = [f"value {number}".encode() for number in range(_RACERS)]
    winners, losers = _split(_together([partial(create, data) for data in values]))
    assert len(winners) == 1, f"{len(winners)} winners: {sorted(winners)}; losers: {losers[:3]}"
    assert all(isinstance(error, AlreadyExists) for error in losers), losers
    assert [values[number] for number in winners] == [store.read_bytes(ref)]


def _create(store: Store, ref: DataReference, data: bytes) -> Metadata:
    return store.write_bytes(ref, data, _CREATE)


def _together(tasks: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Runs the tasks at the same moment, a thread each, and returns what each returned or raised."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T | Exception:
        start.wait(60)
        try:
            return task()
        except Exception as error:  # noqa: BLE001 - the test looks at every one of them
            return error

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def _split(outcomes: Sequence[T | Exception]) -> tuple[dict[int, T], list[Exception]]:
    """What succeeded, by its number, and what failed."""
    succeeded = {number: outcome for number, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)}
    return succeeded, [outcome for outcome in outcomes if isinstance(outcome, Exception)]
