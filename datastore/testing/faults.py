"""Errors: what they say, what they keep to themselves, and that a failure is never an answer."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator

import pytest

from datastore.context import deadline
from datastore.errors import (
    BadCursor,
    DeadlineExceeded,
    ErrorCode,
    InvalidReference,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SizeMismatch,
    StoreError,
    TransientError,
    error_code,
    is_not_found,
    is_retryable,
)
from datastore.model import Cursor
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, error_text
from datastore.testing.harness import Harness

__all__ = ["FaultTests"]


class FaultTests(KitTests):
    """An error is of the taxonomy, names what was asked, travels between processes, and tells no secret."""

    def test_errors_say_what_was_asked(self, harness: Harness, store: Store, place: DataReference) -> None:
        """The operation, the reference, the code and the class agree, and the text holds the reference."""
        nothing, something = place.join("not here"), place.join("something")
        store.write_bytes(something, b"12345")
        cases: list[tuple[Callable[[], object], str, DataReference, ErrorCode, type[Exception]]] = [
            (lambda: store.read_raw(nothing), "read", nothing, ErrorCode.NOT_FOUND, FileNotFoundError),
            (lambda: store.delete(nothing, missing_ok=False), "delete", nothing, ErrorCode.NOT_FOUND, NotFound),
            (lambda: store.copy_raw(nothing, something), "copy", nothing, ErrorCode.NOT_FOUND, NotFound),
            (
                lambda: store.write_raw(something, 9, None, b"1"),
                "write",
                something,
                ErrorCode.SIZE_MISMATCH,
                SizeMismatch,
            ),
            (
                lambda: store.read_raw(something, max_bytes=4),
                "read",
                something,
                ErrorCode.LIMIT_EXCEEDED,
                LimitExceeded,
            ),
            (
                lambda: store.list_page(place, 1, Cursor.at_end()),
                "list",
                place,
                ErrorCode.BAD_CURSOR,
                BadCursor,
            ),
        ]
        for operation, op, reference, code, kind in cases:
            with pytest.raises(kind) as raised:
                operation()
            error = raised.value
            assert isinstance(error, StoreError)
            assert (op, str(reference), code) == (error.op, error.reference, error.code)
            assert code == error_code(error)
            assert str(reference) in str(error)
            assert not error.retryable
            _check_error(harness, error)

    def test_errors_can_be_pickled(self, store: Store, place: DataReference) -> None:
        """An error arrives in another process with its class, text and data."""
        with pytest.raises(NotFound) as raised:
            store.read_raw(place.join("nothing"))
        error = raised.value
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert type(error) is type(copied)
        assert (str(error), error.op, error.reference, error.code) == (
            str(copied),
            copied.op,
            copied.reference,
            copied.code,
        )
        assert is_not_found(copied)
        assert is_not_found(error)

    def test_credentials_in_a_reference_stay_out_of_errors(self, store: Store) -> None:
        """What stands before an @ may be a secret, and is not repeated."""
        for text in ("s3://user:hunter2@bucket/a?b", "s3://user:hunter2@bucket/%zz", "gs://hunter2@b/../x"):
            with pytest.raises(InvalidReference) as raised:
                store.head(text)
            assert "hunter2" not in error_text(raised.value)

    def test_a_representation_tells_no_secret(self, harness: Harness) -> None:
        """Stores and their capabilities can be logged."""
        text = f"{harness.store!r} {harness.store} {harness.capabilities!r} {harness.store.base_container_fqn}"
        for secret in harness.secrets:
            assert secret not in text

    def test_a_backend_that_does_not_answer(self, harness: Harness, place: DataReference) -> None:
        """Every operation fails as worth trying again; none takes silence for "not there" or "nothing"."""
        store = harness.unreachable_store()
        if store is None:
            pytest.skip("the harness has no backend that cannot be reached")
        with store:
            for operation in _operations(store, place.join("object")):
                with deadline(5), pytest.raises((TransientError, DeadlineExceeded)) as raised:
                    operation()
                assert is_retryable(raised.value) or isinstance(raised.value, DeadlineExceeded)
                _check_error(harness, raised.value)

    def test_credentials_that_are_not_accepted(self, harness: Harness, place: DataReference) -> None:
        """Every operation says that it is not allowed; none takes that for "not there" or "nothing"."""
        store = harness.denied_store()
        if store is None:
            pytest.skip("the harness has no credentials that are refused")
        harness.store.write_bytes(place.join("object"), b"untouched")
        with store:
            for operation in _operations(store, place.join("object")):
                with pytest.raises(PermissionDenied) as raised:
                    operation()
                assert not is_not_found(raised.value)
                _check_error(harness, raised.value)
        assert harness.store.read_bytes(place.join("object")) == b"untouched"


def _operations(store: Store, ref: DataReference) -> Iterator[Callable[[], object]]:
    yield lambda: store.head(ref)
    yield lambda: store.read_bytes(ref)
    yield lambda: store.list_page(ref)
    yield lambda: store.write_bytes(ref, b"changed")
    yield lambda: store.delete(ref)
    yield lambda: store.copy_raw(ref, ref.join("copy"))


def _check_error(harness: Harness, error: BaseException) -> None:
    assert isinstance(error, StoreError)
    assert error.op
    assert error.reference
    assert str(error) == str(pickle.loads(pickle.dumps(error)))  # noqa: S301 - our own bytes
    text = error_text(error)
    for secret in harness.secrets:
        assert secret not in text
