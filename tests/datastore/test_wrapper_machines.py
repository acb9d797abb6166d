"""State machines: wrappers over a failing store, against a dictionary that says what must be there."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from datastore import DataReference, MemoryStore, WriteOptions
from datastore.errors import AlreadyExists, NotFound, PreconditionFailed, TransientError
from datastore.metric_names import Operation
from datastore.wrappers.cached import CachedStore, CachePolicy
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, Truncate, When
from datastore.wrappers.retrying import RetryingStore, RetryPolicy

BASE = DataReference("mem://c")
KEYS = st.sampled_from(["a", "ab", "b/c", "b"])
SIZES = st.sampled_from([0, 1, 10, 300, 5000])


class Machine(RuleBasedStateMachine):
    """What the machines share: a memory, a model, and contents that are never equal."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore()
        self.model: dict[str, bytes] = {}
        self._number = 0

    def content(self, size: int) -> bytes:
        """New bytes of about this size."""
        self._number += 1
        return f"{self._number}:".encode().ljust(size, b".")

    def there(self) -> dict[str, bytes]:
        """What the backend holds."""
        return {ref.key: self.memory.read_bytes(ref) for ref in self.memory.list(BASE)[0]}


class CachedMachine(Machine):
    """A cache over a store that fails: it serves what the backend has, whoever failed and when."""

    @initialize(limit=st.sampled_from([0, 600, 20_000]), validating=st.booleans())
    def begin(self, limit: int, validating: bool) -> None:
        self.faulty = FaultyStore(self.memory)
        self.validating = validating
        policy = CachePolicy(max_bytes=limit + 3000, max_entry_bytes=limit, revalidate_after=0 if validating else None)
        self.store = CachedStore(self.faulty, policy)

    @rule(key=KEYS, size=SIZES, streamed=st.booleans(), when=st.none() | st.sampled_from(When))
    def write(self, key: str, size: int, streamed: bool, when: When | None) -> None:
        data = self.content(size)
        source: Any = iter([data[:5], data[5:]]) if streamed else data
        self.change(Operation.WRITE, {key: data}, when, self.store.write_raw, BASE.join(key), len(data), None, source)

    @rule(key=KEYS, when=st.none() | st.sampled_from(When))
    def delete(self, key: str, when: When | None) -> None:
        self.change(Operation.DELETE, {key: None}, when, self.store.delete, BASE.join(key))

    @rule(keys=st.sets(KEYS), when=st.none() | st.sampled_from(When))
    def delete_many(self, keys: set[str], when: When | None) -> None:
        refs = [BASE.join(key) for key in keys]
        self.change(Operation.DELETE_MANY, dict.fromkeys(keys), when, self.store.delete_many, refs)

    @rule(source=KEYS, destination=KEYS, when=st.none() | st.sampled_from(When))
    def copy(self, source: str, destination: str, when: When | None) -> None:
        if source in self.model:
            made = {destination: self.model[source]}
            self.change(Operation.COPY, made, when, self.store.copy_raw, BASE.join(source), BASE.join(destination))

    @rule(key=KEYS, size=SIZES)
    def others_write(self, key: str, size: int) -> None:
        """Only a cache that asks for etags may know."""
        if self.validating:
            self.model[key] = self.content(size)
            self.memory.write_bytes(BASE.join(key), self.model[key])

    @rule(key=KEYS, start=st.integers(-20, 20), length=st.none() | st.integers(0, 20))
    def read(self, key: str, start: int, length: int | None) -> None:
        ref = BASE.join(key)
        if key not in self.model:
            with pytest.raises(NotFound):
                self.store.read_raw(ref, start, length)
            assert not self.store.head(ref).exists
            return
        with self.store.read_raw(ref, start, length) as stream:
            assert stream.metadata == self.memory.head(ref)
            assert stream.read() == self.memory.read_bytes(ref, start, length)
        assert self.store.read_bytes(ref) == self.model[key]
        assert self.store.head(ref) == self.memory.head(ref)

    @rule(key=KEYS, fault=st.sampled_from([Raise(), Raise(when=When.AFTER), BreakStream(after=3), Truncate(after=3)]))
    def read_through_a_fault(self, key: str, fault: Any) -> None:
        """Right or an error, never a part."""
        self.faulty.add(Rule(fault, operations=[Operation.READ, Operation.HEAD], times=1))
        try:
            assert self.store.read_bytes(BASE.join(key)) == self.model[key]
        except (TransientError, NotFound, KeyError):
            pass
        self.faulty.clear()

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "store"):
            assert self.store.stats.bytes <= 23_000
            assert self.there() == self.model

    def change(
        self, operation: Operation, made: dict[str, bytes | None], when: When | None, call: Any, *args: Any
    ) -> None:
        if when is not None:
            self.faulty.add(Rule(Raise(when=when), operations=[operation], times=1))
            with pytest.raises(TransientError):
                call(*args)
            self.faulty.clear()
        else:
            call(*args)
        if when is not When.BEFORE:
            self.model.update((key, data) for key, data in made.items() if data is not None)
            for key in [key for key, data in made.items() if data is None]:
                self.model.pop(key, None)


class RetryingMachine(Machine):
    """Retries over a store that fails a third of all calls in every way: as if nothing had ever failed."""

    @initialize(seed=st.integers(0, 10_000))
    def begin(self, seed: int) -> None:
        rules = [
            Rule(Raise(when=When.BEFORE), probability=0.12),
            Rule(Raise(when=When.AFTER), probability=0.12),
            Rule(BreakStream(after=4), operations=[Operation.READ, Operation.WRITE], probability=0.2),
            Rule(Truncate(after=7), operations=[Operation.READ], probability=0.2),
        ]
        self.faulty = FaultyStore(self.memory, rules, seed=seed)
        policy = RetryPolicy(attempts=1000, max_elapsed=None)
        self.store = RetryingStore(self.faulty, policy, sleep=lambda seconds: None)

    @rule(key=KEYS, size=SIZES)
    def write(self, key: str, size: int) -> None:
        data = self.content(size)
        assert self.store.write_bytes(BASE.join(key), data).size == len(data)
        self.model[key] = data

    @rule(key=KEYS, size=SIZES)
    def create(self, key: str, size: int) -> None:
        """Succeeds exactly when nothing was there."""
        data = self.content(size)
        if key in self.model:
            with pytest.raises(AlreadyExists):
                self.store.write_bytes(BASE.join(key), data, WriteOptions(if_absent=True))
        else:
            self.store.write_bytes(BASE.join(key), data, WriteOptions(if_absent=True))
            self.model[key] = data

    @rule(key=KEYS, size=SIZES, current=st.booleans())
    def replace(self, key: str, size: int, current: bool) -> None:
        """Succeeds exactly when the etag is that of what was there."""
        data = self.content(size)
        options = WriteOptions(if_match=self.store.head(BASE.join(key)).etag or "none" if current else "other")
        if current and key in self.model:
            assert self.store.write_bytes(BASE.join(key), data, options).etag == self.memory.head(BASE.join(key)).etag
            self.model[key] = data
        else:
            with pytest.raises(PreconditionFailed):
                self.store.write_bytes(BASE.join(key), data, options)

    @rule(key=KEYS, missing_ok=st.booleans())
    def delete(self, key: str, missing_ok: bool) -> None:
        """NotFound exactly when nothing was there and that was asked for."""
        if not missing_ok and key not in self.model:
            with pytest.raises(NotFound):
                self.store.delete(BASE.join(key), missing_ok=False)
        else:
            self.store.delete(BASE.join(key), missing_ok=missing_ok)
            self.model.pop(key, None)

    @rule(keys=st.sets(KEYS))
    def delete_many(self, keys: set[str]) -> None:
        assert self.store.delete_many([BASE.join(key) for key in keys]) == {}
        for key in keys:
            self.model.pop(key, None)

    @rule(source=KEYS, destination=KEYS, create=st.booleans())
    def copy(self, source: str, destination: str, create: bool) -> None:
        options = WriteOptions(if_absent=True) if create else None
        src, dst = BASE.join(source), BASE.join(destination)
        if source not in self.model:
            with pytest.raises(NotFound):
                self.store.copy_raw(src, dst, options)
        elif create and destination in self.model and source != destination:
            if self.model[source] != self.model[destination]:
                with pytest.raises(AlreadyExists):
                    self.store.copy_raw(src, dst, options)
        else:
            self.store.copy_raw(src, dst, options)
            self.model[destination] = self.model[source]

    @rule(key=KEYS, start=st.integers(-30, 30), length=st.none() | st.integers(0, 30), step=st.integers(1, 50))
    def read(self, key: str, start: int, length: int | None, step: int) -> None:
        ref = BASE.join(key)
        if key not in self.model:
            with pytest.raises(NotFound):
                self.store.read_raw(ref, start, length)
            return
        with self.store.read_raw(ref, start, length) as stream:
            assert b"".join(iter(lambda: stream.read(step), b"")) == self.memory.read_bytes(ref, start, length)

    @rule()
    def list_all(self) -> None:
        assert [ref.key for ref in self.store.list(BASE)[0]] == sorted(self.model)

    @invariant()
    def nothing_lost_nothing_doubled(self) -> None:
        assert self.there() == self.model


TestCached = CachedMachine.TestCase
TestCached.settings = settings(max_examples=60, stateful_step_count=30)
TestRetrying = RetryingMachine.TestCase
TestRetrying.settings = settings(max_examples=60, stateful_step_count=30)
