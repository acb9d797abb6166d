"""The one place that turns what obstore, minio, urllib3 and S3 itself say into the taxonomy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

import obstore.exceptions
import urllib3.exceptions as http
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from datastore.errors import (
    ConfigError,
    ContainerNotEmpty,
    ContainerTaken,
    DigestMismatch,
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
    from_status,
)

__all__ = ["FOREIGN", "answer_error", "retry_after", "translate"]

#: What the libraries underneath may raise; anything else is a fault of ours and passes.
FOREIGN = (obstore.exceptions.BaseError, MinioException, http.HTTPError, OSError, ValueError)

_HIDDEN = "a missing object also looks like this to credentials that may not list the bucket"
_REGION = "set the region and the endpoint the bucket lives at"

#: S3's own codes, where they say more than the status does: the error, and what to do.
_BY_CODE: Mapping[str, tuple[type[StoreError], str | None]] = {
    "AccessDenied": (PermissionDenied, _HIDDEN),
    "AllAccessDisabled": (PermissionDenied, None),
    "AuthorizationHeaderMalformed": (ConfigError, _REGION),
    "BadDigest": (DigestMismatch, "the data changed on the way; write again"),
    "BucketAlreadyExists": (ContainerTaken, "bucket names are shared by all accounts: choose another"),
    "BucketAlreadyOwnedByYou": (ContainerTaken, None),
    "BucketNotEmpty": (ContainerNotEmpty, "delete its objects first"),
    "ConditionalRequestConflict": (TransientError, None),
    "EntityTooLarge": (LimitExceeded, None),
    "ExpiredToken": (PermissionDenied, "the temporary credentials have expired"),
    "InternalError": (TransientError, None),
    "InvalidAccessKeyId": (PermissionDenied, "check access_key_id"),
    "InvalidBucketName": (InvalidReference, None),
    "InvalidObjectState": (PermissionDenied, "the object is archived: restore it first"),
    "InvalidToken": (PermissionDenied, "check token"),
    "KeyTooLongError": (InvalidReference, None),
    "NoSuchBucket": (NoSuchContainer, "create it, or mend the name"),
    "NoSuchKey": (NotFound, None),
    "NotImplemented": (NotSupported, None),
    "OperationAborted": (TransientError, None),
    "PermanentRedirect": (ConfigError, _REGION),
    "PreconditionFailed": (PreconditionFailed, None),
    "RequestTimeTooSkewed": (PermissionDenied, "the clocks of this machine and the server differ: set this one"),
    "RequestTimeout": (TransientError, None),
    "ServiceUnavailable": (Throttled, None),
    "SignatureDoesNotMatch": (PermissionDenied, "check secret_key and region"),
    "SlowDown": (Throttled, None),
    "SlowDownRead": (Throttled, None),
    "SlowDownWrite": (Throttled, None),
    "TokenRefreshRequired": (PermissionDenied, "check token"),
}

_ELEMENT = r"<{0}>\s*([^<]{{0,500}}?)\s*</{0}>"
_CODE = re.compile(_ELEMENT.format("Code"))
_MESSAGE = re.compile(_ELEMENT.format("Message"))
#: obstore tells status and body only in its message, which goes on with debugging output.
_OBSTORE_STATUS = re.compile(r"status code: (\d{3})[^:\n]*: ?(.*?)(?:\n\nDebug source|\Z)", re.DOTALL)
_OBSTORE_KIND = re.compile(r"\bkind: (\w+)")
_OBSTORE_ADDRESS = re.compile(r"Error performing \w+ (\w+://[^/\s?]+)")
_SECRET = re.compile(r"(?i)(x-amz-(?:signature|credential|security-token)|signature|awsaccesskeyid)=[^&\s\"'<>]*")


def translate(error: BaseException) -> StoreError:
    """The error of the taxonomy that a foreign one means; the caller raises it ``from`` the foreign one."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, obstore.exceptions.BaseError) or type(error) in (FileNotFoundError, PermissionError):
        return _of_obstore(str(error))
    if isinstance(error, S3Error):
        response = error.response
        return answer_error(response.status, error.code or "", error.message or "", response.headers)
    if isinstance(error, ServerError):
        return answer_error(error.status_code, "", "")
    if isinstance(error, InvalidResponseError):
        return answer_error(error._code, "", error._body or "")
    if isinstance(error, (http.HTTPError, OSError)):
        return _of_transport(error)
    return StoreError(f"the S3 client refused the request: {_clean(str(error))}")


def answer_error(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> StoreError:
    """The error that an answer of S3 means; without ``code``, ``text`` is the answer's body."""
    if not code:
        found = _CODE.search(text)
        said = _MESSAGE.search(text)
        code, text = found[1] if found else "", said[1] if said else ""
    message = f"S3 answered {status}{f' {code}' if code else ''}{f': {_clean(text)}' if text else ''}"
    wait = retry_after(headers) if headers is not None else None
    kind, hint = _BY_CODE.get(code, (None, None))
    if kind is None:
        error = _by_status(status, message, wait)
    elif issubclass(kind, TransientError):
        error = kind(message, hint=hint, http_status=status, retry_after=wait)
    else:
        error = kind(message, hint=hint, http_status=status)
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds the server asks to wait: RFC 9110 allows a number or a date."""
    text = headers.get("Retry-After") or ""
    try:
        return max(0.0, float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return None


def _by_status(status: int, message: str, wait: float | None) -> StoreError:
    if status in (301, 302, 307, 308):
        return ConfigError(message, hint=_REGION, http_status=status)
    if status == 403:
        return PermissionDenied(message, hint=_HIDDEN, http_status=status)
    if status == 409:
        # S3 has no other use for it: two writers met.
        return TransientError(message, http_status=status)
    return from_status(status, message, retry_after=wait)


def _of_obstore(text: str) -> StoreError:
    answer = _OBSTORE_STATUS.search(text)
    if answer is not None:
        return answer_error(int(answer[1]), "", answer[2])
    address = _OBSTORE_ADDRESS.search(text)
    where = f" {address[1]}" if address else ""
    kind = _OBSTORE_KIND.search(text)
    if kind is not None:
        return TransientError(_TRANSPORT.get(kind[1], "the connection to{} broke").format(where or " the server"))
    if "BareRedirect" in text:
        return ConfigError("S3 answered with a redirect that names no place", hint=_REGION)
    if "RetryError" in text:
        return TransientError(f"the request to{where or ' the server'} failed")
    return StoreError(f"obstore: {_clean(text.partition(chr(10))[0])}")


_TRANSPORT = {
    "Connect": "cannot connect to{}",
    "Timeout": "no answer in time from{}",
}


def _of_transport(error: http.HTTPError | OSError) -> StoreError:
    if isinstance(error, http.MaxRetryError) and error.reason is not None:
        return translate(error.reason)
    if isinstance(error, (http.SSLError, http.LocationParseError, http.InvalidHeader)) or "SSL" in type(error).__name__:
        return ConfigError(
            f"TLS with the server failed: {_clean(str(error))}", hint="check endpoint, disable_ssl and ca_bundle"
        )
    if isinstance(error, (http.NewConnectionError, http.ConnectTimeoutError)):
        return TransientError("cannot connect to the server")
    if isinstance(error, (http.ReadTimeoutError, TimeoutError)):
        return TransientError("no answer in time from the server")
    if isinstance(error, (http.IncompleteRead, http.InvalidChunkLength)):
        return TransientError("the answer ended early")
    return TransientError(f"the connection to the server broke: {type(error).__name__}")


def _clean(text: str) -> str:
    """A foreign message on one line, bounded, without what could be used to sign or to get in."""
    return _SECRET.sub(r"\1=***", " ".join(text.split()))[:300]
