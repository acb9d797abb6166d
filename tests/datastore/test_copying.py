"""Copies: bytes, metadata, bounds, and which side failed."""

import base64
import hashlib
import tracemalloc
from typing import Any

import pytest

from datastore import Capabilities, DataReference, Feature, MemoryStore, ReadStream, WriteOptions
from datastore.copying import stream_copy
from datastore.errors import (
    AlreadyExists,
    DigestMismatch,
    LimitExceeded,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from datastore.metric_names import Operation
from datastore.model import CONTENT_MD5_KEY
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.cached import CachedStore, CachePolicy
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, Truncate
from datastore.wrappers.retrying import RetryingStore

SRC = DataReference("mem://from/k")
DST = DataReference("mem://to/k")
DATA = bytes(range(256)) * 40


@pytest.fixture
def source() -> MemoryStore:
    """A store with an object that has metadata of every kind."""
    store = MemoryStore()
    options = WriteOptions(
        content_type="text/plain",
        cache_control="no-cache",
        content_encoding="identity",
        content_disposition="inline",
        metadata={"a": "1", "b": "1"},
    )
    store.write_bytes(SRC, DATA, options)
    return store


def test_everything_is_carried_over(source: MemoryStore) -> None:
    """Upstream drops metadata and options."""
    destination = MemoryStore()
    stream_copy(source, SRC, destination, DST)
    known, found = source.head(SRC), destination.head(DST)
    assert destination.read_bytes(DST) == DATA
    for name in ("content_type", "cache_control", "content_encoding", "content_disposition", "user_metadata"):
        assert getattr(found, name) == getattr(known, name)


def test_options_override(source: MemoryStore) -> None:
    """Name by name."""
    destination = MemoryStore()
    stream_copy(source, SRC, destination, DST, WriteOptions(content_type="text/html", metadata={"B": "2"}))
    found = destination.head(DST)
    assert (found.content_type, found.cache_control) == ("text/html", "no-cache")
    assert found.user_metadata == {"a": "1", "b": "2"}


def test_conditions_are_those_of_the_destination(source: MemoryStore) -> None:
    """``if_absent`` protects what is there."""
    destination = MemoryStore()
    destination.write_bytes(DST, b"old")
    with pytest.raises(AlreadyExists, match=str(DST)):
        stream_copy(source, SRC, destination, DST, WriteOptions(if_absent=True))
    assert destination.read_bytes(DST) == b"old"


class Plain(StoreWrapper):
    """A store that keeps bytes only."""

    def capabilities(self, reference: Any = None) -> Capabilities:
        return Capabilities()

    def write_raw(self, reference: Any, size: Any, options: Any, stream: Any) -> Any:
        if options.metadata or options.content_type:
            raise NotSupported("bytes only")
        return super().write_raw(reference, size, options, stream)


def test_what_the_destination_cannot_keep_is_left_behind(source: MemoryStore) -> None:
    """Unless somebody asked for it by name."""
    destination = Plain(MemoryStore())
    stream_copy(source, SRC, destination, DST)
    assert destination.read_bytes(DST) == DATA
    with pytest.raises(NotSupported):
        stream_copy(source, SRC, destination, DST, WriteOptions(content_type="text/html"))


def test_download_limits_do_not_apply() -> None:
    """Upstream cannot copy what it may not read."""
    store = MemoryStore(max_download_bytes=10)
    store.write_bytes(SRC, DATA)
    with pytest.raises(LimitExceeded):
        store.read_raw(SRC)
    stream_copy(store, SRC, MemoryStore(), DST)
    store.copy_raw(SRC, DST)
    assert store.head(DST).size == len(DATA)


@pytest.mark.parametrize(
    ("rule", "side", "reference"),
    [
        (Rule(Raise(), operations=[Operation.READ]), "source", SRC),
        (Rule(BreakStream(after=100), operations=[Operation.READ]), "source", SRC),
        (Rule(Truncate(after=100), operations=[Operation.READ]), "source", SRC),
        (Rule(Raise(PermissionDenied), operations=[Operation.WRITE]), "destination", DST),
        (Rule(BreakStream(after=100), operations=[Operation.WRITE]), "destination", DST),
    ],
)
def test_an_error_names_the_side_that_failed(
    source: MemoryStore, rule: Rule, side: str, reference: DataReference
) -> None:
    """Also when the source fails in the middle of the write; nothing becomes visible."""
    destination = MemoryStore()
    from_store = FaultyStore(source, [rule] if side == "source" else [])
    to_store = FaultyStore(destination, [rule] if side == "destination" else [])
    with pytest.raises(StoreError) as caught:
        stream_copy(from_store, SRC, to_store, DST)
    assert caught.value.reference == str(reference)
    assert caught.value.op == ("read" if side == "source" else "write")
    assert not destination.exists(DST)


def test_the_source_is_closed_when_the_destination_fails(source: MemoryStore) -> None:
    """Upstream leaks it; here an unclosed stream would fail the test."""

    class Watched(StoreWrapper):
        def read_raw(self, *args: Any, **options: Any) -> ReadStream:
            stream = super().read_raw(*args, **options)
            streams.append(ReadStream(stream, stream.size, stream.metadata))
            return streams[-1]

    streams: list[ReadStream] = []
    destination = FaultyStore(MemoryStore(), [Rule(Raise(), operations=[Operation.WRITE])])
    with pytest.raises(TransientError):
        stream_copy(Watched(source), SRC, destination, DST)
    assert [stream.closed for stream in streams] == [True]


@pytest.mark.parametrize("missing", [SRC.container_reference.join("missing"), DataReference("mem://missing/k")])
def test_a_missing_source_is_named(source: MemoryStore, missing: DataReference) -> None:
    """Nothing is written."""
    destination = MemoryStore()
    for copy in (lambda: stream_copy(source, missing, destination, DST), lambda: source.copy_raw(missing, DST)):
        with pytest.raises(NotFound, match=str(missing)):
            copy()
    assert not destination.exists(DST)
    assert not source.exists(DST)


def test_a_write_that_is_tried_again_reads_the_source_again(source: MemoryStore) -> None:
    """Nothing is buffered, and what is read the second time is the same object."""
    destination = MemoryStore()
    flaky = FaultyStore(destination, [Rule(BreakStream(after=5000), operations=[Operation.WRITE], times=2)])
    from_store = FaultyStore(source)
    stream_copy(from_store, SRC, RetryingStore(flaky, sleep=lambda seconds: None), DST)
    assert destination.read_bytes(DST) == DATA
    assert from_store.calls[Operation.READ] == 3


def test_a_source_that_changes_meanwhile_is_not_mixed(source: MemoryStore) -> None:
    """The second reading must find the first one's etag."""

    def changed(text: str) -> TransientError:
        source.write_bytes(SRC, DATA[::-1])
        return TransientError(text)

    fault = BreakStream(after=5000, error=changed)
    flaky = FaultyStore(MemoryStore(), [Rule(fault, operations=[Operation.WRITE], times=1)])
    store = RetryingStore(flaky, sleep=lambda seconds: None)
    with pytest.raises(PreconditionFailed) as caught:
        stream_copy(source, SRC, store, DST)
    assert caught.value.reference == str(SRC)
    assert not store.exists(DST)


def test_a_declared_digest_is_verified_on_the_way() -> None:
    """An object that no longer has the digest its writer kept is not copied in silence."""
    store, destination = MemoryStore(), MemoryStore()
    digest = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    store.write_bytes(SRC, DATA, WriteOptions(metadata={CONTENT_MD5_KEY: digest}))
    stream_copy(store, SRC, destination, DST)
    assert destination.head(DST).content_md5 == digest
    store.write_bytes(SRC, DATA[1:], WriteOptions(metadata={CONTENT_MD5_KEY: digest}))
    destination.delete(DST)
    with pytest.raises(DigestMismatch):
        stream_copy(store, SRC, destination, DST)
    assert not destination.exists(DST)


def test_other_text_under_the_digests_name_is_only_data() -> None:
    """It is carried, not verified."""
    store, destination = MemoryStore(), MemoryStore()
    store.write_bytes(SRC, DATA, WriteOptions(metadata={CONTENT_MD5_KEY: "none"}))
    stream_copy(store, SRC, destination, DST)
    assert destination.head(DST).content_md5 == "none"


def test_copying_onto_itself_changes_nothing_but_metadata(source: MemoryStore) -> None:
    """Without options nothing at all."""
    before = source.head(SRC)
    assert source.copy_raw(SRC, SRC) == before
    assert source.head(SRC) == before
    source.copy_raw(SRC, SRC, WriteOptions(content_type="text/html"))
    assert source.head(SRC).content_type == "text/html"
    assert source.read_bytes(SRC) == DATA


def test_faults_of_caches_on_both_sides_are_no_errors(source: MemoryStore) -> None:
    """Neither cache can hold the object; the copy is whole."""
    from_store = CachedStore(source, CachePolicy(max_bytes=100))
    to_store = CachedStore(MemoryStore(), CachePolicy(max_bytes=100))
    stream_copy(from_store, SRC, to_store, DST)
    assert to_store.read_bytes(DST) == DATA


def test_memory_stays_bounded() -> None:
    """A copy never holds the object; upstream buffers it whole."""
    size = 64 << 20

    class Zeros:
        def __init__(self) -> None:
            self.left = size

        def read(self, wanted: int, /) -> bytes:
            piece = bytes(min(wanted, self.left, 1 << 20))
            self.left -= len(piece)
            return piece

        def close(self) -> None: ...

    class Large(StoreWrapper):
        def read_raw(self, *args: Any, **options: Any) -> ReadStream:
            known = self.inner.head(SRC)
            return ReadStream(Zeros(), size, known)

    class Drain(StoreWrapper):
        def write_raw(self, reference: Any, declared: Any, options: Any, stream: Any) -> Any:
            assert declared == size
            total = 0
            while piece := stream.read(1 << 18):
                total += len(piece)
            return self.inner.write_bytes(reference, str(total).encode())

    origin = MemoryStore()
    origin.write_bytes(SRC, b"")
    destination = Drain(MemoryStore())
    tracemalloc.start()
    try:
        stream_copy(Large(origin), SRC, destination, DST)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert destination.inner.read_bytes(DST) == str(size).encode()
    assert peak < 8 << 20


def test_features_are_those_of_the_destination(source: MemoryStore) -> None:
    """A store that can copy on its side says so."""
    assert Feature.SERVER_SIDE_COPY in source.capabilities()
