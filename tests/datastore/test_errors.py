"""The taxonomy: what errors are, say, and are taken for."""

import copyreg
import errno
import pickle
import threading
from collections.abc import Callable

import pytest

from datastore import errors
from datastore.errors import (
    AlreadyExists,
    ContainerNotAllowed,
    DeadlineExceeded,
    ErrorCode,
    InvalidReference,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    Throttled,
    TransientError,
    error_code,
    from_os_error,
    from_status,
    is_exceeds_limit,
    is_exists,
    is_failed_write_to_cache,
    is_not_found,
    is_retryable,
)

KINDS = [
    kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type) and issubclass(kind, StoreError)
]


class CacheError(StoreError):
    """A third party's cache could not be written."""

    code = ErrorCode.CACHE_WRITE_FAILED


def bare(error: BaseException) -> BaseException:
    """The error itself."""
    return error


def caused(error: BaseException) -> BaseException:
    """Wrapped with a cause."""
    try:
        raise RuntimeError("outer") from error
    except RuntimeError as outer:
        return outer


def during(error: BaseException) -> BaseException:
    """Wrapped only by having been handled meanwhile."""
    try:
        try:
            raise error
        except type(error):
            raise RuntimeError("outer")  # noqa: B904 - the point of it
    except RuntimeError as outer:
        return outer


def twice(error: BaseException) -> BaseException:
    """Wrapped twice."""
    return caused(during(error))


@pytest.mark.parametrize("wrap", [bare, caused, during, twice])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), True),
        (NotFound("gone"), True),
        (NoSuchContainer("gone"), True),
        (ContainerNotAllowed("not this one"), True),
        (from_status(404, "gone"), True),
        (from_os_error(OSError(errno.ENOTDIR, "not a directory")), True),
        (from_status(403, "no"), False),
        (PermissionDenied("no"), False),
        (InvalidReference("no"), False),
        (LimitExceeded("no"), False),
        (ValueError("no"), False),
    ],
    ids=repr,
)
def test_is_not_found(error: Exception, expected: bool, wrap: Callable[[BaseException], BaseException]) -> None:
    """Missing objects and containers, in any wrapping; upstream misses most of them."""
    assert is_not_found(wrap(error)) is expected


def test_no_error_is_nothing() -> None:
    """The predicates take None, as upstream's take nil."""
    for predicate in (is_not_found, is_exists, is_exceeds_limit, is_failed_write_to_cache, is_retryable):
        assert predicate(None) is False


@pytest.mark.parametrize("wrap", [bare, caused, during, twice])
@pytest.mark.parametrize(
    ("error", "predicate"),
    [
        (LimitExceeded("x"), is_exceeds_limit),
        (CacheError("x"), is_failed_write_to_cache),
        (AlreadyExists("x"), is_exists),
    ],
)
def test_predicates_know_their_own_code_only(
    error: StoreError, predicate: Callable[[BaseException], bool], wrap: Callable[[BaseException], BaseException]
) -> None:
    """Each is true for its error and for no other."""
    predicates = (is_exceeds_limit, is_failed_write_to_cache, is_exists, is_not_found)
    assert [each(wrap(error)) for each in predicates] == [each is predicate for each in predicates]


def test_a_suppressed_context_is_no_cause() -> None:
    """``raise ... from None`` says that what was handled has nothing to do with it."""
    error = during(NotFound("gone"))
    assert is_not_found(error)
    error.__suppress_context__ = True
    assert not is_not_found(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_can_be_pickled(kind: type[StoreError]) -> None:
    """With everything they know; workers send them home."""
    error = kind(
        "message", hint="hint", op="read", reference="s3://b/k", retryable=True, http_status=500, retry_after=1.5
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.__dict__) == (str(error), error.__dict__)
    assert str(error) == "read s3://b/k: message (hint)"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_can_be_pickled_where_causes_are_pickled_too(kind: type[StoreError]) -> None:
    """As Dask has them: the cause, which may hold a connection and a key, stays where it is; its name goes along."""
    support = pytest.importorskip("tblib.pickling_support", reason="tblib, which Dask installs, is missing")
    before = copyreg.dispatch_table.copy()
    try:
        support.install(kind, NotFound)
        error = kind("message")
        error.__cause__ = RuntimeError("secret", threading.Lock())
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), str(again.__cause__)) == (kind, "message", "builtins.RuntimeError")
    finally:
        copyreg.dispatch_table.clear()
        copyreg.dispatch_table.update(before)


def test_every_kind_has_a_code_of_its_own() -> None:
    """Codes are label values; NotSupported has two names."""
    codes = [kind.code for kind in set(KINDS)]
    assert len(set(codes)) == len(codes)
    assert {*codes, ErrorCode.CACHE_WRITE_FAILED} == set(ErrorCode)
    assert errors.Unsupported is NotSupported


@pytest.mark.parametrize(
    ("kind", "builtin", "number"),
    [
        (NotFound, FileNotFoundError, errno.ENOENT),
        (AlreadyExists, FileExistsError, errno.EEXIST),
        (PermissionDenied, PermissionError, errno.EACCES),
        (DeadlineExceeded, TimeoutError, errno.ETIMEDOUT),
        (TransientError, ConnectionError, None),
        (InvalidReference, ValueError, None),
    ],
)
def test_errors_are_the_builtins_a_reader_expects(
    kind: type[StoreError], builtin: type[Exception], number: int | None
) -> None:
    """With the errno that callers of the operating system look at."""
    error = kind("message")
    assert isinstance(error, builtin)
    assert getattr(error, "errno", None) == number


def test_deeper_layers_know_best() -> None:
    """``about`` fills in what is missing, nothing else."""
    error = NotFound("gone", reference="s3://b/k").about("copy", "s3://b/other")
    assert (error.op, error.reference) == ("copy", "s3://b/k")


def test_the_first_error_of_ours_classifies() -> None:
    """What is not ours is generic."""
    assert error_code(caused(Throttled("slow"))) is ErrorCode.THROTTLED
    assert error_code(ValueError("x")) is ErrorCode.GENERIC
    assert is_retryable(caused(Throttled("slow")))
    assert not is_retryable(caused(NotFound("x")))


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, StoreError, False),
        (401, PermissionDenied, False),
        (403, PermissionDenied, False),
        (404, NotFound, False),
        (408, TransientError, True),
        (409, AlreadyExists, False),
        (412, PreconditionFailed, False),
        (413, LimitExceeded, False),
        (425, TransientError, True),
        (429, Throttled, True),
        (500, TransientError, True),
        (501, NotSupported, False),
        (503, Throttled, True),
        (599, TransientError, True),
    ],
)
def test_statuses(status: int, kind: type[StoreError], retryable: bool) -> None:
    """HTTP where the backend says no more."""
    error = from_status(status, "text", retry_after=3)
    assert type(error) is kind
    assert (error.retryable, error.http_status) == (retryable, status)
    assert error.retry_after == (3 if retryable else None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOENT, "x"), NotFound),
        (OSError(errno.EACCES, "x"), PermissionDenied),
        (OSError(errno.EEXIST, "x"), AlreadyExists),
        (OSError(errno.ECONNRESET, "x"), TransientError),
        (TimeoutError("slow"), DeadlineExceeded),
        (ConnectionError("broken"), TransientError),
        (OSError(errno.ENOSPC, "full"), StoreError),
        (OSError("nameless"), StoreError),
    ],
    ids=repr,
)
def test_operating_system_errors(error: OSError, kind: type[StoreError]) -> None:
    """By errno, else by class; the text is kept."""
    assert type(from_os_error(error)) is kind
    assert str(from_os_error(error, "said")) == "said"
