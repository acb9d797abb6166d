"""Deadlines and cancellation: operations end, and what did not happen did not happen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from datastore.context import CancelToken, cancellable, deadline
from datastore.errors import Cancelled, DeadlineExceeded, StoreError
from datastore.model import Feature, SignedURLProperties
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, assert_absent, content, names_below
from datastore.testing.harness import Harness

__all__ = ["LimitTests"]


class LimitTests(KitTests):
    """The caller's deadline and tokens hold for every operation and every stream."""

    @pytest.fixture
    def operations(self, harness: Harness, place: DataReference) -> list[Callable[[], object]]:
        """Every operation there is, on an object that exists and one that does not."""
        store, ref, new = harness.store, place.join("object"), place.join("new")
        store.write_bytes(ref, b"old")
        found: list[Callable[[], object]] = [
            lambda: store.head(ref),
            lambda: store.head(new),
            lambda: store.read_raw(ref),
            lambda: store.read_raw(ref, 1, 1),
            lambda: store.write_bytes(ref, b"changed"),
            lambda: store.write_bytes(new, b"new"),
            lambda: store.write_raw(new, None, None, iter([b"new"])),
            lambda: store.delete(ref),
            lambda: store.delete(ref, missing_ok=False),
            lambda: store.delete_many([ref, new]),
            lambda: store.list_page(place),
            lambda: store.list(place),
            lambda: list(store.walk(place)),
            lambda: store.copy_raw(ref, new),
        ]
        if Feature.SIGN_READ in harness.capabilities:
            found.append(lambda: store.create_signed_url(ref, SignedURLProperties()))
        return found

    def test_a_deadline_that_has_passed(
        self, store: Store, place: DataReference, operations: list[Callable[[], object]]
    ) -> None:
        """No operation starts after its deadline, and nothing happens."""
        for operation in operations:
            with deadline(0), pytest.raises(DeadlineExceeded):
                operation()
        _check_untouched(store, place)

    def test_a_cancelled_token(
        self, store: Store, place: DataReference, operations: list[Callable[[], object]]
    ) -> None:
        """No operation starts after it was cancelled, however the tokens are nested."""
        token = CancelToken()
        token.cancel()
        for operation in operations:
            with cancellable(token), cancellable(), pytest.raises(Cancelled):
                operation()
        _check_untouched(store, place)

    def test_a_deadline_far_away(
        self, store: Store, place: DataReference, operations: list[Callable[[], object]]
    ) -> None:
        """A deadline that is not reached changes nothing, and ends with its block."""
        with deadline(600), cancellable():
            assert store.head(place.join("object")).exists
            assert store.read_bytes(place.join("object")) == b"old"
        store.write_bytes(place.join("object"), b"old")
        _check_untouched(store, place)

    @pytest.mark.parametrize("had", [True, False], ids=["overwriting", "new"])
    @pytest.mark.parametrize("size", [10_000, 6 << 20])
    def test_cancelling_a_write(self, store: Store, place: DataReference, size: int, had: bool) -> None:
        """A write cancelled while its source is read leaves nothing."""
        ref = place.join("object")
        if had:
            store.write_bytes(ref, b"old")
        token = CancelToken()

        def pieces() -> Iterator[bytes]:
            yield content(size // 2)
            token.cancel()
            yield content(size // 2)

        with cancellable(token), pytest.raises(Cancelled):
            store.write_raw(ref, None, None, pieces())
        if had:
            _check_untouched(store, place)
        else:
            assert_absent(store, ref)

    def test_a_source_that_is_too_slow(self, store: Store, place: DataReference) -> None:
        """A deadline that passes while the source is read ends the write, and nothing is visible."""
        ref, waited = place.join("object"), threading.Event()

        def pieces() -> Iterator[bytes]:
            yield b"first"
            waited.wait(0.4)
            yield b"second"

        with deadline(0.2), pytest.raises(DeadlineExceeded):
            store.write_raw(ref, None, None, pieces())
        assert_absent(store, ref)

    def test_cancelling_a_read(self, harness: Harness, place: DataReference) -> None:
        """A stream opened under a token ends with it, unless its bytes were here already; it never ends short."""
        data = content(harness.scale.large)
        harness.store.write_bytes(place.join("object"), data)
        with cancellable() as token:
            stream = harness.store.read_raw(place.join("object"))
        with stream:
            found = stream.read(1000)
            token.cancel()
            try:
                found += stream.read()
            except Cancelled:
                return
        assert data == found

    def test_limits_are_errors_of_the_taxonomy(self, store: Store, place: DataReference) -> None:
        """They name the operation and the object, and a deadline is a TimeoutError too."""
        with deadline(0), pytest.raises(TimeoutError) as late:
            store.write_bytes(place.join("object"), b"1")
        assert isinstance(late.value, StoreError)
        assert ("write", str(place.join("object"))) == (late.value.op, late.value.reference)


def _check_untouched(store: Store, place: DataReference) -> None:
    assert names_below(store, place) == ["object"]
    assert store.read_bytes(place.join("object")) == b"old"
