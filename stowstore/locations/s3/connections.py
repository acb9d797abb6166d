"""Connections to S3 that can be stopped in the middle of a request.

urllib3 hides which socket a request goes through; these connections tell it, so that a deadline or a cancelled token
can end the wait from outside.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from datastore.context import Limits, current_limits
from datastore.errors import StoreError
from stowstore.locations.s3.errors import FOREIGN, translate
from stowstore.locations.s3.settings import Settings

__all__ = ["STEP", "Call", "Pool"]

#: The most that is read at once.
STEP = 1 << 20


class Call:
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
        """Reads the next bytes of the answer within the limits; raises what urllib3 raises."""
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
        """Reads the rest of the answer; raises what a failure means."""
        try:
            return b"".join(iter(lambda: self.read(response, STEP), b""))
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
    call: Call | None = None


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


class Pool(urllib3.PoolManager):
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
        self, method: str, url: str, redirect: bool = True, *, call: Call | None = None, **more: Any
    ) -> urllib3.BaseHTTPResponse:
        own = call is None
        # minio's requests for buckets come without.
        call = call or Call(current_limits(), self._settings.timeout)
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
