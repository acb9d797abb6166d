"""A state machine that does anything to a store and compares it with the model after every step."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from datastore.errors import AlreadyExists, NotFound, PreconditionFailed, SizeMismatch
from datastore.model import Cursor, Feature, Metadata, WriteOptions
from datastore.reference import DataReference
from datastore.testing import strategies
from datastore.testing.base import KitTests, Unseekable, remove_all
from datastore.testing.harness import Harness, Scale
from datastore.testing.reference_model import ReferenceModel, fold

__all__ = ["StatefulTests", "StoreMachine", "check_against_model"]

#: Few enough names to meet again, close enough to be confused; no one is a folder of another.
_NAMES = [
    "a",
    "a-",
    "a-b/c",
    "a.b",
    "a0/x",
    "b/1",
    "b/2",
    "b/c/1",
    "b/c-/1",
    "b-",
    "b0",
    "é ü/100%",
    "?#&+",
    "\uffe6",
    "\U0001f600/x",
]
#: Besides these where an object may have others below it, and where segments may be empty.
_NESTED = ["b", "a0", "b/c"]
_EMPTY_SEGMENTS = ["b//1", "b//c/1"]

_PREFIXES = ["", "a", "a-", "b", "b/", "b/c", "b/c/", "é", "nothing"]


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model and compares what they say.

    Derive from it with ``harness`` set, or use `check_against_model`.
    """

    harness: Harness

    def __init__(self) -> None:
        super().__init__()
        self.store = self.harness.store
        self.able = self.harness.capabilities
        self.model = ReferenceModel()
        self.etags: dict[str, str] = {}
        self.names: list[str] = [
            *_NAMES,
            *(_NESTED if Feature.NESTED_KEYS in self.able else ()),
            *(_EMPTY_SEGMENTS if Feature.EMPTY_SEGMENTS in self.able else ()),
        ]
        self.place = self.harness.root.join(f"kit-{secrets.token_hex(6)}")

    @initialize(numbers=st.lists(st.integers(0, 99), max_size=20), data=st.binary(min_size=1, max_size=300))
    def start_with(self, numbers: list[int], data: bytes) -> None:
        for number in numbers:
            self.write(number, data, {"start": str(number)})

    @rule(number=st.integers(0, 99), data=strategies.contents(), metadata=strategies.metadata(2))
    def write(self, number: int, data: bytes, metadata: dict[str, str]) -> None:
        name, kept = self._name(number), self._kept(metadata)
        self.etags[name] = self.store.write_bytes(self._ref(name), data, WriteOptions(metadata=kept)).etag
        self.model.write(name, data, kept)

    @rule(number=st.integers(0, 99), data=strategies.contents(5000), known=st.booleans())
    def stream(self, number: int, data: bytes, known: bool) -> None:
        name = self._name(number)
        size = len(data) if known else None
        written = self.store.write_raw(self._ref(name), size, None, Unseekable(data, most=999))
        assert len(data) == written.size
        self.etags[name] = written.etag
        self.model.write(name, data)

    @rule(number=st.integers(0, 99), data=strategies.contents(), broken=st.booleans())
    def fail_to_write(self, number: int, data: bytes, broken: bool) -> None:
        ref = self._ref(self._name(number))
        error = KeyError("broken") if broken else None
        with pytest.raises(KeyError if broken else SizeMismatch) as raised:
            self.store.write_raw(ref, len(data) + 1, None, Unseekable(data, error))
        assert error is None or raised.value is error

    @precondition(lambda self: Feature.CREATE_IF_ABSENT in self.able)
    @rule(number=st.integers(0, 99), data=strategies.contents())
    def create(self, number: int, data: bytes) -> None:
        name = self._name(number)
        try:
            etag = self.store.write_bytes(self._ref(name), data, WriteOptions(if_absent=True)).etag
        except AlreadyExists:
            assert name in self.model.objects
        else:
            assert name not in self.model.objects
            self.etags[name] = etag
            self.model.write(name, data)

    @precondition(lambda self: Feature.REPLACE_IF_MATCH in self.able and self.etags)
    @rule(number=st.integers(0, 99), other=st.integers(0, 99), data=strategies.contents())
    def replace(self, number: int, other: int, data: bytes) -> None:
        name = self._name(number)
        seen = sorted(self.etags)[other % len(self.etags)]
        etag = self.etags[seen]
        current = self.store.head(self._ref(name)).etag if name in self.model.objects else None
        try:
            written = self.store.write_bytes(self._ref(name), data, WriteOptions(if_match=etag))
        except PreconditionFailed:
            assert etag != current
        else:
            assert etag == current
            self.etags[name] = written.etag
            self.model.write(name, data)

    @rule(number=st.integers(0, 99), missing_ok=st.booleans())
    def delete(self, number: int, missing_ok: bool) -> None:
        name = self._name(number)
        try:
            self.store.delete(self._ref(name), missing_ok=missing_ok)
        except NotFound:
            assert not missing_ok
            assert name not in self.model.objects
        else:
            assert missing_ok or name in self.model.objects
        self._forget(name)

    @rule(numbers=st.lists(st.integers(0, 99), max_size=5))
    def delete_many(self, numbers: list[int]) -> None:
        names = [self._name(number) for number in numbers]
        assert self.store.delete_many([self._ref(name) for name in names]) == {}
        for name in names:
            self._forget(name)

    @rule(source=st.integers(0, 99), destination=st.integers(0, 99), metadata=strategies.metadata(2))
    def copy(self, source: int, destination: int, metadata: dict[str, str]) -> None:
        name, other, kept = self._name(source), self._name(destination), self._kept(metadata)
        options = WriteOptions(metadata=kept) if kept else None
        try:
            told = self.store.copy_raw(self._ref(name), self._ref(other), options)
        except NotFound:
            assert name not in self.model.objects
        else:
            self.model.copy(name, other, kept)
            self.etags[other] = told.etag

    @rule(number=st.integers(0, 99), start=st.integers(0, 9999), length=st.one_of(st.none(), st.integers(0, 9999)))
    def read(self, number: int, start: int, length: int | None) -> None:
        name = self._likely(number)
        size = len(self.model.objects[name].content) if name in self.model.objects else 0
        # Around the object: a little before it, in it, and a little behind it.
        span = start % (2 * size + 7) - size - 3, None if length is None else length % (size + 4)
        try:
            with self.store.read_raw(self._ref(name), *span) as stream:
                found, told = stream.read(), stream.size
        except NotFound:
            assert name not in self.model.objects
        else:
            assert self.model.read(name, *span) == found
            assert len(found) == told

    @rule(number=st.integers(0, 99))
    def head(self, number: int) -> None:
        name = self._likely(number)
        if name in self.model.objects:
            self._check_head(name)
        else:
            assert self.store.head(self._ref(name)) == Metadata()

    @rule(
        prefix=st.sampled_from(_PREFIXES),
        size=st.integers(1, 20),
        delimiter=st.sampled_from(["", "/"]),
        after=st.one_of(st.none(), st.integers(0, 99)),
    )
    def list_pages(self, prefix: str, size: int, delimiter: str, after: int | None) -> None:
        where, directory = self._ref(prefix.rstrip("/")) if prefix else self.place, prefix == "" or prefix.endswith("/")
        base = f"{self.place.key}/"
        cursor = expected = Cursor.at_start()
        if after is not None:
            # Backends differ on cursors inside a common prefix, which no delimiter listing hands out.
            name = self._name(after)
            name = fold(name, prefix, delimiter) if name.startswith(prefix) else name
            cursor, expected = Cursor.after_key(base + name), Cursor.after_key(name)
        # The model lists without the place: its keys are the rest of the store's.
        while not cursor.is_at_end:
            page = self.store.list_page(where, size, cursor, delimiter=delimiter, directory=directory)
            wanted = self.model.page(prefix, size, expected, delimiter)
            assert list(wanted.keys) == [entry.reference.key.removeprefix(base) for entry in page.entries]
            sizes = [len(self.model.objects[name].content) for name in wanted.keys]
            assert sizes == [entry.size for entry in page.entries]
            # A prefix that ends in a slash (a//b) has no reference, so it is counted instead.
            shown = [name for name in wanted.prefixes if not name.endswith("/")]
            assert shown == [found.key.removeprefix(base) for found in page.prefixes]
            assert len(wanted.prefixes) - len(shown) == page.omitted
            cursor, expected = page.cursor, wanted.cursor
            if expected.is_at_end and not cursor.is_at_end:
                rest = self.store.list_page(where, size, cursor, delimiter=delimiter, directory=directory)
                assert (rest.entries, rest.prefixes, rest.cursor.is_at_end) == ((), (), True)
                return
        assert expected.is_at_end

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        base = f"{self.place.key}/"
        found = [entry.reference.key.removeprefix(base) for entry in self.store.walk(self.place, directory=True)]
        assert self.model.keys() == found

    def teardown(self) -> None:
        try:
            for name, expected in self.model.objects.items():
                assert expected.content == self.store.read_bytes(self._ref(name))
                for span in ((1, 1), (-2, None), (-3, 2)):
                    assert self.model.read(name, *span) == self.store.read_bytes(self._ref(name), *span)
                self._check_head(name)
        finally:
            remove_all(self.store, self.place)

    def _name(self, number: int) -> str:
        return self.names[number % len(self.names)]

    def _likely(self, number: int) -> str:
        """The name of an object there is, three times in four."""
        there = self.model.keys()
        return there[number % len(there)] if there and number % 4 else self._name(number)

    def _check_head(self, name: str) -> None:
        known, found = self.store.head(self._ref(name)), self.model.objects[name]
        assert (True, len(found.content), self.etags[name]) == (known.exists, known.size, known.etag)
        if Feature.USER_METADATA in self.able:
            assert found.metadata == known.user_metadata

    def _ref(self, name: str) -> DataReference:
        return self.place.with_key(f"{self.place.key}/{name}")

    def _kept(self, metadata: dict[str, str]) -> dict[str, str]:
        return metadata if Feature.USER_METADATA in self.able else {}

    def _forget(self, name: str) -> None:
        self.model.delete(name)


def check_against_model(harness: Harness, *, examples: int, steps: int) -> None:
    """Runs the machine over a harness's store: so many histories of so many steps each."""
    machine: Any = type("Machine", (StoreMachine,), {"harness": harness})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class StatefulTests(KitTests):
    """Whatever is done in whatever order, the store holds what the model holds."""

    def test_any_history(self, harness: Harness) -> None:
        """Random histories of every operation: many where writes are cheap, few where they are not."""
        if harness.scale is Scale.SMALL:
            check_against_model(harness, examples=3, steps=12)
        else:
            check_against_model(harness, examples=30, steps=30)
