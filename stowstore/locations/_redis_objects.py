"""The objects of one Redis server: a string each, and a hash beside it for what a string cannot hold."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from datastore.driver import Container, DriverEntry, DriverPage
from datastore.errors import (
    AlreadyExists,
    LimitExceeded,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from datastore.model import Metadata, SignedURLProperties, SignedURLResponse, WriteOptions
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations import _redis_scripts as scripts
from stowstore.locations._paging import select_page
from stowstore.locations._redis_client import translate
from stowstore.locations.base import HttpSettings

__all__ = ["MAX_OBJECT", "RedisContainer"]

#: What Redis takes as one string (``proto-max-bulk-len``).
MAX_OBJECT = 512 << 20
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
                        raise translate(answer, self._settings) from answer
                elif answer:
                    known = _metadata(*answer)
                    entries.append(DriverEntry(key, known.size, known.etag, known.last_modified))
        return entries

    def _run(self, command: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return command(*arguments, **more)
        except Exception as error:
            raise translate(error, self._settings) from error


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
