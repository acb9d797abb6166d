"""Faults on order come when and where they were ordered, and are counted."""

import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datastore import CancelToken, DataReference, MemoryStore, cancellable, deadline
from datastore.errors import Cancelled, DeadlineExceeded, Throttled, TransientError
from datastore.metric_names import Operation
from datastore.protocol import Store
from datastore.wrappers.faulty import BreakStream, Delay, FaultyStore, Raise, Rule, Stall, Truncate, When

REF = DataReference("mem://c/dir/k")
OTHER = DataReference("mem://c/other")
DATA = bytes(range(200))


def faulty(*rules: Rule, seed: int = 0) -> FaultyStore:
    """A store of one object with faults."""
    memory = MemoryStore()
    memory.write_bytes(REF, DATA)
    return FaultyStore(memory, rules, seed=seed)


def outcomes(store: Store, calls: int) -> list[bool]:
    """Which of so many heads succeed."""

    def succeeds() -> bool:
        try:
            store.head(REF)
        except TransientError:
            return False
        return True

    return [succeeds() for _ in range(calls)]


@pytest.mark.parametrize(
    ("operation", "call", "done"),
    [
        (Operation.WRITE, lambda store: store.write_bytes(REF, b"new"), lambda m: m.read_bytes(REF) == b"new"),
        (Operation.DELETE, lambda store: store.delete(REF), lambda m: not m.exists(REF)),
        (Operation.DELETE_MANY, lambda store: store.delete_many([OTHER, REF]), lambda m: not m.exists(REF)),
        (Operation.COPY, lambda store: store.copy_raw(REF, OTHER), lambda m: m.exists(OTHER)),
    ],
)
@pytest.mark.parametrize("when", When)
def test_an_error_comes_before_or_after_the_effect(
    operation: Operation, call: Callable[[Store], object], done: Callable[[Store], bool], when: When
) -> None:
    """After it the answer is lost, but the work is done."""
    store = faulty(Rule(Raise(Throttled, when=when), operations=[operation]))
    with pytest.raises(Throttled, match=when.value):
        call(store)
    assert done(store.inner) is (when is When.AFTER)
    assert (store.calls[operation], store.fired.total()) == (1, 1)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(Raise()), [False] * 5),
        (Rule(Raise(), nth=2), [True, False, True, True, True]),
        (Rule(Raise(), times=2), [False, False, True, True, True]),
        (Rule(Raise(), operations=[Operation.READ]), [True] * 5),
        (Rule(Raise(), keys="dir/*"), [False] * 5),
        (Rule(Raise(), keys="other"), [True] * 5),
        (Rule(Raise(), probability=0), [True] * 5),
    ],
)
def test_a_rule_says_which_calls_it_means(rule: Rule, expected: list[bool]) -> None:
    """By operation, key, number, and how often."""
    store = faulty(rule)
    assert outcomes(store, 5) == expected
    assert store.fired[rule] == expected.count(False)


def test_equal_seeds_give_equal_faults() -> None:
    """And others give others."""
    rule = Rule(Raise(), probability=0.5)
    first = outcomes(faulty(rule, seed=1), 50)
    assert first == outcomes(faulty(rule, seed=1), 50)
    assert first != outcomes(faulty(rule, seed=2), 50)
    assert 10 < first.count(False) < 40


@pytest.mark.parametrize("fault", [BreakStream(after=70), Truncate(after=70)])
def test_a_read_stream_breaks_where_it_was_told(fault: Any) -> None:
    """Neither earlier nor later; a truncated answer is an error too."""
    store = faulty(Rule(fault, operations=[Operation.READ]))
    with store.read_raw(REF, 10) as stream:
        assert stream.read(50) + stream.read(20) == DATA[10:80]
        with pytest.raises(TransientError, match="after 70"):
            stream.read(1)


def test_a_write_breaks_while_its_source_is_read() -> None:
    """The source has been read so far, the object is untouched."""
    store = faulty(Rule(BreakStream(after=5), operations=[Operation.WRITE]))
    source = io.BytesIO(b"0123456789")
    with pytest.raises(TransientError, match="after 5 bytes"):
        store.write_raw(REF, None, None, source)
    assert source.tell() == 5
    assert store.inner.read_bytes(REF) == DATA


def test_a_stall_ends_with_the_deadline() -> None:
    """Of the context the call or the stream belongs to."""
    store = faulty(Rule(Stall(), operations=[Operation.HEAD]), Rule(Stall(after=3), operations=[Operation.READ]))
    with deadline(0.02), pytest.raises(DeadlineExceeded):
        store.head(REF)
    with deadline(0.05):
        stream = store.read_raw(REF)
    assert stream.read(3) == DATA[:3]
    with stream, pytest.raises(DeadlineExceeded):
        stream.read(1)


def test_a_stall_ends_with_cancellation_and_with_release() -> None:
    """Released stores do not stall again."""
    store = faulty(Rule(Stall(), operations=[Operation.LIST]))
    token = CancelToken()
    with ThreadPoolExecutor(2) as pool:

        def cancelled() -> None:
            with cancellable(token):
                store.list("mem://c")

        stalled = [pool.submit(cancelled), pool.submit(store.list, "mem://c")]
        token.cancel()
        assert isinstance(stalled[0].exception(), Cancelled)
        store.release()
        assert stalled[1].result()[0] == [REF]
    assert store.list("mem://c")[0] == [REF]


def test_a_delay_lets_other_rules_look_too() -> None:
    """It honours the deadline without sleeping it out."""
    store = faulty(Rule(Delay(0.001)), Rule(Raise()))
    assert outcomes(store, 1) == [False]
    assert store.fired.total() == 2
    slow = faulty(Rule(Delay(1000)))
    with deadline(1), pytest.raises(DeadlineExceeded):
        slow.head(REF)


def test_counts_are_exact_under_threads() -> None:
    """A rule of the nth call fires once, whoever makes it."""
    rule = Rule(Raise(), nth=500)
    store = faulty(rule)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: outcomes(store, 100), range(8)))
    assert sum(row.count(False) for row in found) == 1
    assert store.calls[Operation.HEAD] == 800


def test_rules_can_be_added_and_cleared() -> None:
    """Counts stay."""
    store = faulty()
    store.add(Rule(Raise()))
    assert outcomes(store, 1) == [False]
    store.clear()
    assert outcomes(store, 1) == [True]
    assert store.calls[Operation.HEAD] == 2


def test_it_can_be_pickled() -> None:
    """For tests with workers; what it counted comes along."""

    store = FaultyStore(_Picklable(), [Rule(Raise(), nth=2)])
    store.head(REF)
    other = pickle.loads(pickle.dumps(store))
    assert other.calls[Operation.HEAD] == 1
    other.release()


class _Picklable(MemoryStore):
    def __reduce__(self) -> Any:
        return _Picklable, ()
