"""Redis: one plain string an object, as upstream writes them, and a hash beside it for what a string cannot hold.

Other programs may read and set the strings; `_redis_scripts` says how metadata stay true then.  There is one logical
container: objects differ by their keys alone.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from datastore.context import current_limits
from datastore.driver import Container, DriverEntry, DriverPage, Location
from datastore.errors import (
    AlreadyExists,
    ConfigError,
    DeadlineExceeded,
    InvalidReference,
    LimitExceeded,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from datastore.model import Capabilities, Feature, Metadata, SignedURLProperties, SignedURLResponse, WriteOptions
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations import _redis_scripts as scripts
from stowstore.locations._paging import select_page
from stowstore.locations.base import Dial, HttpSettings, Kind, Option, Options

__all__ = ["KIND", "RedisContainer", "RedisLocation"]

#: What Redis takes as one string (``proto-max-bulk-len``).
_MAX_OBJECT = 512 << 20
#: No key of ours holds NUL, so what begins with it is never an object.
_OWN = b"\0stowstore:"
_SIDE = _OWN + b"meta:"
_STAGED = _OWN + b"staged:"
#: Values up to this size go in one command, larger ones in pieces that become visible together.
_WHOLE = 4 << 20
_PIECE = 1 << 20
#: Seconds until pieces of a writer that died are forgotten.
_STAGED_FOR = 3600
_BATCH = 500
_GLOB = re.compile(rb"([*?\[\]\\])")
_HEADERS = ("content_type", "cache_control", "content_encoding", "content_disposition")

_FEATURES = {
    Feature.CREATE_IF_ABSENT,
    Feature.ATOMIC_CREATE,
    Feature.REPLACE_IF_MATCH,
    Feature.SERVER_SIDE_COPY,
    Feature.USER_METADATA,
    Feature.CONTENT_HEADERS,
    Feature.EMPTY_SEGMENTS,
    Feature.NESTED_KEYS,
    Feature.PERSISTENT,
}


class RedisContainer:
    """The strings of one server; thread-safe."""

    def __init__(self, name: str, client: Any, settings: HttpSettings, max_object_bytes: int) -> None:
        self._name = name
        self._client = client
        self._settings = settings
        self._max_object_bytes = max_object_bytes
        register = client.register_script
        self._head, self._open = register(scripts.HEAD), register(scripts.OPEN)
        self._piece, self._put = register(scripts.PIECE), register(scripts.PUT)
        self._copy = register(scripts.COPY)

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        found = self._run(self._head, _pair(key))
        if not found:
            raise NotFound("there is no such object")
        return _metadata(*found)

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        pair = _pair(key)
        found = self._run(self._open, pair, (start, -1 if length is None else length, _PIECE))
        if not found:
            raise NotFound("there is no such object")
        size, etag, fields, first, count, content = found
        if if_match is not None and etag.decode() != if_match:
            raise PreconditionFailed(f"the object is not the one of etag {if_match}")
        body = content if count == len(content) else _Body(self, pair, size, etag, first, count, content)
        return ReadStream(body, count, lambda: _metadata(size, etag, fields))

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        content = source.buffered(min(_WHOLE, self._max_object_bytes))
        if content is not None:
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self._store(_pair(key), len(content), etag, bytes(content), options)
            return etag
        staged = _STAGED + uuid.uuid4().hex.encode()
        try:
            size, etag = self._stage(staged, source)
            self._store((*_pair(key), staged), size, etag, b"", options)
        except BaseException:
            self._forget(staged)
            raise
        return etag

    def delete(self, key: str) -> None:
        self._run(self._client.unlink, *_pair(key))

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        for first in range(0, len(keys), _BATCH):
            self._run(self._client.unlink, *(name for key in keys[first : first + _BATCH] for name in _pair(key)))
        return {}

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        undecodable = 0

        def names() -> Iterator[tuple[str, bool]]:
            nonlocal undecodable
            for raw in self._scan(prefix):
                try:
                    yield raw.decode(), True
                except UnicodeDecodeError:
                    undecodable += 1

        chosen, prefixes, more = select_page(names(), prefix, after, limit, delimiter)
        entries = self._describe([name for name, _ in chosen])
        last = max([name for name, _ in chosen[-1:]] + prefixes[-1:], default="")
        # A scan meets all of them each time: they count on the first page.
        return DriverPage(entries, prefixes, more, 0 if after else undecodable, last if more else None)

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, RedisContainer) or source._client is not self._client:
            raise NotSupported("only objects of the same server are copied in place")
        condition, wanted = _condition(options)
        fields = ["carry"] if options is None else ["given", *_fields(options)]
        answer, *etag = self._run(self._copy, _pair(key) + _pair(source_key), (condition, wanted, *fields))
        if answer == b"missing":
            raise NotFound("there is no such object to copy")
        _check(answer, options)
        return str(etag[0].decode())

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        raise NotSupported("Redis has no URLs to sign")

    def next_piece(self, pair: Sequence[bytes], size: int, etag: bytes, first: int, count: int) -> bytes:
        """The bytes of an object that must still be the one of this etag."""
        piece = self._run(self._piece, pair, (size, etag, first, first + count - 1))
        if piece is None or piece is False:
            raise TransientError("the object was replaced while it was read", hint="read it again")
        return bytes(piece)

    def ping(self) -> None:
        """Asks the server for an answer."""
        self._run(self._client.ping)

    def _store(self, names: Sequence[bytes], size: int, etag: str, content: bytes, options: WriteOptions) -> None:
        arguments = (*_condition(options), size, etag, content, *_fields(options))
        answer = self._run(self._put, names, arguments)
        if answer == b"lost":
            raise TransientError("the pieces of the upload are gone: it took too long, or memory ran out")
        _check(answer, options)

    def _stage(self, staged: bytes, source: Source) -> tuple[int, str]:
        digest = hashlib.sha1(usedforsecurity=False)
        size = 0
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > self._max_object_bytes:
                raise LimitExceeded(
                    f"the data exceed the redis string value cap of {self._max_object_bytes} bytes",
                    hint="keep large objects in another kind of location",
                )
            digest.update(piece)
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.append(staged, piece).expire(staged, _STAGED_FOR)
                self._run(pipeline.execute)
        return size, digest.hexdigest()

    def _forget(self, staged: bytes) -> None:
        import redis

        try:
            self._client.unlink(staged)
        except (redis.RedisError, OSError, StoreError):
            # The error that brought us here says more, and the pieces expire.
            pass

    def _scan(self, prefix: str) -> Iterator[bytes]:
        pattern = _GLOB.sub(rb"\\\1", prefix.encode()) + b"*"
        cursor = 0
        while True:
            cursor, names = self._run(self._client.scan, cursor, pattern, 1000)
            for name in names:
                if not name.startswith(_OWN):
                    yield name
            if not cursor:
                return

    def _describe(self, keys: Sequence[str]) -> Sequence[DriverEntry]:
        entries: list[DriverEntry] = []
        for first in range(0, len(keys), _BATCH):
            some = keys[first : first + _BATCH]
            with self._client.pipeline(transaction=False) as pipeline:
                for key in some:
                    self._head(_pair(key), client=pipeline)
                answers = self._run(pipeline.execute, raise_on_error=False)
            for key, answer in zip(some, answers, strict=True):
                # None means that it has just gone.
                if isinstance(answer, Exception):
                    if "WRONGTYPE" not in str(answer):
                        raise _translate(answer, self._settings) from answer
                elif answer:
                    known = _metadata(*answer)
                    entries.append(DriverEntry(key, known.size, known.etag, known.last_modified))
        return entries

    def _run(self, command: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return command(*arguments, **more)
        except Exception as error:
            raise _translate(error, self._settings) from error


class _Body:
    """A value too large for one answer."""

    def __init__(
        self,
        container: RedisContainer,
        pair: Sequence[bytes],
        size: int,
        etag: bytes,
        first: int,
        count: int,
        content: bytes,
    ) -> None:
        self._container = container
        self._object = (pair, size, etag)
        self._next = first + len(content)
        self._left = count - len(content)
        self._ready = memoryview(content)

    def read(self, size: int, /) -> bytes:
        if not self._ready and self._left:
            count = min(self._left, _PIECE)
            self._ready = memoryview(self._container.next_piece(*self._object, self._next, count))
            self._next += count
            self._left -= count
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def close(self) -> None:
        self._ready, self._left = memoryview(b""), 0


class RedisLocation:
    """One server, the configured one; without an address, whichever the reference names as its host."""

    kind = "redis"

    def __init__(self, options: Options, settings: HttpSettings) -> None:
        self.scheme = "rediss" if options.flag("tls") else "redis"
        self._options = options
        self._settings = settings
        self._address = _address(options)
        self._containers: dict[str, RedisContainer] = {}
        limit = options.integer("max_object_bytes", _MAX_OBJECT)
        self.capabilities = Capabilities(features=_FEATURES, max_object_bytes=limit)

    @property
    def address(self) -> str:
        """What references to here have as their host, "" when each names its own."""
        return self._address

    def container(self, name: str) -> RedisContainer:
        """The server's strings; ``name`` matters only where no address is configured."""
        address = self._address or name
        known = self._containers.get(address)
        if known is None:
            client = _client(address, self._options, self._settings)
            made = RedisContainer(address, client, self._settings, self.capabilities.max_object_bytes or _MAX_OBJECT)
            known = self._containers.setdefault(address, made)
        return known

    def has_container(self, name: str) -> bool:
        self.container(name).ping()
        return True

    def create_container(self, name: str) -> None:
        self.container(name).ping()

    def delete_container(self, name: str) -> None:
        raise NotSupported("a Redis server has one container, which stays", hint="delete the objects")

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        return iter([name for name in (self._address,) if name and name.startswith(prefix)])

    def close(self) -> None:
        containers, self._containers = self._containers, {}
        for container in containers.values():
            container._client.close()

    def __repr__(self) -> str:
        return f"<RedisLocation {self._address}>"


def _pair(key: str) -> tuple[bytes, bytes]:
    raw = key.encode()
    return raw, _SIDE + raw


def _condition(options: WriteOptions | None) -> tuple[str, str]:
    if options is None:
        return "", ""
    if options.if_match is not None:
        return "match", options.if_match
    return ("absent" if options.if_absent else ""), ""


def _fields(options: WriteOptions) -> list[str]:
    fields = [part for name in _HEADERS if (value := getattr(options, name)) for part in (name, value)]
    return fields + [part for name, value in options.metadata.items() for part in (f"m:{name}", value)]


def _check(answer: bytes, options: WriteOptions | None) -> None:
    if answer == b"exists":
        raise AlreadyExists("there is an object of this key")
    if answer == b"differs" and options is not None:
        raise PreconditionFailed(f"the object is not the one of etag {options.if_match}")


def _metadata(size: int, etag: bytes, fields: Sequence[bytes]) -> Metadata:
    texts = [field.decode() for field in fields]
    known = dict(zip(texts[::2], texts[1::2], strict=True))
    modified = known.get("modified")
    return Metadata(
        exists=True,
        size=size,
        etag=etag.decode(),
        last_modified=datetime.fromtimestamp(int(modified) / 1000, UTC) if modified else None,
        user_metadata={name[2:]: value for name, value in known.items() if name.startswith("m:")},
        **{name: known.get(name) for name in _HEADERS},
    )


def _translate(error: Exception, settings: HttpSettings) -> StoreError:
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


#: First words of the answers of a server that refuses, and of one that will do it later.
_DENIED = {"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"}
_PASSING = {"OOM", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "MISCONF"}


def _address(options: Options) -> str:
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


def _client(address: str, options: Options, settings: HttpSettings) -> Any:
    redis = _import_redis()
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


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(f"//{address}")
    try:
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        host, port = None, 0
    if not host:
        raise InvalidReference(f"{address!r} is no Redis server: the host is host or host:port", reason="bad_container")
    return host, port


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


def _least(usual: float | None) -> float | None:
    limits = current_limits()
    if limits is None:
        return usual
    limits.check()
    left = limits.remaining()
    if left is None:
        return usual
    return max(0.001, left if usual is None else min(left, usual))


def _import_redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise ConfigError(
            "kind 'redis' needs the package redis, which is not installed", hint='pip install "stowstore[redis]"'
        ) from error
    return redis


def _dial(dial: Dial) -> Location:
    _import_redis()
    return RedisLocation(dial.options, dial.http)


KIND = Kind(
    name="redis",
    schemes=("redis", "rediss"),
    dial=_dial,
    extra="redis",
    summary="strings of a Redis server: small objects, quickly",
    options={
        "addr": Option(help="host or host:port of the server; without it each reference names its own"),
        "unix_socket": Option(help="the path of the server's socket, instead of addr"),
        "username": Option(help="the user of Redis's access control lists"),
        "password": Option(help="the password", secret=True),
        "db": Option(help="the number of the database", default="0"),
        "tls": Option(help="whether to use TLS; true for rediss://", default="false"),
        "ca_file": Option(help="certificates to trust instead of the system's"),
        "cert_file": Option(help="this client's certificate"),
        "key_file": Option(help="the key of cert_file"),
        "max_object_bytes": Option(help="the largest object; Redis's own cap is 512 MiB (536870912)"),
    },
)
