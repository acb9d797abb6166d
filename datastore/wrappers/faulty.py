"""Faults on order: a store that fails where a test tells it to.

    store = FaultyStore(MemoryStore(), [
        Rule(Raise(TransientError, when=When.AFTER), operations={Operation.WRITE}, nth=1),   # a lost answer
        Rule(BreakStream(after=1000), operations={Operation.READ}, probability=0.1),
    ], seed=7)

Every rule counts the calls it matches; the first rule that fires decides what happens to a call, `Delay` alone lets
the next ones look too.  Equal seeds and equal calls, in one thread, give equal faults.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType

from attrs import field, frozen

from datastore import context
from datastore.errors import StoreError, TransientError
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
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["BreakStream", "Delay", "Fault", "FaultyStore", "Raise", "Rule", "Stall", "Truncate", "When"]

#: Makes an error of a message: an exception's class, or a function that fills in more.
MakeError = Callable[[str], BaseException]


class When(StrEnum):
    """On which side of its effect an operation fails."""

    BEFORE = "before"
    AFTER = "after"
    """The operation took effect, its answer is lost."""


@frozen
class Raise:
    """Raises an error before or after the operation took effect."""

    error: MakeError = TransientError
    when: When = field(default=When.BEFORE, kw_only=True)


@frozen
class Delay:
    """Lets the operation wait so many seconds, then take its course; the deadline of the caller holds."""

    seconds: float


@frozen(kw_only=True)
class Truncate:
    """Ends a read stream after so many bytes as if the object ended there: what a cut connection looks like."""

    after: int


@frozen(kw_only=True)
class BreakStream:
    """Raises after so many bytes: of what is read, or of the source while it is being written."""

    after: int
    error: MakeError = TransientError


@frozen(kw_only=True)
class Stall:
    """Stops for good after so many bytes of a read (other operations: before they start).

    It ends with the caller's deadline or cancellation, or with `FaultyStore.release`, after which all goes on.
    """

    after: int = 0


Fault = Raise | Delay | Truncate | BreakStream | Stall


@frozen(eq=False)
class Rule:
    """When a fault happens: for these operations (all by default), keys that match a shell pattern, and then

    for the ``nth`` such call only (from 1), at most ``times`` times, and with a ``probability``.
    """

    fault: Fault
    operations: Collection[Operation] = field(default=tuple(Operation), kw_only=True)
    keys: str = field(default="*", kw_only=True)
    nth: int | None = field(default=None, kw_only=True)
    times: int | None = field(default=None, kw_only=True)
    probability: float = field(default=1.0, kw_only=True)


class FaultyStore(StoreWrapper):
    """A store with faults; thread-safe.

    ``calls`` counts the calls by operation, ``fired`` the faults by rule.
    """

    _of_this_process = MappingProxyType({"_lock": threading.Lock, "_released": threading.Event})

    def __init__(self, inner: Store, rules: Iterable[Rule] = (), *, seed: int = 0) -> None:
        super().__init__(inner)
        self.calls: Counter[Operation] = Counter()
        self.fired: Counter[Rule] = Counter()
        self._matched: Counter[Rule] = Counter()
        self._rules = list(rules)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._released = threading.Event()

    def add(self, *rules: Rule) -> None:
        """Adds rules behind those there are."""
        with self._lock:
            self._rules.extend(rules)

    def clear(self) -> None:
        """Forgets all rules, keeps the counts."""
        with self._lock:
            self._rules.clear()

    def release(self) -> None:
        """Lets everything stalled go on, now and later."""
        self._released.set()

    def head(self, reference: Reference) -> Metadata:
        with self._disturbed(Operation.HEAD, reference):
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
        with self._disturbed(Operation.LIST, prefix):
            return self._inner.list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        with self._disturbed(Operation.READ, reference) as fault:
            stream = self._inner.read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match)
            if isinstance(fault, Raise):
                stream.close()
        if fault is None:
            return stream
        return ReadStream(_FaultyBody(stream, fault, self._released), stream.size, stream.metadata)

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        with self._disturbed(Operation.WRITE, reference) as fault:
            if isinstance(fault, BreakStream):
                source = stream if isinstance(stream, Source) else Source(stream, size)
                source.read(fault.after)
                raise fault.error(f"injected: the connection broke after {source.position} bytes were sent")
            return self._inner.write_raw(reference, size, options, stream)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        with self._disturbed(Operation.DELETE, reference):
            self._inner.delete(reference, missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        refs = [as_reference(reference) for reference in references]
        with self._disturbed(Operation.DELETE_MANY, *refs):
            return self._inner.delete_many(refs)

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        with self._disturbed(Operation.COPY, source, destination):
            return self._inner.copy_raw(source, destination, options)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        with self._disturbed(Operation.SIGN, reference):
            return self._inner.create_signed_url(reference, properties)

    @contextmanager
    def _disturbed(self, operation: Operation, *references: Reference) -> Iterator[Fault | None]:
        fault = self._choose(operation, [as_reference(reference).key for reference in references])
        match fault:
            case Raise(when=When.BEFORE):
                raise fault.error(f"injected before {operation.value}")
            case Stall() if operation is not Operation.READ:
                context.wait_for(self._released)
        yield fault
        if isinstance(fault, Raise):
            raise fault.error(f"injected after {operation.value}: the answer is lost")

    def _choose(self, operation: Operation, keys: Collection[str]) -> Fault | None:
        pause = 0.0
        chosen: Fault | None = None
        with self._lock:
            self.calls[operation] += 1
            for rule in self._rules:
                if operation not in rule.operations or not _matches(rule.keys, keys):
                    continue
                self._matched[rule] += 1
                if rule.nth is not None and self._matched[rule] != rule.nth:
                    continue
                if rule.times is not None and self.fired[rule] >= rule.times:
                    continue
                if rule.probability < 1 and self._random.random() >= rule.probability:
                    continue
                self.fired[rule] += 1
                if not isinstance(rule.fault, Delay):
                    chosen = rule.fault
                    break
                pause += rule.fault.seconds
        if pause:
            context.sleep(pause)
        return chosen


class _FaultyBody:
    """Another stream's bytes, disturbed."""

    def __init__(self, stream: ReadStream, fault: Fault, released: threading.Event) -> None:
        self._stream = stream
        self._fault = fault
        self._released = released

    def read(self, size: int, /) -> bytes:
        fault, position = self._fault, self._stream.position
        if isinstance(fault, (Truncate, BreakStream, Stall)):
            if position < fault.after:
                size = min(size, fault.after - position)
            elif isinstance(fault, Truncate):
                return b""
            elif isinstance(fault, BreakStream):
                raise fault.error(f"injected: the connection broke after {position} bytes")
            else:
                context.wait_for(self._released, self._stream.limits)
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


def _matches(pattern: str, keys: Collection[str]) -> bool:
    # A batch without keys is a call all the same.
    return pattern == "*" or any(fnmatchcase(key, pattern) for key in keys)
