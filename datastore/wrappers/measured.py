"""Measuring a store: how often, how long, how much, how it ended.

`StoreMetrics` holds the numbers, `MeasuredStore` is the wrapper that feeds them, over any store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, NamedTuple, Self

from prometheus_client import Counter, Gauge

from datastore.errors import ErrorCode, StoreError, error_code
from datastore.metric_names import (
    CACHE_REQUESTS,
    CONTAINERS_LOADED,
    EXPECTED_ERRORS,
    RETRIES,
    Backend,
    CacheResult,
    Operation,
    Outcome,
    RetryReason,
)
from datastore.model import (
    Cursor,
    ListPage,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
)
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import Body, ReadStream
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.recording import ClientRecorder, Recorder, StoreCollector
from metrics import Scope, is_multiprocess

__all__ = ["MeasuredStore", "OperationEvent", "StoreMetrics"]


class OperationEvent(NamedTuple):
    """One operation that ended, for logs and traces.

    ``first_byte`` is None for what is not a read, and for a read that got nothing; ``error`` is None unless
    one was raised, and ``code`` unless the outcome is not ok.
    """

    operation: Operation
    reference: Reference | None
    outcome: Outcome
    code: ErrorCode | None
    seconds: float
    size: int
    first_byte: float | None
    error: BaseException | None


Observer = Callable[[OperationEvent], None]


class StoreMetrics:
    """The metrics of one store, under a scope; thread-safe.

    All series of a store exist from here on, so ``rate()`` sees their first change.  Two objects for the same scope,
    backend and location share their numbers: make as many as there are stores.  In the default registry they can be
    pickled; the receiving process counts for itself.  ``expected_errors`` are the codes that count as answers rather
    than faults.
    """

    def __init__(
        self,
        scope: Scope,
        backend: str,
        location: str,
        *,
        expected_errors: frozenset[ErrorCode] = EXPECTED_ERRORS,
    ) -> None:
        if not location:
            raise ValueError("a measured store needs a location's name to be told apart by: use 'main'")
        self.scope: Final = scope
        self.backend: Final = Backend.of(backend)
        self.location: Final = location
        self.expected_errors: Final = expected_errors
        store = (self.backend.value, location)
        self.recorders: Mapping[Operation, Recorder]
        if is_multiprocess():
            self.recorders = {operation: ClientRecorder(scope, *store, operation) for operation in Operation}
        else:
            self.recorders = scope.collector("operations", lambda: StoreCollector(scope)).recorders(*store)
        retries, requests = RETRIES.counter(scope), CACHE_REQUESTS.counter(scope)
        self.retries: Final[Mapping[tuple[Operation, RetryReason], Counter]] = {
            (operation, reason): retries.labels(*store, operation.value, reason.value)
            for operation in Operation
            for reason in RetryReason
        }
        self.cache_requests: Final[Mapping[tuple[Operation, CacheResult], Counter]] = {
            (operation, result): requests.labels(*store, operation.value, result.value)
            for operation in (Operation.HEAD, Operation.READ)
            for result in CacheResult
        }
        self.containers_loaded: Final[Gauge] = CONTAINERS_LOADED.gauge(scope).labels(*store)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade_metrics, (self.scope, self.backend.value, self.location, self.expected_errors)

    def classify(self, error: BaseException) -> tuple[Outcome, ErrorCode]:
        """How an operation that raised ``error`` ended."""
        if isinstance(error, StoreError):
            code = error.code
        else:
            # KeyboardInterrupt, asyncio.CancelledError and their kin: the caller's doing.
            code = error_code(error) if isinstance(error, Exception) else ErrorCode.CANCELLED
        if code is ErrorCode.CANCELLED:
            return Outcome.CANCELLED, code
        return (Outcome.EXPECTED_ERROR if code in self.expected_errors else Outcome.ERROR), code

    @contextmanager
    def measure(self, operation: Operation) -> Iterator[None]:
        """Records the block as one operation, for those that are not of the `DataStore` protocol."""
        recorder = self.recorders[operation]
        recorder.begin()
        began = perf_counter()
        try:
            yield
        except BaseException as error:
            recorder.fail(*self.classify(error), perf_counter() - began)
            raise
        recorder.succeed(perf_counter() - began)


class MeasuredStore(StoreWrapper):
    """A store that records every operation of another one.

    A read lasts until its stream ends, fails or is closed; closed before its end it is cancelled.  ``observer`` is told
    of every operation that ended, in the thread it ended in; what it raises reaches the caller.  Costs one microsecond
    a write and two a read; in multi-process mode, whose numbers lie in files, some fifteen.
    """

    def __init__(self, inner: Store, metrics: StoreMetrics, *, observer: Observer | None = None) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._observer = observer
        self._reads = metrics.recorders[Operation.READ]
        self._writes = metrics.recorders[Operation.WRITE]

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        self._reads.begin()
        began = perf_counter()
        try:
            stream = self._inner.read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match)
        except BaseException as error:
            self._failed(Operation.READ, reference, began, error)
            raise
        reading = _Reading(self, reference, began)
        if stream.in_memory:
            reading.first_byte = perf_counter() - began
        else:
            stream.replace_body(reading.wait_for)
        stream.add_finisher(reading)
        return stream

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        self._writes.begin()
        began = perf_counter()
        try:
            written = self._inner.write_raw(reference, size, options, stream)
        except BaseException as error:
            self._failed(Operation.WRITE, reference, began, error)
            raise
        seconds = perf_counter() - began
        self._writes.succeed(seconds, written.size)
        if self._observer is not None:
            self._observer(_event(Operation.WRITE, reference, seconds, written.size))
        return written

    def head(self, reference: Reference) -> Metadata:
        with self._operation(Operation.HEAD, reference):
            return self._inner.head(reference)

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        with self._operation(Operation.LIST, prefix):
            return self._inner.list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        with self._operation(Operation.DELETE, reference):
            self._inner.delete(reference, missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        with self._operation(Operation.DELETE_MANY, None) as operation:
            failed = self._inner.delete_many(references)
            # One call is one operation: it fails as its worst object did.
            operation.error = min(failed.values(), key=self._severity, default=None)
            return failed

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        with self._operation(Operation.COPY, source):
            return self._inner.copy_raw(source, destination, options)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        with self._operation(Operation.SIGN, reference):
            return self._inner.create_signed_url(reference, properties)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._inner, self._metrics, self._observer)

    def _operation(self, operation: Operation, reference: Reference | None) -> _Operation:
        return _Operation(self, operation, reference)

    def _severity(self, error: StoreError) -> int:
        return 0 if self._metrics.classify(error)[0] is Outcome.ERROR else 1

    def _failed(
        self,
        operation: Operation,
        reference: Reference | None,
        began: float,
        error: BaseException | None,
        size: int = 0,
        first_byte: float | None = None,
    ) -> None:
        seconds = perf_counter() - began
        if error is None:
            outcome, code = Outcome.CANCELLED, ErrorCode.CANCELLED
        else:
            outcome, code = self._metrics.classify(error)
        self._metrics.recorders[operation].fail(outcome, code, seconds, size, first_byte)
        if self._observer is not None:
            self._observer(OperationEvent(operation, reference, outcome, code, seconds, size, first_byte, error))


class _Operation:
    """One operation that moves no bytes, as a block; ``error`` is for failures that are returned, not raised."""

    __slots__ = ("_began", "_operation", "_reference", "_store", "error")

    def __init__(self, store: MeasuredStore, operation: Operation, reference: Reference | None) -> None:
        self._store = store
        self._operation = operation
        self._reference = reference
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._store._metrics.recorders[self._operation].begin()
        self._began = perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        store = self._store
        error = error or self.error
        if error is not None:
            store._failed(self._operation, self._reference, self._began, error)
            return
        seconds = perf_counter() - self._began
        store._metrics.recorders[self._operation].succeed(seconds)
        if store._observer is not None:
            store._observer(_event(self._operation, self._reference, seconds))


class _Reading:
    """One open read: the finisher of its stream, and the body it reads through where there is one to wait for."""

    __slots__ = ("_began", "_reference", "_store", "body", "first_byte")

    def __init__(self, store: MeasuredStore, reference: Reference, began: float) -> None:
        self._store = store
        self._reference = reference
        self._began = began
        self.body: Body | None = None
        self.first_byte: float | None = None

    def wait_for(self, body: Body) -> _Reading:
        self.body = body
        return self

    def read(self, size: int, /) -> bytes:
        assert self.body is not None
        piece = self.body.read(size)
        if self.first_byte is None:
            self.first_byte = perf_counter() - self._began
        return piece

    def close(self) -> None:
        assert self.body is not None
        self.body.close()

    def __call__(self, stream: ReadStream, error: BaseException | None) -> None:
        store = self._store
        size = stream.position
        if error is not None or size != stream.size:
            store._failed(Operation.READ, self._reference, self._began, error, size, self.first_byte)
            return
        seconds = perf_counter() - self._began
        store._reads.succeed(seconds, size, self.first_byte)
        if store._observer is not None:
            store._observer(_event(Operation.READ, self._reference, seconds, size, self.first_byte))


def _event(
    operation: Operation,
    reference: Reference | None,
    seconds: float,
    size: int = 0,
    first_byte: float | None = None,
) -> OperationEvent:
    return OperationEvent(operation, reference, Outcome.OK, None, seconds, size, first_byte, None)


def _remade(inner: Store, metrics: StoreMetrics, observer: Observer | None) -> MeasuredStore:
    return MeasuredStore(inner, metrics, observer=observer)


def _remade_metrics(scope: Scope, backend: str, location: str, expected: frozenset[ErrorCode]) -> StoreMetrics:
    return StoreMetrics(scope, backend, location, expected_errors=expected)
