"""Deadlines and cancellation that travel with the caller's context."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import (
    CancelToken,
    DataReference,
    MemoryStore,
    SignedURLProperties,
    cancellable,
    context,
    deadline,
    remaining,
)
from datastore.errors import Cancelled, DeadlineExceeded, StoreError

REF = DataReference("mem://c/k")


def test_without_limits_nothing_is_bounded() -> None:
    """And checking costs one look-up."""
    assert remaining() is None
    assert context.current_limits() is None
    context.check()


def test_a_deadline_holds_inside_its_block() -> None:
    """Counting down, never below zero."""
    with deadline(100) as limits:
        assert 99 < (remaining() or 0) <= 100
        assert context.current_limits() is limits
    assert remaining() is None
    with deadline(0):
        assert remaining() == 0
        with pytest.raises(DeadlineExceeded, match="deadline of 0 s"):
            context.check()


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=6))
def test_of_nested_deadlines_the_nearest_end_holds(seconds: list[float]) -> None:
    """An inner block can only shorten."""

    def enter(left: list[float]) -> None:
        if left:
            with deadline(left[0]):
                enter(left[1:])
        else:
            assert (remaining() or 0) <= min(seconds)

    enter(seconds)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_deadline_is_a_number_of_seconds(seconds: float) -> None:
    """From now on."""
    with pytest.raises(ValueError, match="number of seconds"), deadline(seconds):
        pass


def test_tokens_nest_and_survive_deadlines() -> None:
    """Any of them cancels, from anywhere."""
    with cancellable() as outer, deadline(100), cancellable() as inner:
        context.check()
        outer.cancel()
        with pytest.raises(Cancelled):
            context.check()
        assert not inner.cancelled
    context.check()


def test_a_token_is_for_good_and_calls_back_once() -> None:
    """A callback can be taken back; one that comes late is called at once."""
    told: list[str] = []
    token = CancelToken()
    token.on_cancel(lambda: told.append("first"))
    token.on_cancel(lambda: told.append("never"))()
    assert not token.wait(0)
    token.cancel()
    token.cancel()
    token.on_cancel(lambda: told.append("late"))()
    assert (told, token.cancelled, token.wait(None)) == (["first", "late"], True, True)


def test_a_sleep_that_would_outlast_the_deadline_is_not_begun() -> None:
    """The time is better spent otherwise."""
    with deadline(10), pytest.raises(DeadlineExceeded, match="leaves no time to wait 3600 s"):
        context.sleep(3600)


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_sleep_ends_when_it_is_cancelled(tokens: int) -> None:
    """By any of its tokens."""
    last = CancelToken()
    timer = threading.Timer(0.01, last.cancel)
    with cancellable() if tokens == 2 else cancellable(last), cancellable(last):
        timer.start()
        with pytest.raises(Cancelled):
            context.sleep(3600)


def test_a_sleep_without_limits_sleeps() -> None:
    """As long as it was asked to."""
    for limits in (deadline(100), cancellable()):
        began = time.monotonic()
        with limits:
            context.sleep(0.01)
        context.sleep(0.01)
        assert time.monotonic() - began >= 0.02


def test_waiting_for_another_thread() -> None:
    """Ends with the event, the deadline or the token, whichever is first."""
    event = threading.Event()
    with deadline(0.01), pytest.raises(DeadlineExceeded):
        context.wait_for(event)
    with cancellable() as token, deadline(100):
        threading.Timer(0.01, token.cancel).start()
        with pytest.raises(Cancelled):
            context.wait_for(event)
    threading.Timer(0.01, event.set).start()
    context.wait_for(event)
    with deadline(0):
        context.wait_for(event)


def test_limits_can_be_taken_along() -> None:
    """As a stream does that is read elsewhere."""
    with deadline(0) as limits:
        pass
    with context.under(limits), pytest.raises(DeadlineExceeded):
        context.check()
    with deadline(0), context.under(None):
        context.check()


def test_limits_belong_to_the_context() -> None:
    """Another thread has its own; a copied context takes them along; tasks inherit them."""
    with deadline(100):
        found: list[float | None] = []
        copied = contextvars.copy_context()
        for run in (lambda call: call(), copied.run):
            thread = threading.Thread(target=run, args=[lambda: found.append(remaining())])
            thread.start()
            thread.join()
        assert found[0] is None
        assert found[1] is not None

        async def task() -> float | None:
            with deadline(1):
                await asyncio.sleep(0)
                return remaining()

        async def both() -> list[float | None]:
            return [*await asyncio.gather(task(), task()), remaining()]

        inner, other, outer = asyncio.run(both())
        assert max(inner or 9, other or 9) <= 1 < (outer or 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.head(REF),
        lambda store: store.read_raw(REF),
        lambda store: store.write_bytes(REF, b""),
        lambda store: store.delete(REF),
        lambda store: store.delete_many([REF]),
        lambda store: store.list("mem://c"),
        lambda store: store.copy_raw(REF, "mem://c/copy"),
    ],
)
def test_every_operation_looks_before_it_starts(call: Callable[[MemoryStore], object]) -> None:
    """And names itself in the error."""
    store = MemoryStore()
    store.write_bytes(REF, b"content")
    with deadline(0), pytest.raises(DeadlineExceeded) as late:
        call(store)
    with cancellable() as token:
        token.cancel()
        with pytest.raises(Cancelled) as stopped:
            call(store)
    for caught in (late, stopped):
        assert isinstance(caught.value, StoreError)
        assert caught.value.op is not None
    assert store.read_bytes(REF) == b"content"
    assert SignedURLProperties().expires_in == 900
