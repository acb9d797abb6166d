"""Messages as objects: upstream's ProtobufStore, over any store."""

import sys

import pytest
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from hypothesis import given
from hypothesis import strategies as st

from datastore import DataReference, MemoryStore, WriteOptions
from datastore.errors import (
    ConfigError,
    ErrorCode,
    LimitExceeded,
    MarshalFailed,
    NotFound,
    StoreError,
    TransientError,
    UnmarshalFailed,
    error_code,
    is_exceeds_limit,
    is_failed_write_to_cache,
    is_not_found,
)
from datastore.metric_names import Operation
from datastore.protobuf import DEFAULT_MAX_BYTES, ProtobufEvent, ProtobufStore, read_protobuf, write_protobuf
from datastore.wrappers.cached import CachedStore, CachePolicy
from datastore.wrappers.faulty import FaultyStore, Raise, Rule

REF = DataReference("mem://c/inputs.pb")


class Setup:
    """A protobuf store over faults over memory, and what it told."""

    def __init__(self, *rules: Rule) -> None:
        self.memory = MemoryStore()
        self.faulty = FaultyStore(self.memory, rules)
        self.events: list[ProtobufEvent] = []
        self.store = ProtobufStore(self.faulty, hook=self._hear)

    def _hear(self, event: ProtobufEvent, seconds: float) -> None:
        assert seconds >= 0
        self.events.append(event)


@given(st.text())
def test_a_message_comes_back_equal(text: str) -> None:
    """Whatever is in it; the object is its encoding."""
    store = MemoryStore()
    write_protobuf(store, REF, StringValue(value=text))
    assert read_protobuf(store, REF, StringValue()) == StringValue(value=text)
    assert store.read_bytes(REF) == StringValue(value=text).SerializeToString()


def test_options_are_passed_on() -> None:
    """Metadata and content type of the object."""
    store = MemoryStore()
    written = write_protobuf(store, REF, StringValue(value="x"), WriteOptions(metadata={"k": "v"}))
    assert written.size == 3
    assert store.head(REF).user_metadata == {"k": "v"}


def test_equal_messages_are_equal_bytes() -> None:
    """Maps are written in one order, so that digests can be compared."""
    keys = [f"key{number}" for number in range(20)]
    messages = [Struct(), Struct()]
    for message, order in zip(messages, (keys, reversed(keys)), strict=True):
        for key in order:
            message[key] = 1
    store = MemoryStore()
    assert len({write_protobuf(store, REF, message).etag for message in messages}) == 1


def test_the_message_is_cleared_first() -> None:
    """An empty object is the default message, whatever was in it before."""
    store = MemoryStore()
    store.write_bytes(REF, b"")
    message = StringValue(value="before")
    assert read_protobuf(store, REF, message) is message
    assert message == StringValue()


def test_what_is_no_such_message_is_an_error_of_the_store() -> None:
    """With the type, the reference, the cause's own words, and a clear message."""
    setup = Setup()
    setup.memory.write_bytes(REF, b"\xff\xff\xff")
    message = StringValue(value="before")
    with pytest.raises(UnmarshalFailed, match=r"^read mem://c/inputs.pb: .*3 bytes.*StringValue") as caught:
        setup.store.read_protobuf(REF, message)
    assert str(caught.value.__cause__) in str(caught.value)
    assert error_code(caught.value) is ErrorCode.UNMARSHAL_FAILED
    assert message == StringValue()
    assert setup.events == [ProtobufEvent.FETCHED, ProtobufEvent.UNMARSHAL_FAILED]


def test_text_that_is_not_utf8_is_the_same_error() -> None:
    """protobuf raises something else for it in some implementations."""
    store = MemoryStore()
    write_protobuf(store, REF, BytesValue(value=b"\xff\xfe"))
    with pytest.raises(UnmarshalFailed):
        read_protobuf(store, REF, StringValue())


def test_an_incomplete_message_is_not_written() -> None:
    """Required fields are named."""
    setup = Setup()
    with pytest.raises(MarshalFailed, match=r"^write mem://c/inputs.pb: .*name_part"):
        setup.store.write_protobuf(REF, UninterpretedOption.NamePart())
    assert not setup.memory.exists(REF)
    assert setup.events == [ProtobufEvent.MARSHAL_FAILED]


@pytest.mark.parametrize(("size", "fits"), [(DEFAULT_MAX_BYTES, True), (DEFAULT_MAX_BYTES + 1, False)])
def test_a_read_is_limited_before_it_transfers(size: int, fits: bool) -> None:
    """Two MiB by default, as upstream; exactly the limit passes."""
    store = MemoryStore()
    message = BytesValue(value=bytes(size - 4))
    assert write_protobuf(store, REF, message).size == size
    if fits:
        assert read_protobuf(store, REF, BytesValue()) == message
    else:
        with pytest.raises(LimitExceeded) as caught:
            read_protobuf(store, REF, BytesValue())
        assert is_exceeds_limit(caught.value)
        assert read_protobuf(store, REF, BytesValue(), max_bytes=0) == message
        assert ProtobufStore(store, max_bytes=size).read_protobuf(REF, BytesValue()) == message


def test_what_went_well_is_told_too() -> None:
    """In the order it happened."""
    setup = Setup()
    setup.store.write_protobuf(REF, StringValue(value="x"))
    setup.store.read_protobuf(REF, StringValue())
    assert setup.events == [ProtobufEvent.MARSHALLED, ProtobufEvent.FETCHED, ProtobufEvent.UNMARSHALLED]


@pytest.mark.parametrize(
    ("operation", "event"),
    [(Operation.READ, ProtobufEvent.READ_FAILED), (Operation.WRITE, ProtobufEvent.WRITE_FAILED)],
)
def test_failures_of_the_backend_keep_their_text(operation: Operation, event: ProtobufEvent) -> None:
    """They are counted as unrelated to the cache."""
    setup = Setup(Rule(Raise(lambda _: TransientError("the root of it")), operations=[operation]))
    call = setup.store.read_protobuf if operation is Operation.READ else setup.store.write_protobuf
    with pytest.raises(TransientError, match="the root of it") as caught:
        call(REF, StringValue())
    assert not is_failed_write_to_cache(caught.value)
    assert setup.events[-1] is event


def test_failures_of_a_foreign_cache_are_not_counted_as_the_backends() -> None:
    """The predicate knows them by their code."""

    class CacheError(StoreError):
        code = ErrorCode.CACHE_WRITE_FAILED

    setup = Setup(Rule(Raise(CacheError)))
    with pytest.raises(CacheError):
        setup.store.write_protobuf(REF, StringValue())
    assert setup.events == [ProtobufEvent.MARSHALLED]


def test_a_message_larger_than_the_cache() -> None:
    """A megabyte and a half over a cache of one is equal, and no error."""
    store = ProtobufStore(CachedStore(MemoryStore(), CachePolicy(max_bytes=1 << 20)))
    message = BytesValue(value=bytes(3 << 19))
    store.write_protobuf(REF, message)
    assert store.read_protobuf(REF, BytesValue()) == message


def test_a_missing_message_is_not_found() -> None:
    """As any object."""
    with pytest.raises(NotFound) as caught:
        read_protobuf(MemoryStore(), REF, StringValue())
    assert is_not_found(caught.value)


@pytest.mark.parametrize("what", [b"bytes", StringValue, None])
def test_what_is_no_message_is_refused(what: object) -> None:
    """By its type."""
    with pytest.raises(TypeError, match="message of protobuf"):
        write_protobuf(MemoryStore(), REF, what)  # type: ignore[arg-type]


def test_without_protobuf_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra; its absence cannot be had otherwise here."""
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    with pytest.raises(ConfigError, match=r'pip install "stowstore\[protobuf\]"'):
        read_protobuf(MemoryStore(), REF, StringValue())
