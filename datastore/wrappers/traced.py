"""Tracing a store with OpenTelemetry: a span an operation, a child of whatever span its caller is in.

Needs ``opentelemetry-api`` (``pip install "stowstore[tracing]"``); where spans go is the application's to configure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_tracer, use_span

from datastore.errors import StoreError, error_code
from datastore.metric_names import Operation
from datastore.model import Cursor, ListPage, Metadata, SignedURLProperties, SignedURLResponse, WriteOptions
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["TracedStore"]

_SCOPE: Final = "stowstore"

#: Attributes of spans; there is no convention for object stores in general, so they have a prefix of their own.
_OPERATION: Final = "stow.operation"
_SCHEME: Final = "stow.scheme"
_CONTAINER: Final = "stow.container"
_KEY: Final = "stow.key"
_BYTES: Final = "stow.bytes"
_COUNT: Final = "stow.objects"
_ERROR: Final = "error.type"


class TracedStore(StoreWrapper):
    """A store whose operations are spans named ``stow read`` and so on, of kind *client*.

    A span names scheme, container and key, and how many bytes or objects went over; never a query, a signed URL or
    anything of the options.  A read's span lasts until its stream ends, fails or is closed.  Spans of operations that
    raise have status *error* and the code of the error (`datastore.errors.ErrorCode`) as ``error.type``.  Whoever
    wraps below `datastore.wrappers.retrying` sees each attempt, above it each operation.

    ``tracer`` is the global provider's when it is None; it does not travel when the store is pickled.
    """

    _of_this_process: ClassVar[Mapping[str, Callable[[], Any]]] = {"_tracer": lambda: get_tracer(_SCOPE)}

    def __init__(self, inner: Store, tracer: Tracer | None = None) -> None:
        super().__init__(inner)
        self._tracer = tracer or get_tracer(_SCOPE)

    def head(self, reference: Reference) -> Metadata:
        with self._span(Operation.HEAD, reference):
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
        with self._span(Operation.LIST, prefix) as span:
            page = self._inner.list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)
            span.set_attribute(_COUNT, len(page.entries))
            return page

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        span = self._begin(Operation.READ, reference)
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                stream = self._inner.read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match)
        except BaseException as error:
            _fail(span, error)
            span.end()
            raise
        stream.add_finisher(_ReadingSpan(span))
        return stream

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        with self._span(Operation.WRITE, reference) as span:
            written = self._inner.write_raw(reference, size, options, stream)
            span.set_attribute(_BYTES, written.size)
            return written

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        with self._span(Operation.DELETE, reference):
            self._inner.delete(reference, missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        wanted = list(references)
        with self._span(Operation.DELETE_MANY, None) as span:
            span.set_attribute(_COUNT, len(wanted))
            failed = self._inner.delete_many(wanted)
            if failed:
                _fail(span, next(iter(failed.values())))
            return failed

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        with self._span(Operation.COPY, source) as span:
            copied = self._inner.copy_raw(source, destination, options)
            span.set_attribute(_BYTES, copied.size)
            return copied

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        with self._span(Operation.SIGN, reference):
            return self._inner.create_signed_url(reference, properties)

    @contextmanager
    def _span(self, operation: Operation, reference: Reference | None) -> Iterator[Span]:
        span = self._begin(operation, reference)
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            span.end()

    def _begin(self, operation: Operation, reference: Reference | None) -> Span:
        attributes: dict[str, Any] = {_OPERATION: operation.value}
        if reference is not None:
            # What is no reference is refused below, in the same way as without tracing.
            try:
                where = as_reference(reference)
            except StoreError:
                pass
            else:
                attributes |= {_SCHEME: where.scheme, _CONTAINER: where.container, _KEY: where.key}
        return self._tracer.start_span(f"stow {operation.value}", kind=SpanKind.CLIENT, attributes=attributes)


class _ReadingSpan:
    """The finisher of a stream whose reading is a span."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def __call__(self, stream: ReadStream, error: BaseException | None) -> None:
        self._span.set_attribute(_BYTES, stream.position)
        if error is not None:
            _fail(self._span, error)
        self._span.end()


def _fail(span: Span, error: BaseException) -> None:
    code = error_code(error).value if isinstance(error, Exception) else type(error).__name__
    span.set_attribute(_ERROR, code)
    span.set_status(Status(StatusCode.ERROR, error.message if isinstance(error, StoreError) else None))
