"""Signed requests to S3 that can be stopped: minio's addresses and signatures over connections of our own.

The minio client itself hashes what TLS already protects, waits for minutes, hides the server's headers and cannot be
stopped, so only its parts are used here; it keeps the administration of buckets, over the same connections.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import SplitResult, urlunsplit

import certifi
import urllib3
from minio import Minio
from minio import time as amazon_time
from minio.signer import sign_v4_s3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from datastore.context import Limits, current_limits
from datastore.errors import PermissionDenied, StoreError, TransientError
from stowstore.locations.s3.credentials import Keys
from stowstore.locations.s3.errors import FOREIGN, answer_error, translate
from stowstore.locations.s3.settings import Settings

__all__ = ["Answer", "Sent", "Wire", "WireBody"]

#: How much of an answer that refuses is read for its reason.
_REASON = 1 << 16
_STEP = 1 << 20
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Answer(NamedTuple):
    """A whole answer; header names are looked up without case."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Sent(Protocol):
    """A body that is read while it is sent."""

    def read(self, size: int = -1, /) -> bytes: ...


class Wire:
    """Sends requests to one service with one set of keys; thread-safe, and usable in forked children once reset."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys
        self._pool, self.minio = self._connect()

    def send(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        limits: Limits | None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | Sent = b"",
        size: int | None = None,
        patience: float | None = None,
    ) -> Answer:
        """Sends a request and returns the whole answer; a body that is read while sent needs its ``size``.

        Raises:
            StoreError: the server refused, could not be reached, or the limits are over.
        """
        call, response = self._exchange(method, bucket, key, limits, query, headers, body, size, patience)
        try:
            return Answer(response.status, response.headers, call.read_all(response))
        finally:
            call.end()

    def fetch(
        self, bucket: str, key: str, *, limits: Limits | None, headers: Mapping[str, str]
    ) -> tuple[Answer, WireBody]:
        """Asks for an object; its content comes through the body, which must be closed."""
        call, response = self._exchange("GET", bucket, key, limits, None, headers, b"", None, None)
        return Answer(response.status, response.headers, b""), WireBody(call, response)

    def url(self, method: str, bucket: str, key: str) -> SplitResult:
        """Where an object is, quoted but otherwise as it is."""
        return self._address(method, bucket, key, None)

    @property
    def is_amazon(self) -> bool:
        """Whether this is Amazon's own service, which honours what others may ignore without a word."""
        return bool(self.minio._base_url.is_aws_host)

    def reset_after_fork(self) -> None:
        """Starts over: sockets and locks are shared with the parent."""
        # The old ones stay alive: taking them apart would take locks that the parent's threads may have held.
        _abandoned.append((self._pool, self.minio))
        self._pool, self.minio = self._connect()

    def close(self) -> None:
        self._pool.clear()

    def _connect(self) -> tuple[_Pool, Minio]:
        settings = self._settings
        pool = _Pool(settings)
        client = Minio(
            settings.host,
            secure=settings.secure,
            region=settings.region,
            credentials=None if settings.anonymous else self._keys,
            http_client=pool,
        )
        client._base_url.virtual_style_flag = not settings.path_style
        return pool, client

    def _exchange(
        self,
        method: str,
        bucket: str,
        key: str,
        limits: Limits | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | memoryview | Sent,
        size: int | None,
        patience: float | None,
    ) -> tuple[_Call, urllib3.BaseHTTPResponse]:
        url = self._address(method, bucket, key, query)
        signed = self._sign(method, url, {} if headers is None else dict(headers), body, size)
        call = _Call(limits, patience or self._settings.timeout)
        try:
            response = self._pool.urlopen(
                method, urlunsplit(url), call=call, body=body or None, headers=signed, preload_content=False
            )
            if response.status < 300:
                return call, response
            reason = b"" if method == "HEAD" else response.read(_REASON, decode_content=False)
            response.close()
        except FOREIGN as error:
            call.end()
            raise call.explain(error) from error
        except BaseException:
            # What the body's reader raised is the caller's own.
            call.end()
            raise
        call.end()
        refusal = answer_error(response.status, "", reason.decode("utf-8", "replace"), response.headers)
        if isinstance(refusal, PermissionDenied) and self._keys.refresh():
            refusal.retryable = True
        raise refusal

    def _address(self, method: str, bucket: str, key: str, query: Mapping[str, str] | None) -> SplitResult:
        url: SplitResult = self.minio._base_url.build(
            method=method,
            region=self._settings.region,
            bucket_name=bucket,
            object_name=key or None,
            query_params=dict(query) if query else None,
        )
        return url

    def _sign(
        self,
        method: str,
        url: SplitResult,
        headers: dict[str, str],
        body: bytes | memoryview | Sent,
        size: int | None,
    ) -> dict[str, str]:
        headers.update(self._settings.headers)
        headers["Host"] = url.netloc
        if size is not None:
            headers["Content-Length"] = str(size)
        if self._keys.anonymous:
            return headers
        credentials = self._keys.retrieve()
        if self._settings.unsigned_payload or not isinstance(body, (bytes, memoryview)):
            digest = _UNSIGNED
        else:
            digest = hashlib.sha256(body).hexdigest()
        now = amazon_time.utcnow()
        headers["x-amz-date"] = amazon_time.to_amz_date(now)
        headers["x-amz-content-sha256"] = digest
        if credentials.session_token:
            headers["x-amz-security-token"] = credentials.session_token
        sign_v4_s3(
            method=method,
            url=url,
            region=self._settings.region,
            # It adds to the mapping it is given.
            headers=cast(dict[str, Any], headers),
            credentials=credentials,
            content_sha256=digest,
            date=now,
        )
        return headers


class WireBody:
    """The content of an answer, read as it arrives; stopped by the limits it was asked for in."""

    def __init__(self, call: _Call, response: urllib3.BaseHTTPResponse) -> None:
        self._call = call
        self._response = response

    def read(self, size: int, /) -> bytes:
        try:
            return self._call.read(self._response, min(size, _STEP))
        except FOREIGN as error:
            raise self._call.explain(error) from error

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            TransientError: there are fewer.
        """
        pieces = []
        while count:
            piece = self.read(count)
            if not piece:
                raise TransientError("the answer ended early")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Reads over bytes that were not asked for."""
        while count:
            count -= len(self.read_exactly(min(count, _STEP)))

    def close(self) -> None:
        self._call.end()
        response = self._response
        if response.length_remaining == 0:
            # Read to its end, though not beyond: the connection can serve others.
            response.drain_conn()
        response.close()


class _Call:
    """One request under way, and how to stop it."""

    def __init__(self, limits: Limits | None, timeout: float) -> None:
        self._limits = limits
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._stopped = False
        self._forget: list[Callable[[], None]] = []
        if limits is not None:
            limits.check()
            self._forget = [token.on_cancel(self._stop) for token in limits.tokens]

    def uses(self, sock: socket.socket) -> None:
        """Told which socket the request goes through, before anything is sent on it."""
        self._sock = sock
        sock.settimeout(self.patience())
        if self._stopped:
            self._stop()

    def patience(self) -> float:
        """Seconds to wait for the next sign of life."""
        left = None if self._limits is None else self._limits.remaining()
        return self._timeout if left is None else max(0.001, min(self._timeout, left))

    def read(self, response: urllib3.BaseHTTPResponse, size: int) -> bytes:
        if self._limits is None:
            return response.read(size, decode_content=False)
        self._limits.check()
        if self._sock is not None:
            try:
                self._sock.settimeout(self.patience())
            except OSError:
                # Closed: everything has arrived.
                pass
        # A server that trickles must not hold us until a large piece is whole.
        return response.read1(size, decode_content=False)

    def read_all(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return b"".join(iter(lambda: self.read(response, _STEP), b""))
        except FOREIGN as error:
            raise self.explain(error) from error

    def explain(self, error: BaseException) -> StoreError:
        """What a failure means: the limits that stopped the request, else what the library says."""
        if self._limits is not None:
            try:
                self._limits.check()
            except StoreError as over:
                return over
        return translate(error)

    def end(self) -> None:
        """Lets go of the tokens and the socket, which goes on to serve others."""
        forget, self._forget = self._forget, []
        self._sock = None
        for each in forget:
            each()

    def _stop(self) -> None:
        self._stopped = True
        sock = self._sock
        if sock is not None:
            try:
                # The plain socket's way: TLS would be torn down under the thread that reads it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass


class _Thread(threading.local):
    call: _Call | None = None


_here = _Thread()


class _Line(HTTPConnection):
    """A connection that tells the request under way in its thread which socket it uses."""

    def connect(self) -> None:
        super().connect()
        _announce(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _announce(self)
        super().request(*args, **kwargs)


class _SecureLine(HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        super().connect()
        _announce(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _announce(self)
        super().request(*args, **kwargs)


def _announce(line: HTTPConnection) -> None:
    if _here.call is not None and line.sock is not None:
        _here.call.uses(line.sock)


class _Lines(HTTPConnectionPool):
    ConnectionCls = _Line


class _SecureLines(HTTPSConnectionPool):
    ConnectionCls = _SecureLine


class _Pool(urllib3.PoolManager):
    """Connections that never retry or redirect on their own: both would send a body again that cannot be."""

    def __init__(self, settings: Settings) -> None:
        more: dict[str, Any] = {"ssl_context": _tls(settings)} if settings.secure else {}
        super().__init__(
            num_pools=64,
            maxsize=settings.max_connections or min(settings.idle_connections, 64),
            block=settings.max_connections > 0,
            blocksize=1 << 17,
            **more,
        )
        self.pool_classes_by_scheme = {"http": _Lines, "https": _SecureLines}
        self._settings = settings

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, *, call: _Call | None = None, **more: Any
    ) -> urllib3.BaseHTTPResponse:
        own = call is None
        # minio's requests for buckets come without.
        call = call or _Call(current_limits(), self._settings.timeout)
        patience = call.patience()
        if own:
            more["headers"].update(self._settings.headers)
        _here.call = call
        try:
            return super().urlopen(
                method,
                url,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=min(self._settings.connect_timeout, patience), read=patience),
                **more,
            )
        except FOREIGN as error:
            if own:
                raise call.explain(error) from error
            raise
        finally:
            _here.call = None
            if own:
                call.end()


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where())
    if settings.ca_bundle:
        context.load_verify_locations(settings.ca_bundle)
    if settings.insecure_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


#: What children no longer use and must not take apart.
_abandoned: list[object] = []
