"""The connection to a Redis server: its address, a client bounded by deadlines, and what its errors mean."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from datastore.context import current_limits
from datastore.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidReference,
    NotSupported,
    PermissionDenied,
    StoreError,
    TransientError,
)
from stowstore.locations.base import HttpSettings, Options

__all__ = ["address_of", "connected", "import_redis", "translate"]

#: First words of the answers of a server that refuses, and of one that will do it later.
_DENIED = {"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"}
_PASSING = {"OOM", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "MISCONF"}


def address_of(options: Options) -> str:
    """The configured ``host:port``, or the path of the socket in a form a reference can have as its host."""
    if options.text("unix_socket"):
        return "localhost"
    text = options.text("addr")
    parts = urlsplit(text if "://" in text else f"//{text}")
    if "@" in parts.netloc:
        raise ConfigError("option 'addr' of kind 'redis' holds credentials", hint="use username and password")
    if parts.scheme not in ("", "redis", "rediss") or (text and not parts.netloc) or parts.path.strip("/"):
        raise ConfigError(
            f"invalid addr {text!r}: kind 'redis' takes host or host:port", hint="db is an option of its own"
        )
    return parts.netloc


def connected(address: str, options: Options, settings: HttpSettings) -> Any:
    redis = import_redis()
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    common: dict[str, Any] = {
        "db": options.integer("db"),
        "username": options.text("username") or None,
        "password": options.text("password") or None,
        "socket_timeout": settings.timeout or None,
        "socket_connect_timeout": settings.connect_timeout or None,
        # The client's own retries would repeat conditional writes, and wait longer than the caller wants.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": settings.max_connections_per_host or 1 << 31,
    }
    where: dict[str, Any]
    if socket := options.text("unix_socket"):
        base, where = redis.UnixDomainSocketConnection, {"path": socket}
    else:
        host, port = _host_and_port(address)
        base, where = redis.Connection, {"host": host, "port": port}
        if options.flag("tls"):
            base = redis.SSLConnection
            for name, option in (
                ("ssl_ca_certs", "ca_file"),
                ("ssl_certfile", "cert_file"),
                ("ssl_keyfile", "key_file"),
            ):
                where[name] = options.text(option) or None
    pool_class = redis.BlockingConnectionPool if settings.max_connections_per_host else redis.ConnectionPool
    pool = pool_class(connection_class=type(base.__name__, (_Bounded, base), {}), **where, **common)
    return redis.Redis.from_pool(pool)


def translate(error: Exception, settings: HttpSettings) -> StoreError:
    """The error of the taxonomy for what the client raised."""
    import redis

    if isinstance(error, StoreError):
        return error
    limits = current_limits()
    if limits is not None:
        limits.check()
    text = str(error).partition("\n")[0]
    first = text.partition(" ")[0]
    kinds = redis.exceptions
    denied = (kinds.AuthenticationError, kinds.AuthorizationError, kinds.NoPermissionError)
    if isinstance(error, denied) or first in _DENIED:
        return PermissionDenied(
            "Redis refuses the credentials, or what they may do", hint="check username and password"
        )
    if isinstance(error, (redis.TimeoutError, TimeoutError)):
        if limits is not None and (limits.remaining() or 1.0) < 0.05:
            return DeadlineExceeded(f"the deadline of {limits.seconds:g} s has passed")
        if settings.timeout and "connecting" not in text.lower():
            return DeadlineExceeded(f"no answer within the configured {settings.timeout:g} s", retryable=True)
        return TransientError("no connection to Redis in time")
    passing = (kinds.ConnectionError, kinds.ReadOnlyError, kinds.OutOfMemoryError, kinds.ClusterError, OSError)
    if isinstance(error, passing) or first in _PASSING:
        return TransientError(f"Redis cannot be reached or cannot answer now: {text}")
    if "unknown command" in text.lower():
        return NotSupported(f"the server is too old: {text}")
    if "WRONGTYPE" in text:
        return StoreError("this key holds no string, so it is no object", hint="somebody else uses it")
    return StoreError(f"Redis failed: {text}")


def import_redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise ConfigError(
            "kind 'redis' needs the package redis, which is not installed", hint='pip install "stowstore[redis]"'
        ) from error
    return redis


class _Bounded:
    """Goes before a connection class: the deadline of the context bounds its connecting, sending and waiting."""

    _sock: Any
    socket_timeout: float | None
    socket_connect_timeout: float | None
    _shortened = False

    def _connect(self) -> Any:
        usual = self.socket_connect_timeout
        self.socket_connect_timeout = _least(usual)
        try:
            return super()._connect()  # type: ignore[misc]
        finally:
            self.socket_connect_timeout = usual

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._sock is not None:
            bound = _least(self.socket_timeout)
            if bound != self.socket_timeout or self._shortened:
                self._sock.settimeout(bound)
                self._shortened = bound != self.socket_timeout
        super().send_packed_command(command, check_health)  # type: ignore[misc]


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(f"//{address}")
    try:
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        host, port = None, 0
    if not host:
        raise InvalidReference(f"{address!r} is no Redis server: the host is host or host:port", reason="bad_container")
    return host, port


def _least(usual: float | None) -> float | None:
    limits = current_limits()
    if limits is None:
        return usual
    limits.check()
    left = limits.remaining()
    if left is None:
        return usual
    return max(0.001, left if usual is None else min(left, usual))
