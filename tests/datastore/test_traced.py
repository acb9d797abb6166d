"""Tracing: what spans say of operations, and whose children they are."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("opentelemetry.sdk", reason='install "opentelemetry-sdk"')

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from datastore import DataReference, MemoryStore, WriteOptions
from datastore.errors import AlreadyExists, InvalidReference, NotFound, StoreError
from datastore.metric_names import Operation
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule
from datastore.wrappers.retrying import RetryingStore, RetryPolicy
from datastore.wrappers.traced import TracedStore

_ROOT = DataReference("mem://traced")
_KEY = _ROOT.join("a", "key")


class _Traced:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")
        self.store = TracedStore(MemoryStore(), self.tracer)

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def last(self) -> ReadableSpan:
        return self.spans()[-1]


@pytest.fixture
def traced() -> _Traced:
    return _Traced()


def test_a_span_says_what_was_done_and_where(traced: _Traced) -> None:
    """Each operation is one span of kind client, with its place, and the bytes or objects that went over."""
    store = traced.store
    store.write_bytes(_KEY, b"12345")
    store.head(_KEY)
    store.list_page(_ROOT)
    store.copy_raw(_KEY, _ROOT.join("copy"))
    store.delete_many([_ROOT.join("copy"), _ROOT.join("none")])
    store.delete(_KEY)

    found = [(span.name, dict(span.attributes or {})) for span in traced.spans()]
    place = {"stow.scheme": "mem", "stow.container": "traced", "stow.key": "a/key"}
    assert found == [
        ("stow write", {"stow.operation": "write", **place, "stow.bytes": 5}),
        ("stow head", {"stow.operation": "head", **place}),
        ("stow list", {"stow.operation": "list", **place, "stow.key": "", "stow.objects": 1}),
        ("stow copy", {"stow.operation": "copy", **place, "stow.bytes": 5}),
        ("stow delete_many", {"stow.operation": "delete_many", "stow.objects": 2}),
        ("stow delete", {"stow.operation": "delete", **place}),
    ]
    assert {span.kind for span in traced.spans()} == {SpanKind.CLIENT}
    assert {span.status.status_code for span in traced.spans()} == {StatusCode.UNSET}


def test_a_read_lasts_until_its_stream_ends(traced: _Traced) -> None:
    """A read's span is there when everything was read or the stream was closed, with the bytes that were read."""
    traced.store.write_bytes(_KEY, bytes(100))
    stream = traced.store.read_raw(_KEY)
    assert stream.read(40) == bytes(40)
    assert traced.last().name == "stow write"
    stream.close()
    assert (traced.last().name, (traced.last().attributes or {})["stow.bytes"]) == ("stow read", 40)
    with traced.store.read_raw(_KEY) as whole:
        whole.read()
    assert (traced.last().attributes or {})["stow.bytes"] == 100


@pytest.mark.parametrize(
    ("act", "error", "code"),
    [
        (lambda store: store.copy_raw(_ROOT.join("none"), _KEY), NotFound, "NOT_FOUND"),
        (lambda store: store.read_bytes(_ROOT.join("none")), NotFound, "NOT_FOUND"),
        (
            lambda store: store.write_raw(_KEY, None, WriteOptions(if_absent=True), io.BytesIO(b"again")),
            AlreadyExists,
            "ALREADY_EXISTS",
        ),
        (lambda store: store.head("mem://traced/../other"), InvalidReference, "INVALID_REFERENCE"),
    ],
    ids=["copy", "read", "write", "reference"],
)
def test_an_error_is_told_by_its_code(traced: _Traced, act: object, error: type[StoreError], code: str) -> None:
    """What raises has status error and the code of the taxonomy, and raises as it does without tracing."""
    traced.store.write_bytes(_KEY, b"there")
    with pytest.raises(error):
        act(traced.store)  # type: ignore[operator]
    assert traced.last().status.status_code is StatusCode.ERROR
    assert (traced.last().attributes or {})["error.type"] == code


def test_a_broken_stream_fails_its_span(traced: _Traced) -> None:
    """A read that breaks half-way is an error, told when it breaks."""
    broken = FaultyStore(traced.store.inner, [Rule(BreakStream(after=10), operations=[Operation.READ])])
    store = TracedStore(broken, traced.tracer)
    store.write_bytes(_KEY, bytes(100))
    with pytest.raises(StoreError), store.read_raw(_KEY) as stream:
        stream.read()
    assert traced.last().status.status_code is StatusCode.ERROR


def test_spans_are_children_of_the_callers(traced: _Traced) -> None:
    """Operations belong to the span around them; below retries each attempt is a span of the operation above."""
    attempts = TracedStore(
        FaultyStore(MemoryStore(), [Rule(Raise(), operations=[Operation.HEAD], times=2)]), traced.tracer
    )
    store = TracedStore(RetryingStore(attempts, RetryPolicy(attempts=5), sleep=lambda _: None), traced.tracer)
    store.write_bytes(_KEY, b"x")
    with traced.tracer.start_as_current_span("job") as job:
        store.head(_KEY)

    heads = [span for span in traced.spans() if span.name == "stow head"]
    assert len(heads) == 4
    operation = heads[-1]
    assert operation.parent is not None
    assert operation.parent.span_id == job.get_span_context().span_id
    assert {span.parent.span_id for span in heads[:-1] if span.parent} == {operation.context.span_id}
    assert [span.status.status_code for span in heads[:-1]] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]


def test_a_tracer_stays_where_it_is(traced: _Traced) -> None:
    """A tracer belongs to its process: a store that travels uses the provider it finds."""
    state = traced.store.__getstate__()
    arrived = TracedStore.__new__(TracedStore)
    arrived.__setstate__(state)

    arrived.write_bytes(_KEY, b"x")

    assert arrived.read_bytes(_KEY) == b"x"
    assert traced.spans() == []
