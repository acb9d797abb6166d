"""Protocol buffers kept as objects.

`read_protobuf` and `write_protobuf` work over any store; `ProtobufStore` is the wrapper that has them as methods and
tells how they went.  Needs the extra ``stowstore[protobuf]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from datastore.errors import ConfigError, MarshalFailed, StoreError, UnmarshalFailed, is_failed_write_to_cache
from datastore.protocol import Reference, Store
from datastore.wrappers.base import StoreWrapper, as_reference

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from datastore.model import Metadata, WriteOptions

    M = TypeVar("M", bound=Message)
else:
    M = TypeVar("M")

__all__ = ["DEFAULT_MAX_BYTES", "ProtobufEvent", "ProtobufHook", "ProtobufStore", "read_protobuf", "write_protobuf"]

#: What a message read may transfer by default, as upstream: unlike a stream, a message lies in memory whole.
DEFAULT_MAX_BYTES = 2 << 20


class ProtobufEvent(StrEnum):
    """A step of reading or writing a message, done or failed; named as upstream's metrics."""

    FETCHED = "proto_fetch"
    READ_FAILED = "read_failure_unrelated_to_cache"
    UNMARSHALLED = "unmarshal"
    UNMARSHAL_FAILED = "unmarshal_failure"
    MARSHALLED = "marshal"
    MARSHAL_FAILED = "marshal_failure"
    WRITE_FAILED = "write_failure_unrelated_to_cache"


#: Told of every event and how many seconds the step took.
ProtobufHook = Callable[[ProtobufEvent, float], None]


def read_protobuf(
    store: Store,
    reference: Reference,
    message: M,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    hook: ProtobufHook | None = None,
) -> M:
    """Reads an object into ``message``, which is cleared first, and returns it; an empty object is the default message.

    ``hook`` is told of every step and failure.

    Raises:
        NotFound: no such object.
        LimitExceeded: it is larger than ``max_bytes`` (0: no limit); nothing was transferred.
        UnmarshalFailed: it holds no such message; ``message`` is left clear.
        ConfigError: protobuf is not installed.
    """
    return _read(store, reference, message, max_bytes, hook or _nobody)


def write_protobuf(
    store: Store,
    reference: Reference,
    message: Message,
    options: WriteOptions | None = None,
    *,
    hook: ProtobufHook | None = None,
) -> Metadata:
    """Writes a message, encoded so that equal messages are equal bytes; ``hook`` is told of every step and failure.

    Raises:
        MarshalFailed: required fields are missing; nothing was written.
        ConfigError: protobuf is not installed.
    """
    return _write(store, reference, message, options, hook or _nobody)


class ProtobufStore(StoreWrapper):
    """A store that reads and writes messages too; ``hook`` is told of every step and failure, for metrics."""

    def __init__(self, inner: Store, *, max_bytes: int = DEFAULT_MAX_BYTES, hook: ProtobufHook | None = None) -> None:
        super().__init__(inner)
        self._max_bytes = max_bytes
        self._hook = hook or _nobody

    def read_protobuf(self, reference: Reference, message: M, *, max_bytes: int | None = None) -> M:
        """See `read_protobuf`; ``max_bytes`` None is the limit of this store."""
        return _read(self._inner, reference, message, self._max_bytes if max_bytes is None else max_bytes, self._hook)

    def write_protobuf(self, reference: Reference, message: Message, options: WriteOptions | None = None) -> Metadata:
        """See `write_protobuf`."""
        return _write(self._inner, reference, message, options, self._hook)


def _read(store: Store, reference: Reference, message: M, max_bytes: int, hook: ProtobufHook) -> M:
    kind = _require_message(message)
    began = time.perf_counter()
    try:
        with store.read_raw(reference, max_bytes=max_bytes) as stream:
            data = stream.read()
    except StoreError as error:
        if not is_failed_write_to_cache(error):
            hook(ProtobufEvent.READ_FAILED, time.perf_counter() - began)
        raise
    read = time.perf_counter()
    hook(ProtobufEvent.FETCHED, read - began)
    message.Clear()
    try:
        message.ParseFromString(data)
    except _protobuf_errors() as error:
        message.Clear()
        hook(ProtobufEvent.UNMARSHAL_FAILED, time.perf_counter() - read)
        raise UnmarshalFailed(
            f"the object's {len(data)} bytes are no {kind}: {error}", op="read", reference=str(as_reference(reference))
        ) from error
    hook(ProtobufEvent.UNMARSHALLED, time.perf_counter() - read)
    return message


def _write(
    store: Store, reference: Reference, message: Message, options: WriteOptions | None, hook: ProtobufHook
) -> Metadata:
    kind = _require_message(message)
    began = time.perf_counter()
    try:
        data = message.SerializeToString(deterministic=True)
    except _protobuf_errors() as error:
        hook(ProtobufEvent.MARSHAL_FAILED, time.perf_counter() - began)
        raise MarshalFailed(
            f"the {kind} cannot be encoded: {error}", op="write", reference=str(as_reference(reference))
        ) from error
    encoded = time.perf_counter()
    hook(ProtobufEvent.MARSHALLED, encoded - began)
    try:
        return store.write_raw(reference, len(data), options, data)
    except StoreError as error:
        if not is_failed_write_to_cache(error):
            hook(ProtobufEvent.WRITE_FAILED, time.perf_counter() - encoded)
        raise


def _require_message(message: object) -> str:
    """The full name of a message's type."""
    try:
        from google.protobuf.message import Message
    except ImportError as error:
        raise ConfigError("messages need protobuf", hint='pip install "stowstore[protobuf]"') from error
    if not isinstance(message, Message):
        raise TypeError(f"a message of protobuf is read or written, not {type(message).__name__}")
    return str(message.DESCRIPTOR.full_name)


def _protobuf_errors() -> tuple[type[Exception], ...]:
    from google.protobuf.message import DecodeError, EncodeError

    # Recursion and strings that are not UTF-8 come as other errors in some of protobuf's implementations.
    return DecodeError, EncodeError, RecursionError, UnicodeDecodeError


def _nobody(event: ProtobufEvent, seconds: float) -> None:
    """Hears nothing."""
