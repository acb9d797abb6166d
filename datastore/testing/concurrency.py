"""Many threads on one store: races have winners, readers see whole objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from datastore.errors import AlreadyExists, NotFound, PreconditionFailed, StoreError
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, Unseekable, content, names_below, needs
from datastore.testing.harness import Harness, Scale

__all__ = ["ConcurrencyTests"]

_RACERS = 32
_CREATE = WriteOptions(if_absent=True)


class ConcurrencyTests(KitTests):
    """A store may be used from any number of threads at once."""

    @needs(Feature.ATOMIC_CREATE)
    def test_exactly_one_create_wins(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Of 32 threads that create one object exactly one succeeds; the object is its, the others know they lost."""
        for number in range(harness.scale.rounds):
            ref = place.join(f"race-{number}")
            self._check_one_winner(store, ref, lambda data, ref=ref: store.write_bytes(ref, data, _CREATE))  # type: ignore[misc]

    @needs(Feature.ATOMIC_CREATE)
    def test_exactly_one_streamed_create_wins(self, store: Store, place: DataReference) -> None:
        """The same for sources of unknown size."""
        ref = place.join("race")
        self._check_one_winner(store, ref, lambda data: store.write_raw(ref, None, _CREATE, Unseekable(data)))

    @needs(Feature.CREATE_IF_ABSENT)
    def test_a_create_race_ends_whole(self, store: Store, place: DataReference) -> None:
        """Where creates may race, somebody still wins and the object is one of those written, whole."""
        ref = place.join("race")
        values = [content(2000, seed) for seed in range(8)]
        outcomes = _together([lambda data=data: store.write_bytes(ref, data, _CREATE) for data in values])  # type: ignore[misc]
        assert any(not isinstance(outcome, BaseException) for outcome in outcomes)
        assert all(isinstance(outcome, AlreadyExists) for outcome in outcomes if isinstance(outcome, BaseException))
        assert store.read_bytes(ref) in values

    @needs(Feature.REPLACE_IF_MATCH, Feature.ATOMIC_CREATE)
    def test_exactly_one_replacement_wins(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Of threads that replace the object they all saw exactly one succeeds."""
        ref = place.join("race")
        for _ in range(harness.scale.rounds):
            etag = store.write_bytes(ref, b"seen").etag
            values = [f"value {number}".encode() for number in range(_RACERS)]
            options = WriteOptions(if_match=etag)
            outcomes = _together([lambda data=data: store.write_bytes(ref, data, options) for data in values])  # type: ignore[misc]
            winners = [number for number, found in enumerate(outcomes) if not isinstance(found, BaseException)]
            losers = [found for found in outcomes if isinstance(found, BaseException)]
            assert 1 == len(winners), f"{len(winners)} winners"
            assert all(isinstance(error, PreconditionFailed) for error in losers), losers
            assert values[winners[0]] == store.read_bytes(ref)

    def test_writers_of_one_object(self, harness: Harness, store: Store, place: DataReference) -> None:
        """After many wrote one key it holds one of the values, whole, with the size and etag of that one."""
        ref = place.join("object")
        values = [content(1000 + 5000 * seed, seed) for seed in range(harness.scale.threads)]
        outcomes = _together(
            [lambda data=data: store.write_raw(ref, None, None, Unseekable(data, most=700)) for data in values]  # type: ignore[misc]
        )
        assert [] == [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        found, known = store.read_bytes(ref), store.head(ref)
        assert found in values
        assert (len(found), outcomes[values.index(found)].etag) == (known.size, known.etag)  # type: ignore[union-attr]
        assert ["object"] == names_below(store, place)

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
        assert [] == [outcome for outcome in outcomes if isinstance(outcome, BaseException)]

    def test_readers_never_see_a_write_that_fails(self, store: Store, place: DataReference) -> None:
        """While a write goes on that will fail in the end, its object is not there for anybody."""
        ref, seen = place.join("object"), []

        def look() -> None:
            seen.append((store.head(ref).exists, store.list(place)[0]))

        def pieces() -> object:
            for _ in range(3):
                yield content(400_000)
                look()
            raise KeyError("broken")

        outcomes = _together([lambda: store.write_raw(ref, None, None, pieces())])  # type: ignore[arg-type]
        assert isinstance(outcomes[0], KeyError)
        assert [(False, [])] * 3 == seen

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
                try:
                    store.read_raw(mine.join("nothing"))
                except NotFound as error:
                    assert str(mine.join("nothing")) == error.reference
                else:
                    raise AssertionError("an object of nobody was found")

        outcomes = _together([lambda thread=thread: work(thread) for thread in range(harness.scale.threads)])  # type: ignore[misc]
        assert [] == [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        kept = [f"{number:02}" for number in range(rounds) if number % 3 != 2]
        expected = [f"{thread:02}/{name}" for thread in range(harness.scale.threads) for name in (*kept, "copy")]
        assert expected == names_below(store, place.join("mixed"))

    def test_deleting_one_object_from_many_threads(self, store: Store, place: DataReference) -> None:
        """Deletes of one object do not fail each other."""
        ref = place.join("object")
        store.write_bytes(ref, b"1")
        outcomes = _together([lambda: store.delete(ref)] * 8)
        assert [None] * 8 == outcomes
        assert not store.head(ref).exists

    def test_neighbours_come_and_go(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Writing into a folder while others empty it never fails: folders are no objects."""
        rounds = 3 if harness.scale is Scale.SMALL else 20

        def work(thread: int) -> None:
            ref = place.join("folder", "deeper", str(thread))
            for _ in range(rounds):
                store.write_bytes(ref, b"1")
                store.delete(ref, missing_ok=False)

        outcomes = _together([lambda thread=thread: work(thread) for thread in range(8)])  # type: ignore[misc]
        assert [None] * 8 == outcomes
        assert [] == names_below(store, place)

    def _check_one_winner(self, store: Store, ref: DataReference, create: Callable[[bytes], object]) -> None:
        values = [f"value {number}".encode() for number in range(_RACERS)]
        outcomes = _together([lambda data=data: create(data) for data in values])  # type: ignore[misc]
        winners = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert 1 == len(winners), f"{len(winners)} winners: {winners}; losers: {losers[:3]}"
        assert all(isinstance(error, AlreadyExists) for error in losers), losers
        assert values[winners[0]] == store.read_bytes(ref)


def _together(tasks: list[Callable[[], object]]) -> list[object]:
    """Runs the tasks at the same moment, a thread each, and returns what each returned or raised."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> object:
        start.wait(60)
        try:
            return task()
        except (StoreError, AssertionError, LookupError) as error:
            return error

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))
