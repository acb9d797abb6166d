"""HTTP under apache-libcloud's drivers, made safe to build on.

libcloud signs requests and finds endpoints; its own way of sending them has no timeout for uploads and streams, one
connection a driver, whole bodies in memory, no status in its errors and folds ``//`` in paths.  `Transport.equip`
replaces that way on one driver.  A driver belongs to one thread (`PerThread`); the sockets are shared by all.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, cast

import requests
import urllib3
from libcloud.common.base import Connection
from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError
from libcloud.http import LibcloudConnection
from libcloud.storage.types import (
    ContainerAlreadyExistsError,
    ContainerDoesNotExistError,
    ContainerIsNotEmptyError,
    InvalidContainerNameError,
    ObjectDoesNotExistError,
    ObjectHashMismatchError,
)
from requests.adapters import HTTPAdapter

from datastore.context import current_limits
from datastore.errors import (
    ContainerNotEmpty,
    ContainerTaken,
    DeadlineExceeded,
    DigestMismatch,
    InvalidReference,
    NoSuchContainer,
    NotFound,
    PermissionDenied,
    StoreError,
    TransientError,
    from_os_error,
    from_status,
)
from stowstore.locations.base import HttpSettings

__all__ = ["PerThread", "RawReply", "ResponseBody", "Trace", "Transport", "finish", "retry_after", "translate"]

_T = TypeVar("_T")

#: Unread rests up to this size are read to keep the connection; beyond it a new one is cheaper.
_DRAIN = 64 << 10
_STATUS_AT_END = re.compile(r"\b([45]\d\d)\b\W*$")


class Transport:
    """The sockets and settings that all drivers of one location share.

    Sockets are per process: a forked child makes its own.  Thread-safe.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self.headers = {name: ", ".join(values) for name, values in settings.headers.items()}
        self._sockets: tuple[int, HTTPAdapter] | None = None

    def equip(self, connection: Any) -> None:
        """Lets a driver's connection send through this transport and keep paths as they are."""
        kind = type(connection)
        connection.__class__ = type(kind.__name__, (_Polite, kind, _PathsKept), {})
        connection.extra_headers = self.headers
        raw = connection.rawResponseCls
        connection.rawResponseCls = type(raw.__name__, (_RangesSucceed, raw), {})
        connection.trace = trace = Trace()
        # A provider may connect to several hosts, one after the other.
        connection.conn_class = partial(_Sender, self, trace)
        connection.connection = None

    def adapter(self) -> HTTPAdapter:
        """The socket pool of this process."""
        sockets = self._sockets
        if sockets is None or sockets[0] != os.getpid():
            settings = self.settings
            bound = settings.max_connections_per_host
            kept = bound or settings.max_idle_connections_per_host or 10
            made = HTTPAdapter(pool_connections=32, pool_maxsize=kept, pool_block=bound > 0)
            self._sockets = sockets = (os.getpid(), made)
        return sockets[1]

    def timeouts(self) -> tuple[float | None, float | None]:
        """Seconds to connect and to wait for bytes: what is configured, and no more than the context has left."""
        limits = current_limits()
        left = None
        if limits is not None:
            limits.check()
            left = limits.remaining()
        found = []
        for configured in (self.settings.connect_timeout, self.settings.timeout):
            bounds = [seconds for seconds in (configured or None, left) if seconds is not None]
            # Zero would mean "do not block", which is not what an expired deadline means.
            found.append(max(min(bounds), 0.001) if bounds else None)
        return found[0], found[1]

    def close(self) -> None:
        """Closes idle sockets; those in use close with their streams."""
        sockets, self._sockets = self._sockets, None
        if sockets is not None and sockets[0] == os.getpid():
            sockets[1].close()


class PerThread(Generic[_T]):
    """One value a thread and process, made when first asked for.

    ``renew`` makes every thread ask for a new one.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._local = threading.local()
        self._epoch = 0

    def get(self) -> _T:
        mark = (os.getpid(), self._epoch)
        local = self._local
        if getattr(local, "mark", None) != mark:
            local.value = self._make()
            local.mark = mark
        value: _T = local.value
        return value

    def renew(self) -> None:
        self._epoch += 1


class Trace:
    """The last answer a driver got, which libcloud's own errors and streams do not tell."""

    def __init__(self) -> None:
        self.response: requests.Response | None = None

    @property
    def status(self) -> int | None:
        return None if self.response is None else self.response.status_code


class RawReply:
    """A libcloud response class that leaves everything to the caller: status, headers and the unread body."""

    def __init__(self, connection: Any, response: requests.Response) -> None:
        self.http = response


class ResponseBody:
    """The body of a response as `datastore.stream.Body`: bounded memory, the deadline between any two packets."""

    def __init__(self, response: requests.Response, transport: Transport) -> None:
        self._response = response
        self._transport = transport

    def read(self, size: int, /) -> bytes:
        raw = self._response.raw
        limits = current_limits()
        if limits is not None and (sock := getattr(raw.connection, "sock", None)) is not None:
            sock.settimeout(self._transport.timeouts()[1])
        try:
            piece: bytes = raw.read1(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise translate(error, self._transport.settings) from error
        return piece

    def close(self) -> None:
        finish(self._response)


class _Sender(LibcloudConnection):
    """One driver's way to the network."""

    def __init__(
        self, transport: Transport, trace: Trace, host: str, port: int, secure: bool | None = None, **more: Any
    ) -> None:
        super().__init__(host, port, secure=secure, **more)  # type: ignore[no-untyped-call]
        self._transport = transport
        self._trace = trace
        # A netrc entry would replace the signature the driver made.
        session = cast(requests.Session, self.session)
        session.auth = _keep_authorization
        adapter = transport.adapter()
        session.mount("http://", adapter)
        session.mount("https://", adapter)

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        raw: bool = False,
        stream: bool = False,
        hooks: Any = None,
    ) -> None:
        self._send(method, url, body, headers, stream=stream)

    def prepared_request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        raw: bool = False,
        stream: bool = False,
    ) -> None:
        # The drivers' own downloads do not ask for a stream and would hold the whole object in memory.
        self._send(method, url, body, headers, stream=stream or method.upper() == "GET")

    def _send(self, method: str, url: str, body: Any, headers: Any, *, stream: bool) -> None:
        self._trace.response = None
        session = cast(requests.Session, self.session)
        if hasattr(body, "fileno") and os.fstat(body.fileno()).st_size == 0:
            # An empty file would be sent in chunks, which some servers refuse.
            body = b""
        texts = {name: str(value) if isinstance(value, (int, float)) else value for name, value in headers.items()}
        request = requests.Request(method, f"{self.host}{url}", data=body, headers=texts)
        prepared = session.prepare_request(request)
        settings = session.merge_environment_settings(prepared.url, {}, stream, self.verification, None)
        self.response = session.send(prepared, timeout=self._transport.timeouts(), allow_redirects=False, **settings)
        if "charset" not in self.response.headers.get("Content-Type", ""):
            # XML and JSON are UTF-8 where they do not say; a guess from the bytes gets names wrong.
            self.response.encoding = "utf-8"
        self._trace.response = self.response


class _PathsKept(Connection):
    """Stands between a provider's connection and libcloud's: paths go out as the driver quoted them."""

    def morph_action_hook(self, action: str) -> str:
        slash = "" if action.startswith("/") or not action else "/"
        return f"{self.request_path.rstrip('/')}{slash}{action}" or "/"

    def request(self, *args: Any, **kwargs: Any) -> Any:
        # libcloud's own retries, which a global and an environment variable turn on, send an exhausted iterator as
        # an empty object and report success.
        return super().request(*args, **{**kwargs, "retry_failed": False})  # type: ignore[no-untyped-call]


class _Polite:
    """Goes before a provider's connection, so that what it adds is signed."""

    extra_headers: dict[str, str]

    def pre_connect_hook(self, params: Any, headers: Any) -> Any:
        headers["Accept-Encoding"] = "identity"
        if headers.get("Content-Length") == "0":
            # Azure signs the length of nothing as nothing; requests sends the header all the same.
            del headers["Content-Length"]
        headers.update(self.extra_headers)
        return super().pre_connect_hook(params, headers)  # type: ignore[misc]


class _RangesSucceed:
    """Goes before a provider's raw response: some take 206 for a failure and read the body to explain it."""

    status: int

    def success(self) -> bool:
        return 200 <= int(self.status) <= 299 or bool(super().success())  # type: ignore[misc]


def translate(error: Exception, settings: HttpSettings, status: int | None = None) -> StoreError:
    """The error of the taxonomy for what libcloud, requests or the system raised.

    Texts of libraries are not passed on where they may hold URLs or answers of a login; they stay in ``__cause__``.
    ``status`` is that of the answer when the driver lost it.

    Raises:
        DeadlineExceeded, Cancelled: the context ended, which is why the error came.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, ObjectHashMismatchError) and status is not None and status >= 400:
        # Drivers compare digests before they look whether anything was stored.
        return from_status(status, f"the backend answered {status}")
    for kind, made in _BY_CLASS.items():
        if isinstance(error, kind):
            return made[0](made[1], http_status=status)
    if isinstance(error, LibcloudError):
        if status is None or status < 400:
            found = _STATUS_AT_END.search(str(error))
            status = int(found.group(1)) if found else None
        text = "the answer cannot be read" if isinstance(error, MalformedResponseError) else _short(error)
        return from_status(status, text) if status else StoreError(text)
    if status is None and isinstance(getattr(error, "code", None), int):
        # libcloud's BaseHTTPError.
        return from_status(error.code, _short(error))  # type: ignore[attr-defined]
    return _of_transport(error, settings)


def finish(response: requests.Response) -> None:
    """Ends an answer: a short rest is read, which gives the connection back to the pool; otherwise it is closed."""
    raw = response.raw
    rest = getattr(raw, "length_remaining", None)
    if rest is not None and rest <= _DRAIN:
        raw.drain_conn()
        raw.release_conn()
    else:
        response.close()


def retry_after(headers: Any) -> float | None:
    """The seconds a server asked to wait."""
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isdigit() else None


def _of_transport(error: Exception, settings: HttpSettings) -> StoreError:
    limits = current_limits()
    if limits is not None:
        limits.check()
    if isinstance(error, (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        if limits is not None and (limits.remaining() or 1.0) < 0.05:
            return DeadlineExceeded("no connection before the deadline")
        return TransientError(f"no connection within {settings.connect_timeout:g} s")
    if _caused_by(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        # The system's clock may wake us a moment before ours says so.
        if limits is not None and (limits.remaining() or 1.0) < 0.05:
            return DeadlineExceeded(f"the deadline of {limits.seconds:g} s has passed")
        if settings.timeout:
            return DeadlineExceeded(f"no answer within the configured {settings.timeout:g} s", retryable=True)
        return TransientError("the connection stalled")
    if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
        return StoreError("TLS failed: the certificate or the protocol was refused", hint="see the cause")
    if isinstance(
        error, (requests.ConnectionError, urllib3.exceptions.HTTPError, requests.exceptions.ChunkedEncodingError)
    ):
        return TransientError(f"the connection failed: {_innermost(error)}")
    if isinstance(error, requests.RequestException):
        return StoreError(f"the request cannot be made: {type(error).__name__}")
    if isinstance(error, OSError):
        return from_os_error(error)
    return StoreError(f"the client library failed: {type(error).__name__}")


def _caused_by(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    while error is not None:
        if isinstance(error, kinds) or any(isinstance(part, kinds) for part in error.args):
            return True
        error = error.__cause__ or error.__context__
    return False


def _innermost(error: BaseException) -> str:
    """What the system said, which names no URL."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return getattr(error, "strerror", None) or type(error).__name__


def _short(error: Exception) -> str:
    text = str(getattr(error, "value", None) or error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


_BY_CLASS: dict[type[Exception], tuple[type[StoreError], str]] = {
    ContainerDoesNotExistError: (NoSuchContainer, "there is no such container"),
    ContainerAlreadyExistsError: (ContainerTaken, "there is a container of this name"),
    ContainerIsNotEmptyError: (ContainerNotEmpty, "the container still holds objects"),
    InvalidContainerNameError: (InvalidReference, "the backend takes no container of this name"),
    ObjectDoesNotExistError: (NotFound, "there is no such object"),
    ObjectHashMismatchError: (DigestMismatch, "the backend received other bytes than were sent"),
    InvalidCredsError: (PermissionDenied, "the credentials are missing, wrong or do not allow this"),
}
