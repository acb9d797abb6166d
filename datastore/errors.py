"""The one taxonomy of errors every store, wrapper and driver speaks.

Every error names what was asked (``op`` and the reference), what is wrong (the message) and what to do
(``hint``).  Codes are append-only: they end up as label values in other people's metric databases.

This module imports nothing of the project, so that everything may import it.
"""

from __future__ import annotations

import copyreg
import errno
from enum import StrEnum
from typing import Any

__all__ = [
    "AlreadyExists",
    "BadCursor",
    "Cancelled",
    "ConfigError",
    "ContainerNotAllowed",
    "ContainerNotEmpty",
    "ContainerTaken",
    "DeadlineExceeded",
    "DigestMismatch",
    "ErrorCode",
    "ForkUnsafe",
    "InvalidReference",
    "LimitExceeded",
    "MarshalFailed",
    "NoSuchContainer",
    "NotFound",
    "NotSupported",
    "PermissionDenied",
    "PreconditionFailed",
    "SizeMismatch",
    "StoreError",
    "Throttled",
    "TransientError",
    "UnmarshalFailed",
    "Unsupported",
    "error_code",
    "from_os_error",
    "from_status",
    "is_exceeds_limit",
    "is_exists",
    "is_failed_write_to_cache",
    "is_not_found",
    "is_retryable",
]


#: OSError's own attribute, which the root of the taxonomy cannot declare.
_ERRNO = "errno"


class ErrorCode(StrEnum):
    """What went wrong, from a closed list that only ever grows."""

    GENERIC = "GENERIC"
    INVALID_REFERENCE = "INVALID_REFERENCE"
    NOT_FOUND = "NOT_FOUND"
    NO_SUCH_CONTAINER = "NO_SUCH_CONTAINER"
    CONTAINER_NOT_ALLOWED = "CONTAINER_NOT_ALLOWED"
    CONTAINER_TAKEN = "CONTAINER_TAKEN"
    CONTAINER_NOT_EMPTY = "CONTAINER_NOT_EMPTY"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    SIZE_MISMATCH = "SIZE_MISMATCH"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    BAD_CURSOR = "BAD_CURSOR"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    THROTTLED = "THROTTLED"
    TRANSIENT = "TRANSIENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    CONFIG = "CONFIG"
    FORK_UNSAFE = "FORK_UNSAFE"
    CACHE_WRITE_FAILED = "CACHE_WRITE_FAILED"
    MARSHAL_FAILED = "MARSHAL_FAILED"
    UNMARSHAL_FAILED = "UNMARSHAL_FAILED"


class StoreError(Exception):
    """The root of the taxonomy.

    ``reference`` is the text of the reference the operation was about, without credentials.  ``retryable``
    says that the same call may succeed later; ``retry_after`` is the server's own wish, in seconds.
    Errors can be pickled; the foreign error they translate stays in ``__cause__``, which pickle drops.  Where somebody
    has every exception pickled with its causes (tblib does, which Dask installs), the cause is first replaced by its
    name, since it may hold connections and credentials.
    """

    code: ErrorCode = ErrorCode.GENERIC
    default_retryable: bool = False
    default_errno: int | None = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        op: str | None = None,
        reference: str | None = None,
        retryable: bool | None = None,
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.op = op
        self.reference = reference
        self.retryable = self.default_retryable if retryable is None else retryable
        self.http_status = http_status
        self.retry_after = retry_after
        if self.default_errno is not None:
            # Callers who catch OSError look at errno.
            setattr(self, _ERRNO, self.default_errno)

    def about(self, op: str, reference: object) -> StoreError:
        """Fills in the operation and the reference where a deeper layer did not know them; returns self."""
        if self.op is None:
            self.op = op
        if self.reference is None:
            self.reference = str(reference)
        return self

    def __str__(self) -> str:
        asked = " ".join(part for part in (self.op, self.reference) if part)
        text = f"{asked}: {self.message}" if asked else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self) in copyreg.dispatch_table:
            if self.__cause__ is not None and not isinstance(self.__cause__, _LeftBehind):
                self.__cause__ = _LeftBehind(f"{type(self.__cause__).__module__}.{type(self.__cause__).__qualname__}")
            self.__context__ = None
        return _rebuild, (type(self), self.message, dict(self._state()))

    def _state(self) -> dict[str, Any]:
        return {
            "hint": self.hint,
            "op": self.op,
            "reference": self.reference,
            "retryable": self.retryable,
            "http_status": self.http_status,
            "retry_after": self.retry_after,
        }


class _LeftBehind(Exception):
    """Names an error that stayed in the process where it was raised."""


def _rebuild(kind: type[StoreError], message: str, state: dict[str, Any]) -> StoreError:
    return kind(message, **state)


class InvalidReference(StoreError, ValueError):
    """The text or the parts are not a reference an operation can use; ``reason`` is one word from a closed list."""

    code = ErrorCode.INVALID_REFERENCE

    def __init__(self, message: str, *, reason: str = "invalid", **more: Any) -> None:
        super().__init__(message, **more)
        self.reason = reason

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "reason": self.reason}


class NotFound(StoreError, FileNotFoundError):
    """There is no such object."""

    code = ErrorCode.NOT_FOUND
    default_errno = errno.ENOENT


class NoSuchContainer(NotFound):
    """There is no such container (bucket), so nothing can be in it."""

    code = ErrorCode.NO_SUCH_CONTAINER


class ContainerNotAllowed(StoreError):
    """The store is bound to its base container and was asked for another one.

    ``is_not_found`` holds for it, as upstream's callers expect, but it is not a `NotFound`: ``head`` raises it.
    """

    code = ErrorCode.CONTAINER_NOT_ALLOWED


class PermissionDenied(StoreError, PermissionError):
    """The credentials are missing, wrong, expired, or do not allow this."""

    code = ErrorCode.PERMISSION_DENIED
    default_errno = errno.EACCES


class AlreadyExists(StoreError, FileExistsError):
    """Something is there and the call asked to create only."""

    code = ErrorCode.ALREADY_EXISTS
    default_errno = errno.EEXIST


class ContainerTaken(AlreadyExists):
    """The container's name belongs to somebody else."""

    code = ErrorCode.CONTAINER_TAKEN


class ContainerNotEmpty(StoreError, OSError):
    """The container still holds objects, so it is not removed."""

    code = ErrorCode.CONTAINER_NOT_EMPTY
    default_errno = errno.ENOTEMPTY


class PreconditionFailed(StoreError):
    """The object is not the one named by ``if_match``."""

    code = ErrorCode.PRECONDITION_FAILED


class LimitExceeded(StoreError):
    """The object is larger than a read may be, or the data larger than the backend takes."""

    code = ErrorCode.LIMIT_EXCEEDED


class SizeMismatch(StoreError, ValueError):
    """The source yielded another number of bytes than was declared; nothing was written."""

    code = ErrorCode.SIZE_MISMATCH


class DigestMismatch(StoreError, ValueError):
    """The data do not have the digest they were declared with; nothing was written."""

    code = ErrorCode.DIGEST_MISMATCH


class BadCursor(StoreError, ValueError):
    """The cursor is at the end, or is not one this store handed out."""

    code = ErrorCode.BAD_CURSOR


class NotSupported(StoreError):
    """The backend cannot do this; its ``capabilities`` say so beforehand."""

    code = ErrorCode.NOT_SUPPORTED


#: The name the user's documents use for `NotSupported`.
Unsupported = NotSupported


class TransientError(StoreError, ConnectionError):
    """The backend or the way to it failed; the same call may succeed later."""

    code = ErrorCode.TRANSIENT
    default_retryable = True


class Throttled(TransientError):
    """The backend asks for patience (429, 503 slow down); ``retry_after`` is its wish when it told one."""

    code = ErrorCode.THROTTLED


class DeadlineExceeded(StoreError, TimeoutError):
    """The time the caller gave, or the configured limit of one operation, ran out."""

    code = ErrorCode.DEADLINE_EXCEEDED
    default_errno = errno.ETIMEDOUT


class Cancelled(StoreError):
    """The caller cancelled the operation."""

    code = ErrorCode.CANCELLED


class ConfigError(StoreError, ValueError):
    """The configuration cannot be used; the message names the key and, where there is one, the nearest valid name."""

    code = ErrorCode.CONFIG


class MarshalFailed(StoreError, ValueError):
    """The message cannot be encoded: it lacks required fields; nothing was written."""

    code = ErrorCode.MARSHAL_FAILED


class UnmarshalFailed(StoreError, ValueError):
    """The object does not hold such a message."""

    code = ErrorCode.UNMARSHAL_FAILED


class ForkUnsafe(StoreError, RuntimeError):
    """The client library does not work in a process forked after its first use."""

    code = ErrorCode.FORK_UNSAFE


def error_code(error: BaseException) -> ErrorCode:
    """Classifies any exception by walking its causes; what is not ours is ``GENERIC``."""
    for link in _chain(error):
        if isinstance(link, StoreError):
            return link.code
    return ErrorCode.GENERIC


def is_not_found(error: BaseException | None) -> bool:
    """Whether the error means that what was asked for is not there, or may not be looked at in this store."""
    return any(isinstance(link, (FileNotFoundError, ContainerNotAllowed)) for link in _chain(error))


def is_exists(error: BaseException | None) -> bool:
    """Whether the error means that something is already there."""
    return any(isinstance(link, FileExistsError) for link in _chain(error))


def is_exceeds_limit(error: BaseException | None) -> bool:
    """Whether the error means that a size limit was exceeded."""
    return any(isinstance(link, LimitExceeded) for link in _chain(error))


def is_failed_write_to_cache(error: BaseException | None) -> bool:
    """Whether the error means that only the cache could not be written; kept for upstream's callers."""
    return any(isinstance(link, StoreError) and link.code is ErrorCode.CACHE_WRITE_FAILED for link in _chain(error))


def is_retryable(error: BaseException | None) -> bool:
    """Whether the first error of ours in the chain says that the same call may succeed later."""
    return next((link.retryable for link in _chain(error) if isinstance(link, StoreError)), False)


def from_os_error(error: OSError, message: str | None = None) -> StoreError:
    """Translates an operating system error by its errno; the caller raises it ``from error``."""
    text = message or error.strerror or type(error).__name__
    kind = _BY_ERRNO.get(error.errno or 0)
    if kind is not None:
        return kind(text)
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(text)
    if isinstance(error, ConnectionError):
        return TransientError(text)
    return StoreError(text)


def from_status(status: int, message: str, *, retry_after: float | None = None) -> StoreError:
    """Translates an HTTP status where the backend's own code says no more; the caller raises it ``from`` its cause.

    404 is `NotFound`: only the driver knows whether the container or the object was meant.
    """
    if status in (429, 503):
        return Throttled(message, http_status=status, retry_after=retry_after)
    kind = _BY_STATUS.get(status)
    if kind is None and (status >= 500 or status in (408, 425)):
        return TransientError(message, http_status=status, retry_after=retry_after)
    return (kind or StoreError)(message, http_status=status)


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and everything it came from, each once: cause first, then context."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is None or link in found:
            continue
        found.append(link)
        if not link.__suppress_context__:
            waiting.append(link.__context__)
        waiting.append(link.__cause__)
    return found


_BY_ERRNO: dict[int, type[StoreError]] = {
    errno.ENOENT: NotFound,
    # A path that runs through a file names nothing.
    errno.ENOTDIR: NotFound,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: PermissionDenied,
    errno.EEXIST: AlreadyExists,
    errno.ETIMEDOUT: DeadlineExceeded,
    errno.EINTR: TransientError,
    errno.EAGAIN: TransientError,
    errno.ECONNRESET: TransientError,
    errno.ECONNREFUSED: TransientError,
    errno.EPIPE: TransientError,
    errno.ESTALE: TransientError,
}

_BY_STATUS: dict[int, type[StoreError]] = {
    401: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    409: AlreadyExists,
    412: PreconditionFailed,
    413: LimitExceeded,
    501: NotSupported,
}
