"""The measuring wrapper: exact counts of what happened, in every way it can end."""

import asyncio
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from datastore import (
    CancelToken,
    Cursor,
    DataReference,
    DataStore,
    MemoryStore,
    Metadata,
    ReadStream,
    SignedURLProperties,
    WriteOptions,
    cancellable,
    errors,
)
from datastore.errors import ErrorCode, StoreError
from datastore.metric_names import (
    STORE_METRICS,
    Backend,
    CacheResult,
    Operation,
    Outcome,
    RetryReason,
)
from datastore.protocol import Reference
from datastore.wrappers import measured
from datastore.wrappers.measured import MeasuredStore, OperationEvent, StoreMetrics
from datastore.wrappers.read_only import ReadOnlyStore
from metrics import MetricClash, Scope, generate_text, start_http_server
from tests.servers.model import Address
from tests.servers.prometheus_server import Promtool, add_target, query

REF = "mem://c/key"


class Numbers:
    """What a registry shows of one store."""

    def __init__(self, registry: CollectorRegistry, backend: str = "memory", location: str = "main") -> None:
        self._registry = registry
        self._store = {"backend": backend, "location": location}

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"stow_{name}", {**self._store, **labels})

    def nonzero(self, name: str) -> dict[tuple[str, ...], float]:
        """All series of a metric that are not 0, by the values of their own labels, sorted by name."""
        found = {}
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name == f"stow_{name}" and sample.value and self._store.items() <= sample.labels.items():
                    own = sorted(sample.labels.items() - self._store.items())
                    found[tuple(value for _, value in own)] = sample.value
        return found

    def outcomes(self) -> dict[tuple[str, ...], float]:
        return self.nonzero("operations_total")


@pytest.fixture(params=["tallies", "client"])
def recorders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of keeping numbers, the client library's own as in multi-process mode."""
    if request.param == "client":
        monkeypatch.setattr(measured, "is_multiprocess", lambda: True)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def numbers(registry: CollectorRegistry) -> Numbers:
    return Numbers(registry)


@pytest.fixture
def metrics(recorders: None, registry: CollectorRegistry) -> StoreMetrics:
    return StoreMetrics(Scope("stow", registry), "mem", "main")


@pytest.fixture
def store(metrics: StoreMetrics) -> MeasuredStore:
    return MeasuredStore(MemoryStore(), metrics)


class Broken(MemoryStore):
    """A store that raises what it is given, or opens what it is given."""

    def __init__(self, error: BaseException | None = None, stream: ReadStream | None = None) -> None:
        super().__init__()
        self._error = error
        self._stream = stream

    def head(self, reference: Reference) -> Metadata:
        if self._error is not None:
            raise self._error
        return super().head(reference)

    def read_raw(self, reference: Reference, *args: Any, **options: Any) -> ReadStream:
        assert self._stream is not None
        return self._stream

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        failed = (errors.NotFound("gone"), errors.Throttled("slow down"), errors.NotFound("gone"))
        return {DataReference(f"mem://c/{index}"): error for index, error in enumerate(failed)}


class Nothing(MemoryStore):
    """A store that holds nothing, and so can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Nothing, ()


class Body:
    """An answer from a network, piece by piece; an exception among the pieces is raised."""

    def __init__(self, *pieces: bytes | BaseException, on_close: BaseException | None = None) -> None:
        self._pieces = list(pieces)
        self._on_close = on_close
        self.closed = False

    def read(self, size: int, /) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self) -> None:
        self.closed = True
        if self._on_close is not None:
            raise self._on_close


def test_it_is_a_data_store(store: MeasuredStore) -> None:
    """The wrapper is a data store and answers for the one inside."""
    assert isinstance(store, DataStore)
    assert store.capabilities() == MemoryStore().capabilities()
    assert store.base_container_fqn == MemoryStore().base_container_fqn
    assert isinstance(store.inner, MemoryStore)
    store.close()


def test_every_series_exists_before_the_first_operation(metrics: StoreMetrics, numbers: Numbers) -> None:
    """All operations, outcomes and faults are there at 0, so that rates see their first change."""
    for operation in Operation:
        assert numbers("operations_in_progress", operation=operation) == 0
        assert numbers("operation_duration_seconds_count", operation=operation) == 0
        for outcome in Outcome:
            assert numbers("operations_total", operation=operation, outcome=outcome) == 0
        for code in ("GENERIC", "TRANSIENT", "THROTTLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED"):
            assert numbers("operation_errors_total", operation=operation, code=code) == 0
        for reason in RetryReason:
            assert numbers("retries_total", operation=operation, reason=reason) == 0
    for moving, direction in (("read", "in"), ("write", "out")):
        assert numbers("transferred_bytes_total", operation=moving, direction=direction) == 0
        assert numbers("operation_size_bytes_count", operation=moving, direction=direction) == 0
    for result in CacheResult:
        assert numbers("cache_requests_total", operation="read", result=result) == 0
    assert numbers("read_first_byte_seconds_count", operation="read") == 0
    assert numbers("containers_loaded") == 0
    assert numbers("last_successful_write_timestamp_seconds") == 0


def test_every_metric_of_the_table_is_exposed(metrics: StoreMetrics, registry: CollectorRegistry) -> None:
    """The registry has the families of the table, with their help, types and labels, and no others."""
    exposed = {family.name: family for family in registry.collect()}
    assert set(exposed) == {f"stow_{metric.name}" for metric in STORE_METRICS}
    for metric in STORE_METRICS:
        family = exposed[f"stow_{metric.name}"]
        assert (family.documentation, family.type) == (metric.help, metric.kind.value)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.label_names)
            assert sample.name in {*metric.series_names("stow_"), f"stow_{metric.name}_created"}


def test_every_operation_is_counted_once(store: MeasuredStore, numbers: Numbers) -> None:
    """A sequence of operations is counted to the last one, with the bytes they moved."""
    store.write_bytes(REF, b"x" * 5000)
    store.write_raw(REF, None, None, iter([b"abc", b"defg"]))
    assert store.read_bytes(REF) == b"abcdefg"
    assert store.read_bytes(REF, 2, 3) == b"cde"
    assert store.head(REF).exists
    assert not store.exists("mem://c/none")
    store.copy_raw(REF, "mem://c/copy")
    store.list("mem://c/")
    assert len(list(store.walk("mem://c/", page_size=1))) == 2
    store.delete(REF)
    store.delete_many(["mem://c/copy"])
    assert numbers.outcomes() == {
        ("write", "ok"): 2,
        ("read", "ok"): 2,
        ("head", "ok"): 2,
        ("copy", "ok"): 1,
        ("list", "ok"): 3,
        ("delete", "ok"): 1,
        ("delete_many", "ok"): 1,
    }
    assert numbers.nonzero("operation_errors_total") == {}
    assert numbers.nonzero("operations_in_progress") == {}
    assert numbers.nonzero("transferred_bytes_total") == {("in", "read"): 10, ("out", "write"): 5007}
    assert numbers.nonzero("operation_size_bytes_sum") == {("in", "read"): 10, ("out", "write"): 5007}
    assert numbers("operation_size_bytes_bucket", operation="write", direction="out", le="4096.0") == 1
    assert numbers("operation_size_bytes_bucket", operation="write", direction="out", le="65536.0") == 2
    assert numbers("read_first_byte_seconds_count", operation="read") == 2


FAILURES: list[tuple[str, Callable[[MeasuredStore], object], type[BaseException], tuple[str, str], str]] = [
    ("missing", lambda s: s.read_raw("mem://c/no"), errors.NotFound, ("read", "expected_error"), "NOT_FOUND"),
    (
        "missing to delete",
        lambda s: s.delete("mem://c/no", missing_ok=False),
        errors.NotFound,
        ("delete", "expected_error"),
        "NOT_FOUND",
    ),
    (
        "missing to copy",
        lambda s: s.copy_raw("mem://c/no", "mem://c/b"),
        errors.NotFound,
        ("copy", "expected_error"),
        "NOT_FOUND",
    ),
    (
        "there already",
        lambda s: s.write_bytes(REF, b"", WriteOptions(if_absent=True)),
        errors.AlreadyExists,
        ("write", "expected_error"),
        "ALREADY_EXISTS",
    ),
    (
        "changed meanwhile",
        lambda s: s.write_bytes(REF, b"", WriteOptions(if_match="other")),
        errors.PreconditionFailed,
        ("write", "expected_error"),
        "PRECONDITION_FAILED",
    ),
    (
        "not supported",
        lambda s: s.create_signed_url(REF, SignedURLProperties()),
        errors.NotSupported,
        ("sign", "expected_error"),
        "NOT_SUPPORTED",
    ),
    (
        "wrong size",
        lambda s: s.write_raw(REF, 5, None, b"four"),
        errors.SizeMismatch,
        ("write", "error"),
        "SIZE_MISMATCH",
    ),
    (
        "bad cursor",
        lambda s: s.list_page("mem://c/", None, Cursor.at_end()),
        errors.BadCursor,
        ("list", "error"),
        "BAD_CURSOR",
    ),
    ("bad reference", lambda s: s.head("mem://c/%zz"), errors.InvalidReference, ("head", "error"), "INVALID_REFERENCE"),
    ("not ours", lambda s: s.list_page("mem://c/", -1), ValueError, ("list", "error"), "GENERIC"),
]


@pytest.mark.parametrize(
    ("call", "raised", "outcome", "code"), [row[1:] for row in FAILURES], ids=[r[0] for r in FAILURES]
)
def test_failures_are_counted_by_outcome_and_code(
    call: Callable[[MeasuredStore], object],
    raised: type[BaseException],
    outcome: tuple[str, str],
    code: str,
    store: MeasuredStore,
    numbers: Numbers,
) -> None:
    """An error passes through unchanged, and is counted once, as an answer or as a fault, with its code."""
    store.write_bytes(REF, b"abc")
    with pytest.raises(raised):
        call(store)
    assert numbers.outcomes() == {("write", "ok"): 1, outcome: 1}
    assert numbers.nonzero("operation_errors_total") == {(code, outcome[0]): 1}
    assert numbers.nonzero("operations_in_progress") == {}
    assert numbers.nonzero("transferred_bytes_total") == {("out", "write"): 3}


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), asyncio.CancelledError(), errors.Cancelled("enough")], ids=repr
)
def test_cancellation_is_no_failure(error: BaseException, metrics: StoreMetrics, numbers: Numbers) -> None:
    """What the caller breaks off is cancelled, whichever way it is done."""
    with pytest.raises(type(error)):
        MeasuredStore(Broken(error), metrics).head(REF)
    assert numbers.outcomes() == {("head", "cancelled"): 1}
    assert numbers.nonzero("operation_errors_total") == {("CANCELLED", "head"): 1}


def test_a_cancelled_token_counts_as_cancelled(store: MeasuredStore, numbers: Numbers) -> None:
    """The store's own cancellation is seen for what it is."""
    token = CancelToken()
    token.cancel()
    with cancellable(token), pytest.raises(errors.Cancelled):
        store.write_bytes(REF, b"x")
    assert numbers.outcomes() == {("write", "cancelled"): 1}


def test_foreign_errors_count_by_what_caused_them(metrics: StoreMetrics, numbers: Numbers) -> None:
    """A foreign exception raised from one of ours has the code of ours."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = errors.Throttled("slow down")
    with pytest.raises(RuntimeError):
        MeasuredStore(Broken(outer), metrics).head(REF)
    assert numbers.nonzero("operation_errors_total") == {("THROTTLED", "head"): 1}


def test_the_expected_errors_can_be_chosen(recorders: None, registry: CollectorRegistry, numbers: Numbers) -> None:
    """A store may be told that missing objects are faults."""
    metrics = StoreMetrics(Scope("stow", registry), "memory", "main", expected_errors=frozenset())
    with pytest.raises(errors.NotFound):
        MeasuredStore(MemoryStore(), metrics).read_raw(REF)
    assert numbers.outcomes() == {("read", "error"): 1}


def test_a_read_lasts_until_its_stream_ends(store: MeasuredStore, numbers: Numbers) -> None:
    """An open stream is in progress; reading to its end, or closing it, ends the operation once."""
    store.write_bytes(REF, b"abc")
    stream = store.read_raw(REF)
    assert numbers("operations_in_progress", operation="read") == 1
    assert numbers("operations_total", operation="read", outcome="ok") == 0
    time.sleep(0.002)
    assert stream.read() == b"abc"
    assert numbers("operations_in_progress", operation="read") == 0
    stream.close()
    assert numbers("operations_total", operation="read", outcome="ok") == 1
    whole = numbers("operation_duration_seconds_sum", operation="read")
    first = numbers("read_first_byte_seconds_sum", operation="read")
    assert whole is not None
    assert first is not None
    assert first > 0
    assert whole - first >= 0.002


def test_an_empty_object_is_read_when_it_is_closed(store: MeasuredStore, numbers: Numbers) -> None:
    """Closing a stream of no bytes is a whole read."""
    store.write_bytes(REF, b"")
    store.read_raw(REF).close()
    assert numbers("operations_total", operation="read", outcome="ok") == 1


def test_a_read_closed_early_is_cancelled(store: MeasuredStore, numbers: Numbers) -> None:
    """Half a read is no success and no failure; its bytes count."""
    store.write_bytes(REF, b"abcdef")
    with store.read_raw(REF) as stream:
        assert stream.read(2) == b"ab"
    assert numbers("operations_total", operation="read", outcome="cancelled") == 1
    assert numbers("transferred_bytes_total", operation="read", direction="in") == 2
    assert numbers("operation_size_bytes_count", operation="read", direction="in") == 0


def test_a_forgotten_stream_ends_its_operation(store: MeasuredStore, numbers: Numbers) -> None:
    """A stream that is dropped without being closed does not stay in progress."""
    store.write_bytes(REF, b"abc")
    store.read_raw(REF)
    assert numbers.nonzero("operations_in_progress") == {}
    assert numbers("operations_total", operation="read", outcome="cancelled") == 1


def test_the_first_byte_is_waited_for(metrics: StoreMetrics, numbers: Numbers) -> None:
    """Through a network the first byte is when it arrives, not when the stream opens."""
    body = Body(b"ab", b"cd")
    stream = MeasuredStore(Broken(stream=ReadStream(body, 4, Metadata())), metrics).read_raw(REF)
    time.sleep(0.003)
    assert numbers("read_first_byte_seconds_count", operation="read") == 0
    assert stream.read() == b"abcd"
    first = numbers("read_first_byte_seconds_sum", operation="read")
    assert first is not None
    assert first > 0.003
    assert body.closed
    assert numbers.outcomes() == {("read", "ok"): 1}


def test_a_read_that_breaks_is_an_error(metrics: StoreMetrics, numbers: Numbers) -> None:
    """A connection that breaks in the middle counts as its error, with the bytes that came."""
    body = Body(b"ab", errors.TransientError("broken pipe"))
    stream = MeasuredStore(Broken(stream=ReadStream(body, 4, Metadata())), metrics).read_raw(REF)
    with pytest.raises(errors.TransientError), stream:
        stream.read()
    assert numbers.outcomes() == {("read", "error"): 1}
    assert numbers.nonzero("operation_errors_total") == {("TRANSIENT", "read"): 1}
    assert numbers("transferred_bytes_total", operation="read", direction="in") == 2
    assert numbers("read_first_byte_seconds_count", operation="read") == 1


def test_a_read_that_never_got_a_byte_has_no_first_one(metrics: StoreMetrics, numbers: Numbers) -> None:
    """An answer that breaks before its first byte is not in the first byte's histogram."""
    stream = ReadStream(Body(errors.TransientError("reset")), 4, Metadata())
    with pytest.raises(errors.TransientError):
        MeasuredStore(Broken(stream=stream), metrics).read_raw(REF).read()
    assert numbers("operations_total", operation="read", outcome="error") == 1
    assert numbers("read_first_byte_seconds_count", operation="read") == 0


def test_a_failing_close_is_counted(metrics: StoreMetrics, numbers: Numbers) -> None:
    """An error on close reaches the caller and the count."""
    stream = ReadStream(Body(b"abcd", on_close=errors.TransientError("close")), 4, Metadata())
    with pytest.raises(errors.TransientError):
        MeasuredStore(Broken(stream=stream), metrics).read_raw(REF).read()
    assert numbers.outcomes() == {("read", "error"): 1}
    assert numbers.nonzero("operations_in_progress") == {}


def test_the_last_write_is_the_last_that_succeeded(store: MeasuredStore, numbers: Numbers) -> None:
    """The timestamp follows successes; reads and failures leave it alone."""
    before = time.time()
    store.write_bytes(REF, b"x")
    written = numbers("last_successful_write_timestamp_seconds")
    assert written is not None
    assert before <= written <= time.time()
    store.read_bytes(REF)
    with pytest.raises(errors.SizeMismatch):
        store.write_raw(REF, 9, None, b"x")
    assert numbers("last_successful_write_timestamp_seconds") == written


def test_a_batch_fails_as_its_worst_object(metrics: StoreMetrics, numbers: Numbers) -> None:
    """Deleting many is one operation; a fault among the answers makes it a fault."""
    failed = MeasuredStore(Broken(), metrics).delete_many([REF])
    assert len(failed) == 3
    assert numbers.outcomes() == {("delete_many", "error"): 1}
    assert numbers.nonzero("operation_errors_total") == {("THROTTLED", "delete_many"): 1}


def test_other_operations_can_be_measured(metrics: StoreMetrics, numbers: Numbers) -> None:
    """What is not of the protocol is measured as a block."""
    with metrics.measure(Operation.CREATE_CONTAINER):
        assert numbers("operations_in_progress", operation="create_container") == 1
    with pytest.raises(errors.PermissionDenied), metrics.measure(Operation.LOAD_CONTAINER):
        raise errors.PermissionDenied("no")
    metrics.retries[Operation.READ, RetryReason.THROTTLED].inc()
    metrics.cache_requests[Operation.READ, CacheResult.HIT].inc()
    metrics.containers_loaded.set(4)
    assert numbers.outcomes() == {("create_container", "ok"): 1, ("load_container", "error"): 1}
    assert numbers("retries_total", operation="read", reason="throttled") == 1
    assert numbers("cache_requests_total", operation="read", result="hit") == 1
    assert numbers("containers_loaded") == 4


def test_an_observer_hears_of_every_end(metrics: StoreMetrics) -> None:
    """Each operation that ended is one event with what, how, how much and why."""
    heard: list[OperationEvent] = []
    store = MeasuredStore(MemoryStore(), metrics, observer=heard.append)
    store.write_bytes(REF, b"abc")
    store.read_bytes(REF)
    store.head(REF)
    with pytest.raises(errors.NotFound) as missing:
        store.delete("mem://c/no", missing_ok=False)
    with store.read_raw(REF) as stream:
        stream.read(1)
    assert [(event.operation, str(event.reference), event.outcome, event.code, event.size) for event in heard] == [
        (Operation.WRITE, REF, Outcome.OK, None, 3),
        (Operation.READ, REF, Outcome.OK, None, 3),
        (Operation.HEAD, REF, Outcome.OK, None, 0),
        (Operation.DELETE, "mem://c/no", Outcome.EXPECTED_ERROR, ErrorCode.NOT_FOUND, 0),
        (Operation.READ, REF, Outcome.CANCELLED, ErrorCode.CANCELLED, 1),
    ]
    assert [event.error for event in heard] == [None, None, None, missing.value, None]
    assert [event.first_byte is not None for event in heard] == [False, True, False, False, True]
    assert all(event.seconds > 0 for event in heard)


def test_stores_share_a_scope(recorders: None, registry: CollectorRegistry) -> None:
    """Two locations have numbers of their own; the same location twice has the same numbers."""
    scope = Scope("stow", registry)
    for location in ("a", "b", "a"):
        MeasuredStore(MemoryStore(), StoreMetrics(scope, "memory", location)).write_bytes(REF, b"x")
    for location, count in (("a", 2), ("b", 1)):
        numbers = Numbers(registry, location=location)
        assert numbers("operations_total", operation="write", outcome="ok") == count


def test_a_measured_store_can_be_sent_to_another_process(tmp_path: Path) -> None:
    """Over the default registry a measured store is pickled with its names, not its numbers."""
    store = MeasuredStore(ReadOnlyStore(Nothing()), StoreMetrics(Scope("stow_pickled"), "memory", "main"))
    store.head(REF)
    (tmp_path / "store").write_bytes(pickle.dumps(store))
    code = (
        "import pickle, pathlib, sys, metrics\n"
        "store = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "for _ in range(3): store.head('mem://c/key')\n"
        "print(metrics.generate_text())"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": root},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    labels = 'backend="memory",location="main",operation="head",outcome="ok"'
    assert f"stow_pickled_operations_total{{{labels}}} 3.0" in done.stdout


def test_a_registry_of_its_own_cannot_be_sent(metrics: StoreMetrics) -> None:
    """Numbers in a private registry would be lost in another process, so pickling says so."""
    with pytest.raises(TypeError, match="registry of its own"):
        pickle.dumps(metrics)


def test_a_taken_name_is_a_clash(recorders: None, registry: CollectorRegistry) -> None:
    """A metric of the store's name that somebody else declared is an error when the metrics are made."""
    scope = Scope("stow", registry)
    scope.gauge("operation_errors", "mine")
    with pytest.raises(MetricClash, match="stow_operation_errors"):
        StoreMetrics(scope, "memory", "main")


def test_backends_are_a_closed_set(registry: CollectorRegistry) -> None:
    """A kind is shown as the backend it is, one of a third party as other; a location must have a name."""
    names = {"S3": "s3", "google": "gcs", "azure": "azure", "swift": "swift", "local": "local", "mem": "memory"}
    for kind, backend in (names | {"redis": "redis", "of-my-own": "other"}).items():
        assert StoreMetrics(Scope("stow", registry), kind, "main").backend == backend
    with pytest.raises(ValueError, match="location"):
        StoreMetrics(Scope("stow", registry), Backend.S3, "")


def test_threads_lose_nothing(store: MeasuredStore, numbers: Numbers) -> None:
    """Operations of many threads are counted to the last one, streams closed in another thread included."""
    store.write_bytes(REF, b"abc")
    opened: list[ReadStream] = []

    def work(_: int) -> None:
        for _ in range(200):
            store.read_bytes(REF)
        opened.append(store.read_raw(REF))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert numbers("operations_total", operation="read", outcome="ok") == 1600
    assert numbers("operations_in_progress", operation="read") == 8
    for stream in opened:
        stream.read()
    assert numbers("operations_in_progress", operation="read") == 0
    assert numbers("operations_total", operation="read", outcome="ok") == 1608
    assert numbers("transferred_bytes_total", operation="read", direction="in") == 4824


def test_scrapes_meanwhile_are_consistent(store: MeasuredStore, numbers: Numbers) -> None:
    """A scrape in the middle of the work never shows less than nothing in progress, nor counts going back."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            store.head(REF)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    last = 0.0
    for _ in range(40):
        in_progress = numbers("operations_in_progress", operation="head")
        count = numbers("operations_total", operation="head", outcome="ok")
        assert in_progress is not None
        assert count is not None
        assert 0 <= in_progress <= 2
        assert count >= last
        last = count
    stop.set()
    for worker in workers:
        worker.join()


def test_both_recorders_expose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multi-process mode has the very series of the other one, with the same counts."""

    def exposed(*, client: bool) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        monkeypatch.setattr(measured, "is_multiprocess", lambda: client)
        registry = CollectorRegistry()
        store = MeasuredStore(MemoryStore(), StoreMetrics(Scope("stow", registry), "memory", "main"))
        store.write_bytes(REF, b"x" * 70_000)
        store.read_bytes(REF)
        with pytest.raises(errors.NotFound):
            store.read_raw("mem://c/no")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    tallies, client = exposed(client=False), exposed(client=True)
    assert tallies.keys() == client.keys()
    for key, value in tallies.items():
        if "seconds" not in key[0]:
            assert client[key] == value, key


@given(st.lists(st.sampled_from(["write", "read", "half", "missing", "exists", "head", "bad"]), max_size=30))
def test_the_numbers_add_up(steps: list[str]) -> None:
    """After any sequence: ends are durations, errors are what was not ok, and nothing is in progress."""
    registry = CollectorRegistry()
    store = MeasuredStore(MemoryStore(), StoreMetrics(Scope("stow", registry), "memory", "main"))
    store.write_bytes(REF, b"abc")
    for step in steps:
        try:
            match step:
                case "write":
                    store.write_bytes(REF, b"abc")
                case "read":
                    store.read_bytes(REF)
                case "half":
                    with store.read_raw(REF) as stream:
                        stream.read(1)
                case "missing":
                    store.read_raw("mem://c/no")
                case "exists":
                    store.write_bytes(REF, b"", WriteOptions(if_absent=True))
                case "head":
                    store.head(REF)
                case "bad":
                    store.list_page("mem://c/", -1)
        except (StoreError, ValueError):
            pass
    numbers = Numbers(registry)
    assert sum(numbers.outcomes().values()) == 1 + len(steps)
    assert sum(numbers.nonzero("operation_duration_seconds_count").values()) == 1 + len(steps)
    not_ok = sum(value for (_, outcome), value in numbers.outcomes().items() if outcome != "ok")
    assert sum(numbers.nonzero("operation_errors_total").values()) == not_ok
    assert numbers.nonzero("operations_in_progress") == {}


SERVICE = textwrap.dedent("""
    import multiprocessing, os
    from datastore import MemoryStore
    from datastore.wrappers.measured import MeasuredStore, StoreMetrics
    from metrics import Scope, generate_text, mark_process_dead

    def work():
        store = MeasuredStore(MemoryStore(), StoreMetrics(Scope("stow"), "memory", "main"))
        store.write_bytes("mem://c/key", b"abc")
        held = store.read_raw("mem://c/key")
        try:
            store.read_raw("mem://c/no")
        except FileNotFoundError:
            pass
        in_progress = [line for line in generate_text().splitlines() if "in_progress" in line and '"read"' in line]
        print("# held", in_progress[0].split()[-1], flush=True)
        os._exit(0)

    if __name__ == "__main__":
        StoreMetrics(Scope("stow"), "memory", "main")
        workers = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
            worker.join(60)
            mark_process_dead(worker.pid)
        print(generate_text())
""")


def test_processes_are_added_up(tmp_path: Path) -> None:
    """In real multi-process mode every process's counts are in one scrape, killed ones included."""
    directory = tmp_path / "values"
    directory.mkdir()
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(directory),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    values = {
        (sample.name, *(sample.labels.get(label) for label in ("operation", "outcome", "code"))): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    assert values["stow_operations_total", "write", "ok", None] == 3
    assert values["stow_operations_total", "read", "ok", None] == 0
    assert values["stow_operations_total", "read", "expected_error", None] == 3
    assert values["stow_operation_errors_total", "read", None, "NOT_FOUND"] == 3
    assert values["stow_operation_size_bytes_sum", "write", None, None] == 9
    assert values["stow_operations_in_progress", "read", None, None] == 0
    assert done.stdout.count("# held 1.0") == 3


def test_promtool_accepts_what_is_exposed(
    store: MeasuredStore, registry: CollectorRegistry, promtool: Promtool
) -> None:
    """Prometheus' own linter finds nothing to say about names, help and types."""
    store.write_bytes(REF, b"x")
    text = "\n".join(line for line in generate_text(registry).splitlines() if "_created" not in line) + "\n"
    done = promtool.run("check", "metrics", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_scrapes_it(recorders: None, prometheus_server: Any) -> None:
    """A real Prometheus scrapes a store's metrics and answers the dashboard's kind of questions about them."""
    registry = CollectorRegistry()
    location = f"scraped-{os.getpid()}-{time.monotonic_ns()}"
    store = MeasuredStore(MemoryStore(), StoreMetrics(Scope("stow", registry), "memory", location))
    address: Address = prometheus_server.address
    selected = f'{{location="{location}",operation="write"}}'
    with start_http_server(registry=registry) as server:
        add_target(address, f"127.0.0.1:{server.port}")
        for _ in range(7):
            store.write_bytes(REF, b"x" * 100)
        for _ in range(100):
            answer = query(address, f"sum (stow_operations_total{selected})")
            if answer and answer[0]["value"][1] == "7":
                break
            time.sleep(0.1)
        assert answer[0]["value"][1] == "7"
        mean = f"stow_operation_size_bytes_sum{selected} / stow_operation_size_bytes_count{selected}"
        assert [sample["value"][1] for sample in query(address, mean)] == ["100"]
