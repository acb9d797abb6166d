"""Trying again: what is retried, how long is waited, what is never sent twice."""

import io
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import md5
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore import CancelToken, DataReference, MemoryStore, Metadata, ReadStream, WriteOptions, cancellable, deadline
from datastore.errors import (
    AlreadyExists,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    Throttled,
    TransientError,
)
from datastore.metric_names import Operation, RetryReason
from datastore.model import CONTENT_MD5_KEY
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, Truncate, When
from datastore.wrappers.retrying import RetryEvent, RetryingStore, RetryPolicy

REF = DataReference("mem://c/k")
OTHER = DataReference("mem://c/other")
DATA = bytes(range(256)) * 40


class Setup:
    """A memory store, faults over it, retries over them, and what was waited."""

    def __init__(self, *rules: Rule, policy: RetryPolicy | None = None) -> None:
        self.memory = MemoryStore()
        self.faulty = FaultyStore(self.memory, rules)
        self.waits: list[float] = []
        self.events: list[RetryEvent] = []
        self.store = RetryingStore(
            self.faulty, policy or RetryPolicy(), self.events.append, sleep=self.waits.append, random=lambda: 1.0
        )


class Once:
    """A source that can only be read once, counting how often it is asked."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(size)


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        (Operation.HEAD, lambda store: store.head(REF).size == len(DATA)),
        (Operation.LIST, lambda store: store.list("mem://c")[0] == [REF]),
        (Operation.READ, lambda store: store.read_bytes(REF) == DATA),
        (Operation.WRITE, lambda store: store.write_bytes(OTHER, b"new").size == 3),
        (Operation.DELETE, lambda store: store.delete(REF) is None),
        (Operation.DELETE_MANY, lambda store: store.delete_many(iter([REF, OTHER])) == {}),
        (Operation.COPY, lambda store: store.copy_raw(REF, OTHER).size == len(DATA)),
    ],
)
@pytest.mark.parametrize("when", When)
def test_an_operation_is_tried_until_it_succeeds(operation: Operation, call: Any, when: When) -> None:
    """Two failures, before or after the effect, then success; each was told with its place in the row."""
    setup = Setup(Rule(Raise(TransientError, when=when), operations=[operation], times=2))
    setup.memory.write_bytes(REF, DATA)
    assert call(setup.store)
    assert setup.faulty.calls[operation] == 3
    assert [(event.operation, event.attempt) for event in setup.events] == [(operation, 1), (operation, 2)]


@pytest.mark.parametrize("error", [PermissionDenied, NotFound, StoreError, DeadlineExceeded])
def test_what_is_not_retryable_is_raised_at_once(error: type[StoreError]) -> None:
    """Only errors that say so are worth another try."""
    setup = Setup(Rule(Raise(error)))
    with pytest.raises(error):
        setup.store.head(REF)
    assert setup.waits == []
    assert setup.faulty.calls[Operation.HEAD] == 1


def test_giving_up_raises_the_last_error_and_says_how_often_it_tried() -> None:
    """The error is the backend's own, with a hint."""
    setup = Setup(Rule(Raise(TransientError)), policy=RetryPolicy(attempts=3))
    with pytest.raises(TransientError, match="given up after 3 tries"):
        setup.store.read_raw(REF)
    assert len(setup.waits) == 2


def test_waits_grow_up_to_the_largest() -> None:
    """Exponential, capped; the jitter of these tests is always 1."""
    setup = Setup(Rule(Raise(TransientError)), policy=RetryPolicy(attempts=6, base_delay=1, factor=3, max_delay=10))
    with pytest.raises(TransientError):
        setup.store.head(REF)
    assert setup.waits == [1, 3, 9, 10, 10]


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1), wish=st.none() | st.floats(0, 1e6))
def test_no_wait_is_longer_than_the_policy_allows(failures: int, jitter: float, wish: float | None) -> None:
    """Whatever the server wishes, and however often it failed."""
    policy = RetryPolicy(base_delay=0.5, max_delay=7)
    delay = policy.delay(failures, wish, jitter)
    assert 0 <= delay <= 7
    assert delay >= min(wish or 0, 7)


def test_the_servers_wish_is_the_least_that_is_waited() -> None:
    """Retry-After wins over a shorter wait of ours, and is bounded by max_delay."""
    setup = Setup(
        Rule(Raise(lambda text: Throttled(text, retry_after=4.0)), nth=1),
        Rule(Raise(lambda text: Throttled(text, retry_after=4000.0)), nth=1),
        policy=RetryPolicy(max_delay=60, max_elapsed=None),
    )
    setup.store.head(REF)
    assert setup.waits == [4.0, 60.0]
    assert [event.reason for event in setup.events] == [RetryReason.THROTTLED] * 2


def test_no_try_begins_after_the_elapsed_time() -> None:
    """A wait that would end too late is not begun."""
    setup = Setup(
        Rule(Raise(lambda text: Throttled(text, retry_after=50.0))),
        policy=RetryPolicy(max_delay=60, max_elapsed=20),
    )
    with pytest.raises(Throttled):
        setup.store.head(REF)
    assert setup.waits == []


def test_a_deadline_that_leaves_no_time_ends_it_early() -> None:
    """DeadlineExceeded is raised without waiting, from the error that was to be retried."""
    store = RetryingStore(FaultyStore(MemoryStore(), [Rule(Raise(TransientError))]), RetryPolicy(base_delay=1000))
    store = RetryingStore(store.inner, store.policy, random=lambda: 1.0)
    with deadline(5), pytest.raises(DeadlineExceeded) as caught:
        store.head(REF)
    assert isinstance(caught.value.__cause__, TransientError)
    assert (caught.value.op, caught.value.reference) == ("head", str(REF))
    assert caught.value.hint == f"before that: {caught.value.__cause__.message}"


def test_cancelling_stops_the_wait() -> None:
    """A wait of minutes ends when the token is cancelled."""
    token = CancelToken()
    policy = RetryPolicy(base_delay=500, max_delay=500, max_elapsed=None)
    faulty = FaultyStore(MemoryStore(), [Rule(Raise(TransientError))])
    store = RetryingStore(faulty, policy, lambda event: threading.Timer(0.02, token.cancel).start(), random=lambda: 1.0)
    with cancellable(token), pytest.raises(Cancelled) as caught:
        store.head(REF)
    assert isinstance(caught.value.__cause__, TransientError)


@pytest.mark.parametrize("source", [DATA, bytearray(DATA), io.BytesIO(DATA)], ids=["bytes", "bytearray", "file"])
def test_a_rewindable_body_is_sent_again(source: Any) -> None:
    """From its beginning, although half of it had gone."""
    setup = Setup(Rule(BreakStream(after=5000), operations=[Operation.WRITE], times=2))
    setup.store.write_raw(REF, len(DATA), None, source)
    assert setup.memory.read_bytes(REF) == DATA


def test_a_file_is_sent_again_from_where_it_stood() -> None:
    """What the caller had read already is not part of the object."""
    stream = io.BytesIO(b"header" + DATA)
    stream.seek(6)
    setup = Setup(Rule(BreakStream(after=10), operations=[Operation.WRITE], times=1))
    setup.store.write_raw(REF, None, None, stream)
    assert setup.memory.read_bytes(REF) == DATA


@pytest.mark.parametrize("source", [Once(DATA), iter([DATA[:100], DATA[100:]])], ids=["stream", "iterator"])
def test_a_body_that_cannot_be_rewound_is_never_sent_twice(source: Any) -> None:
    """The error is the first one and says what to do; nothing was waited for in vain."""
    setup = Setup(Rule(BreakStream(after=50), operations=[Operation.WRITE], nth=1))
    with pytest.raises(TransientError, match="cannot be read twice"):
        setup.store.write_raw(REF, len(DATA), None, source)
    assert setup.faulty.calls[Operation.WRITE] == 1
    assert setup.waits == []
    assert not setup.memory.exists(REF)


def test_a_body_nobody_has_read_yet_can_be_sent_late() -> None:
    """A failure before the first byte costs an unseekable source nothing."""
    setup = Setup(Rule(Raise(TransientError), operations=[Operation.WRITE], times=2))
    setup.store.write_raw(REF, len(DATA), None, Once(DATA))
    assert setup.memory.read_bytes(REF) == DATA


@pytest.mark.parametrize("declared", [True, False])
def test_a_create_whose_answer_was_lost_counts_as_done(declared: bool) -> None:
    """The retry meets its own object: the same size and content, by the declared digest or read back."""
    setup = Setup(Rule(Raise(when=When.AFTER), operations=[Operation.WRITE], nth=1))
    metadata = {CONTENT_MD5_KEY: b64encode(md5(DATA).digest()).decode()} if declared else {}
    written = setup.store.write_bytes(REF, DATA, WriteOptions(if_absent=True, metadata=metadata))
    assert written == Metadata(exists=True, size=len(DATA), etag=setup.memory.head(REF).etag)
    assert setup.faulty.calls[Operation.WRITE] == 2
    assert setup.faulty.calls[Operation.READ] == (0 if declared else 1)


def test_a_replacement_whose_answer_was_lost_counts_as_done() -> None:
    """The etag it named is gone because it replaced that object itself."""
    setup = Setup(Rule(Raise(when=When.AFTER), operations=[Operation.WRITE], nth=1))
    etag = setup.memory.write_bytes(REF, b"old").etag
    setup.store.write_bytes(REF, DATA, WriteOptions(if_match=etag))
    assert setup.memory.read_bytes(REF) == DATA


@pytest.mark.parametrize("theirs", [b"shorter", bytes(len(DATA))], ids=["size", "content"])
def test_a_create_that_lost_to_another_is_refused(theirs: bytes) -> None:
    """After a failure without effect, what is there is somebody else's."""
    setup = Setup(Rule(Raise(), operations=[Operation.WRITE], nth=1))
    setup.memory.write_bytes(REF, theirs)
    with pytest.raises(AlreadyExists):
        setup.store.write_bytes(REF, DATA, WriteOptions(if_absent=True))
    assert setup.memory.read_bytes(REF) == theirs


def test_what_cannot_be_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object too large to read back, and without a digest: the error says that it may be ours."""
    monkeypatch.setattr("datastore.wrappers._lost_answers._READ_BACK", 100)
    setup = Setup(Rule(Raise(when=When.AFTER), operations=[Operation.WRITE], nth=1))
    with pytest.raises(AlreadyExists, match="earlier try"):
        setup.store.write_bytes(REF, DATA, WriteOptions(if_absent=True))


def test_a_first_refusal_is_never_questioned() -> None:
    """Without an earlier failure AlreadyExists is what it says, even for equal content."""
    setup = Setup()
    setup.memory.write_bytes(REF, DATA)
    with pytest.raises(AlreadyExists):
        setup.store.write_bytes(REF, DATA, WriteOptions(if_absent=True))
    assert setup.faulty.calls[Operation.HEAD] == 0


@pytest.mark.parametrize("when", When)
def test_a_conditional_copy_whose_answer_was_lost(when: When) -> None:
    """It counts as done if the copy is there."""
    setup = Setup(Rule(Raise(when=when), operations=[Operation.COPY], nth=1))
    setup.memory.write_bytes(REF, DATA)
    assert setup.store.copy_raw(REF, OTHER, WriteOptions(if_absent=True)).size == len(DATA)
    assert setup.memory.read_bytes(OTHER) == DATA


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("there", [True, False])
def test_insisting_on_a_delete_is_exact_in_spite_of_lost_answers(when: When, there: bool) -> None:
    """NotFound if and only if nothing was there."""
    setup = Setup(Rule(Raise(when=when), operations=[Operation.DELETE, Operation.HEAD], times=2))
    if there:
        setup.memory.write_bytes(REF, DATA)
        setup.store.delete(REF, missing_ok=False)
    else:
        with pytest.raises(NotFound):
            setup.store.delete(REF, missing_ok=False)
    assert not setup.memory.exists(REF)


class SomeDeletesFail(StoreWrapper):
    """Fails some keys of a batch: the first time temporarily, or for good."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.asked: list[list[str]] = []

    def delete_many(self, references: Any) -> Any:
        refs = list(references)
        self.asked.append([ref.key for ref in refs])
        failed: dict[DataReference, StoreError] = {}
        for ref in refs:
            if ref.key == "denied":
                failed[ref] = PermissionDenied("no")
            elif ref.key.startswith("slow") and len(self.asked) < 3:
                failed[ref] = TransientError("later")
            else:
                self.inner.delete(ref)
        return failed


@pytest.mark.parametrize(("attempts", "left"), [(5, {"denied"}), (2, {"denied", "slow1", "slow2"})])
def test_of_a_batch_only_what_failed_is_deleted_again(attempts: int, left: set[str]) -> None:
    """What fails for good, or still fails in the end, is returned."""
    memory = MemoryStore()
    refs = [DataReference(f"mem://c/{name}") for name in ("a", "slow1", "denied", "slow2")]
    for ref in refs:
        memory.write_bytes(ref, b"x")
    inner = SomeDeletesFail(memory)
    store = RetryingStore(inner, RetryPolicy(attempts=attempts), sleep=lambda seconds: None)
    assert {ref.key for ref in store.delete_many(refs)} == left
    assert inner.asked[1] == ["slow1", "slow2"]
    assert {ref.key for ref in memory.list("mem://c")[0]} == left


@pytest.mark.parametrize("fault", [BreakStream(after=1000), Truncate(after=1000), BreakStream(after=0)])
@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (17, None), (-5000, None), (3, 4000), (-9000, 3000), (-99999, None)]
)
def test_a_broken_stream_goes_on_where_it_broke(fault: Any, start: int, length: int | None) -> None:
    """Ranges from either end included; every byte comes once."""
    setup = Setup(Rule(fault, operations=[Operation.READ], times=2))
    setup.memory.write_bytes(REF, DATA)
    with setup.store.read_raw(REF, start, length) as stream:
        assert stream.read() == setup.memory.read_bytes(REF, start, length)
    assert setup.faulty.calls[Operation.READ] == 3


def test_progress_starts_the_count_of_tries_anew() -> None:
    """A stream may break more often than the policy's attempts, but not in one place."""
    setup = Setup(Rule(BreakStream(after=1000), operations=[Operation.READ]), policy=RetryPolicy(attempts=2))
    setup.memory.write_bytes(REF, DATA)
    assert setup.store.read_bytes(REF) == DATA
    setup.faulty.clear()
    setup.faulty.add(Rule(BreakStream(after=0), operations=[Operation.READ]))
    with pytest.raises(TransientError, match="given up after 2 tries"):
        setup.store.read_bytes(REF)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_an_object_that_changes_while_it_is_read_is_never_mixed(change: str) -> None:
    """The error says so, rather than yielding half of each."""
    setup = Setup(Rule(BreakStream(after=1000), operations=[Operation.READ], nth=1))
    setup.memory.write_bytes(REF, DATA)
    with setup.store.read_raw(REF) as stream:
        assert stream.read(1000) == DATA[:1000]
        if change == "replaced":
            setup.memory.write_bytes(REF, DATA[::-1])
            with pytest.raises(PreconditionFailed, match="changed while it was read, after 1000 of"):
                stream.read()
        else:
            setup.memory.delete(REF)
            with pytest.raises(NotFound, match="removed while it was read"):
                stream.read()


def test_without_an_etag_a_stream_is_not_resumed() -> None:
    """Nothing would say that the rest is of the same object."""

    class NoEtags(StoreWrapper):
        def read_raw(self, *args: Any, **options: Any) -> ReadStream:
            stream = super().read_raw(*args, **options)
            return ReadStream(stream, stream.size, evolve(stream.metadata, etag=""))

    memory = MemoryStore()
    memory.write_bytes(REF, DATA)
    faulty = FaultyStore(NoEtags(memory), [Rule(BreakStream(after=1000), operations=[Operation.READ], nth=1)])
    store = RetryingStore(faulty, sleep=lambda seconds: None)
    with pytest.raises(TransientError, match="broke after 1000"):
        store.read_bytes(REF)


def test_resuming_is_bound_to_the_deadline_the_stream_was_opened_under() -> None:
    """Although it is read after the block has ended."""
    faulty = FaultyStore(MemoryStore(), [Rule(BreakStream(after=10), operations=[Operation.READ])])
    faulty.inner.write_bytes(REF, DATA)
    store = RetryingStore(faulty, RetryPolicy(base_delay=1000, max_delay=1000, max_elapsed=None), random=lambda: 1.0)
    with deadline(30):
        stream = store.read_raw(REF)
    with stream, pytest.raises(DeadlineExceeded):
        stream.read()


def test_an_abandoned_stream_is_noticed() -> None:
    """The wrapper does not keep the stream it watches alive."""
    setup = Setup(Rule(BreakStream(after=99999), operations=[Operation.READ]))
    setup.memory.write_bytes(REF, DATA)
    with pytest.warns(ResourceWarning, match="unclosed"):
        setup.store.read_raw(REF)


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"base_delay": -1}, {"factor": 0.5}, {"max_delay": -1}, {"max_elapsed": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Throttled("x"), RetryReason.THROTTLED),
        (TransientError("x", http_status=500), RetryReason.SERVER),
        (TransientError("x"), RetryReason.CONNECTION),
        (DeadlineExceeded("x"), RetryReason.TIMEOUT),
    ],
)
def test_the_reason_of_a_retry(error: StoreError, reason: RetryReason) -> None:
    """Four kinds, for the metrics."""
    event = RetryEvent(operation=Operation.READ, reference=REF, attempt=1, delay=0, error=error)
    assert event.reason is reason


@settings(max_examples=60)
@given(st.data())
def test_any_stream_read_in_any_pieces_through_any_breaks_is_whole(data: st.DataObject) -> None:
    """Breaks and truncations at any places change nothing of what is read."""
    size = data.draw(st.integers(0, 3000))
    content = bytes(value % 251 for value in range(size))
    faults = data.draw(
        st.lists(
            st.builds(
                lambda kind, after: kind(after=after), st.sampled_from([BreakStream, Truncate]), st.integers(1, 900)
            ),
            max_size=6,
        )
    )
    setup = Setup(*(Rule(fault, operations=[Operation.READ], nth=1) for fault in faults))
    setup.memory.write_bytes(REF, content)

    def pieces() -> Iterator[bytes]:
        with setup.store.read_raw(REF) as stream:
            while piece := stream.read(data.draw(st.integers(1, 1000))):
                yield piece

    assert b"".join(pieces()) == content
