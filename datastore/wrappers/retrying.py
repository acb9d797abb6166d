"""Trying again what may succeed later, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from datastore import context
from datastore.errors import (
    AlreadyExists,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from datastore.metric_names import Operation
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
from datastore.stream import ReadStream
from datastore.wrappers._backoff import Backoff, RetryEvent, RetryPolicy
from datastore.wrappers._lost_answers import copied_by_us, written_by_us
from datastore.wrappers._resuming import ResumingBody
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["RetryEvent", "RetryPolicy", "RetryingStore"]

T = TypeVar("T")

_READ_ONCE = "the stream cannot be read twice: write again, or give bytes or a seekable file"


class RetryingStore(StoreWrapper):
    """A store that tries again after errors that are ``retryable``, within the policy and the caller's deadline.

    - What is sent twice is the same twice: a source that cannot be rewound is not sent again, and the error says so.
    - An answer may be lost after the backend did its work.  A conditional write or copy that then finds its condition
      broken counts as done if what is there now has exactly its content (somebody else's equal content cannot be told
      apart: a writer who must know makes its content unique); otherwise the error says that an earlier try may
      have taken effect.
    - A stream that breaks half-way goes on where it broke, as long as the object is the same; every piece that arrives
      starts the count of the policy anew.
    - ``delete(missing_ok=False)`` asks for the object first, as nobody could tell afterwards who removed it.

    When it gives up the last error is raised; when the deadline leaves no time to wait, `DeadlineExceeded` from it.
    ``on_retry`` is called before each wait.  ``sleep`` (seconds) and ``random`` (0 to 1) are replaced in tests.
    """

    def __init__(
        self,
        inner: Store,
        policy: RetryPolicy | None = None,
        on_retry: Callable[[RetryEvent], None] | None = None,
        *,
        sleep: Callable[[float], None] = context.sleep,
        random: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._on_retry = on_retry
        self._sleep = sleep
        self._random = random

    @property
    def policy(self) -> RetryPolicy:
        return self._policy

    def head(self, reference: Reference) -> Metadata:
        try:
            return self._inner.head(reference)
        except StoreError as error:
            return self._again(Operation.HEAD, reference, error, partial(self._inner.head, reference))

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        try:
            return self._inner.list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)
        except StoreError as error:
            inner = self._inner.list_page
            call = partial(inner, prefix, max_items, cursor, delimiter=delimiter, directory=directory)
            return self._again(Operation.LIST, prefix, error, call)

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        try:
            stream = self._inner.read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match)
        except StoreError as error:
            call = partial(self._inner.read_raw, reference, start, length, max_bytes=max_bytes, if_match=if_match)
            stream = self._again(Operation.READ, reference, error, call)
        if not stream.in_memory:
            stream.replace_body(ResumingBody(self._inner, reference, start, stream, self.backoff).before)
        return stream

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        try:
            if isinstance(stream, Source):
                source = stream
            else:
                source = Source(stream, size, content_md5=None if options is None else options.content_md5)
        except StoreError as error:
            error.about("write", as_reference(reference))
            raise
        try:
            return self._inner.write_raw(reference, size, options, source)
        except StoreError as error:
            return self._write_again(reference, size, options, source, error)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        if not missing_ok and not self.head(reference).exists:
            raise NotFound("there is no such object", op="delete", reference=str(as_reference(reference)))
        try:
            self._inner.delete(reference)
        except StoreError as error:
            self._again(Operation.DELETE, reference, error, partial(self._inner.delete, reference))

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        waiting = [as_reference(reference) for reference in references]
        failed: dict[DataReference, StoreError] = {}
        backoff: Backoff | None = None
        while True:
            found: Mapping[DataReference, StoreError] = {}
            try:
                found = self._inner.delete_many(waiting)
                again = [ref for ref, error in found.items() if error.retryable]
                failed.update((ref, error) for ref, error in found.items() if not error.retryable)
                if not again:
                    return failed
                waiting, worst = again, found[again[0]]
            except StoreError as error:
                worst = error
            backoff = backoff or self.backoff(Operation.DELETE_MANY, waiting[0] if waiting else self.base_container_fqn)
            if not backoff.wait(worst):
                if not found:
                    raise worst
                return {**failed, **found}

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        try:
            return self._inner.copy_raw(source, destination, options)
        except StoreError as error:
            call = partial(self._inner.copy_raw, source, destination, options)
            try:
                return self._again(Operation.COPY, destination, error, call)
            except (AlreadyExists, PreconditionFailed) as refused:
                if refused is error:
                    raise
                return copied_by_us(self, source, destination, refused)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        try:
            return self._inner.create_signed_url(reference, properties)
        except StoreError as error:
            call = partial(self._inner.create_signed_url, reference, properties)
            return self._again(Operation.SIGN, reference, error, call)

    def call(self, operation: Operation, reference: Reference, act: Callable[[], T]) -> T:
        """Runs something that is no operation of the protocol, and may be repeated, by the same policy."""
        try:
            return act()
        except StoreError as error:
            return self._again(operation, reference, error, act)

    def backoff(self, operation: Operation, reference: Reference) -> Backoff:
        """The waits of one operation that has failed; for code that has a loop of its own."""
        return Backoff(self._policy, operation, reference, self._on_retry, self._sleep, self._random)

    def _write_again(
        self, reference: Reference, size: int | None, options: WriteOptions | None, source: Source, error: StoreError
    ) -> Metadata:
        backoff = self.backoff(Operation.WRITE, reference)
        first = error
        while error.retryable:
            if not source.rewind():
                error.hint = error.hint or _READ_ONCE
                break
            if not backoff.wait(error):
                break
            try:
                return self._inner.write_raw(reference, size, options, source)
            except StoreError as failure:
                error = failure
        if error is not first and isinstance(error, (AlreadyExists, PreconditionFailed)):
            return written_by_us(self, reference, source, error)
        raise error

    def _again(self, operation: Operation, reference: Reference, error: StoreError, call: Callable[[], T]) -> T:
        if not error.retryable:
            raise error
        return self.backoff(operation, reference).run(error, call)
