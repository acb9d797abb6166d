"""The data path of a container on obstore: reading, writing and removing objects.

A backend says how its requests are conditioned, how metadata names travel and what its error codes mean; what needs
the service's other verbs (listing, copying, signing) is the backend's own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import obstore
from obstore import exceptions

from datastore.driver import Container, DriverPage
from datastore.errors import (
    AlreadyExists,
    InvalidReference,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    TransientError,
    from_status,
)
from datastore.memory import resolve_range
from datastore.model import Metadata, SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations._obstore import SourcePieces, StreamBody, call, failure_of, gather
from stowstore.locations.base import HttpSettings

__all__ = ["FOREIGN", "SINGLE_PUT", "ObstoreContainer", "client_options", "part_retries"]

#: Objects up to this size go in one request and are kept in memory meanwhile.
SINGLE_PUT = 8 << 20

#: What obstore raises; errors of our own are among the OSErrors and ValueErrors, and translate to themselves.
FOREIGN = (exceptions.BaseError, OSError, ValueError)

#: Answers up to this size are fetched when the object is opened.
_WHOLE = 256 << 10

#: Bytes of all parts in flight together.
_IN_FLIGHT = 64 << 20
_PARTS = 4

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_HEADERS = {
    "Content-Type": "content_type",
    "Cache-Control": "cache_control",
    "Content-Encoding": "content_encoding",
    "Content-Disposition": "content_disposition",
}
_NOT_OURS = ("Content-Language", "Storage-Class")

#: An object may change between the request for its size and the one for its bytes, but not for ever.
_ATTEMPTS = 5


class ObstoreContainer(ABC, Container):
    """A container whose objects move through obstore; thread-safe.

    ``single`` must not retry (the store's own wrapper does), ``parts`` must: a part is in memory, and sending it again
    spares the upload.
    """

    suffix_ranges: ClassVar[bool]
    smallest_part: ClassVar[int]
    most_parts: ClassVar[int]
    error_codes: ClassVar[Mapping[str, type[StoreError]]]

    def __init__(self, name: str, single: Any, parts: Any) -> None:
        self._name = name
        self._single = single
        self._parts = parts

    @property
    def name(self) -> str:
        return self._name

    # -- what a backend adds ------------------------------------------------------------------------------------

    @abstractmethod
    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage: ...

    @abstractmethod
    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str: ...

    @abstractmethod
    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse: ...

    @abstractmethod
    def _put_large_if(self, key: str, source: Source, options: WriteOptions) -> str:
        """Writes under a condition what is too large for one request; obstore would keep all of it in memory."""

    @abstractmethod
    def _require(self) -> None:
        """Raises `NoSuchContainer` when it is certain that the container is missing."""

    def _etag(self, told: Mapping[str, Any]) -> str:
        """The identity of an object's content, from obstore's answer."""
        return clean_etag(told["e_tag"])

    def _only_if(self, etag: str) -> dict[str, Any]:
        """The options of a read that shall fail unless the object has this etag."""
        return {"if_match": f'"{etag}"'}

    def _mode_if(self, etag: str) -> Any:
        """The mode of a put that shall fail unless the object has this etag."""
        return {"e_tag": f'"{etag}"'}

    def _outgoing_name(self, name: str) -> str:
        """How a user metadata name travels."""
        return name

    def _incoming_name(self, name: str) -> str:
        return name

    def _check_key(self, key: str) -> None:
        """Raises `InvalidReference` for keys the backend would change."""
        if not key.isprintable() and _CONTROL.search(key):
            raise InvalidReference(
                "the key has a control character, which the backend does not take", reason="control_char"
            )

    # -- the data path ------------------------------------------------------------------------------------------

    def head(self, key: str) -> Metadata:
        self._check_key(key)
        try:
            found = call(obstore.get, obstore.get_async, self._single, key, options={"head": True})
            return self._metadata(found.meta, found.attributes)
        except FOREIGN as error:
            raise self._translate(error) from _cause(error)

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        self._check_key(key)
        options: dict[str, Any] = {}
        if start < 0:
            if length is not None or not self.suffix_ranges:
                return self._open_measured(key, start, length, if_match)
            options["range"] = {"suffix": -start}
        elif length is not None:
            if length == 0:
                return self._open_measured(key, start, length, if_match)
            options["range"] = (start, start + length)
        elif start:
            options["range"] = {"offset": start}
        if if_match is not None:
            options.update(self._only_if(if_match))
        try:
            return self._stream(
                call(obstore.get, obstore.get_async, self._single, key, options=options or None), if_match
            )
        except FOREIGN as error:
            if "range" in options and _unsatisfiable(error):
                return self._open_measured(key, start, length, if_match)
            raise self._translate(error) from _cause(error)

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        self._check_key(key)
        content = source.buffered(SINGLE_PUT)
        if content is None:
            return self._put_large(key, source, options)
        mode = None
        if options.if_absent:
            mode = "create"
        elif options.if_match is not None:
            mode = self._mode_if(options.if_match)
        try:
            written = call(
                obstore.put,
                obstore.put_async,
                self._single,
                key,
                content,
                attributes=self._attributes(options),
                mode=mode,
                use_multipart=False,
            )
        except FOREIGN as error:
            raise self._translate_put(error, options) from _cause(error)
        return self._etag(written)

    def delete(self, key: str) -> None:
        self._check_key(key)
        try:
            call(obstore.delete, obstore.delete_async, self._single, key)
        except FOREIGN as error:
            translated = self._translate(error)
            if not isinstance(translated, NotFound):
                raise translated from _cause(error)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        return self._delete_each(keys)

    # -- within -------------------------------------------------------------------------------------------------

    def _delete_each(self, keys: Sequence[str]) -> dict[str, StoreError]:
        for key in keys:
            self._check_key(key)
        failed: dict[str, StoreError] = {}
        results = gather(obstore.delete_async, [(self._single, key) for key in keys])
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, Exception):
                translated = self._translate(result)
                if not isinstance(translated, NotFound):
                    translated.__cause__ = result
                    failed[key] = translated
        return failed

    def _put_large(self, key: str, source: Source, options: WriteOptions) -> str:
        if not source.rewindable:
            # What was read of it could not be written a second time, after making the container.
            self._require()
        if options.if_absent or options.if_match is not None:
            return self._put_large_if(key, source, options)
        part = self._part_size(source.size)
        pieces = SourcePieces(source, part)
        failure: Exception
        try:
            written = call(
                obstore.put,
                obstore.put_async,
                self._parts,
                key,
                pieces,
                attributes=self._attributes(options),
                use_multipart=True,
                chunk_size=part,
                max_concurrency=max(1, min(_PARTS, _IN_FLIGHT // part)),
            )
            return self._etag(written)
        except FOREIGN as error:
            failure = error
        if pieces.error is not None:
            raise pieces.error
        raise self._translate_put(failure, options) from _cause(failure)

    def _part_size(self, size: int | None) -> int:
        return max(self.smallest_part, -(-(size or 0) // self.most_parts))

    def _open_measured(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        """Opens a range that can only be expressed once the size is known."""
        for attempt in range(_ATTEMPTS):
            known = self.head(key)
            if if_match is not None and known.etag != if_match:
                raise PreconditionFailed(f"the object has etag {known.etag}, not {if_match}", http_status=412)
            first, count = resolve_range(known.size, start, length)
            if count == 0:
                return ReadStream(b"", 0, known)
            options = {"range": (first, first + count), **self._only_if(known.etag)}
            try:
                return self._stream(
                    call(obstore.get, obstore.get_async, self._single, key, options=options), known.etag
                )
            except FOREIGN as error:
                translated = self._translate(error)
                changed = isinstance(translated, (PreconditionFailed, NotFound)) or _unsatisfiable(error)
                if not changed or attempt + 1 == _ATTEMPTS:
                    raise translated from _cause(error)
        raise AssertionError("unreachable")

    def _stream(self, found: Any, if_match: str | None) -> ReadStream:
        meta, attributes = found.meta, found.attributes
        if if_match is not None and (etag := self._etag(meta)) != if_match:
            raise PreconditionFailed(f"the object has etag {etag}, not {if_match}", http_status=412)
        first, end = found.range
        count = end - first
        content: Any
        if count <= _WHOLE:
            content = call(found.bytes, found.bytes_async).to_bytes() if count else b""
        else:
            content = StreamBody(found, self._translate)
        return ReadStream(content, count, lambda: self._metadata(meta, attributes))

    def _attributes(self, options: WriteOptions) -> dict[str, str] | None:
        found = {header: value for header, name in _HEADERS.items() if (value := getattr(options, name))}
        for name, value in options.metadata.items():
            found[self._outgoing_name(name)] = value
        return found or None

    def _metadata(self, told: Mapping[str, Any], attributes: Mapping[str, str]) -> Metadata:
        headers = {}
        user = {}
        for name, value in attributes.items():
            known = _HEADERS.get(name)
            if known is not None:
                headers[known] = value
            elif name not in _NOT_OURS:
                user[self._incoming_name(name.lower())] = value
        return Metadata(
            exists=True,
            size=told["size"],
            etag=self._etag(told),
            last_modified=told["last_modified"],
            user_metadata=user,
            **headers,
        )

    def _translate_put(self, error: Exception, options: WriteOptions) -> StoreError:
        """The same as `_translate`, where the condition of the put says what the answer means."""
        translated = self._translate(error)
        if options.if_absent and isinstance(translated, PreconditionFailed):
            return AlreadyExists(translated.message, http_status=translated.http_status)
        missing = isinstance(translated, NotFound) and not isinstance(translated, NoSuchContainer)
        if options.if_match is not None and missing:
            return PreconditionFailed("there is no such object", http_status=translated.http_status)
        return translated

    def _translate(self, error: Exception) -> StoreError:
        """The error of the taxonomy for what obstore raised; by the service's code, then the class, then the status."""
        if isinstance(error, StoreError):
            return error
        failure = failure_of(error)
        status = failure.status or None
        kind = self.error_codes.get(failure.code)
        if kind is None:
            kind = next((ours for theirs, ours in _BY_CLASS if isinstance(error, theirs)), None)
        if kind is not None:
            return kind(failure.text, http_status=status)
        if status is not None:
            return from_status(status, failure.text)
        if isinstance(error, (exceptions.BaseError, OSError)):
            # No answer: the connection broke, was refused or timed out.
            return TransientError(failure.text)
        return StoreError(f"the client library failed: {type(error).__name__}")


def client_options(settings: HttpSettings, *, plain: bool) -> dict[str, Any]:
    """obstore's options for how a location talks HTTP; ``plain`` lets it do without TLS."""
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=settings.connect_timeout or 86400.0),
        # obstore's own default would cut off every transfer that takes longer than 30 seconds.
        "timeout": timedelta(seconds=settings.timeout or 365 * 86400.0),
        "read_timeout": timedelta(seconds=settings.timeout or 120.0),
        "pool_max_idle_per_host": str(settings.max_idle_connections_per_host or settings.max_idle_connections or 1024),
        "user_agent": "stowstore",
    }
    if settings.idle_timeout:
        options["pool_idle_timeout"] = timedelta(seconds=settings.idle_timeout)
    if settings.headers:
        options["default_headers"] = {name: ", ".join(values) for name, values in settings.headers.items()}
    if plain:
        options["allow_http"] = True
    return options


def part_retries() -> dict[str, Any]:
    """How parts of a large upload are retried."""
    return {
        "max_retries": 5,
        "retry_timeout": timedelta(minutes=3),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 2},
    }


def _unsatisfiable(error: Exception) -> bool:
    """Whether the range starts at the end or behind it: answered so, or noticed by obstore."""
    if isinstance(error, StoreError):
        return error.http_status == 416
    text = str(error)
    return "Wanted range starting at" in text or failure_of(error).status == 416


def _cause(error: BaseException) -> BaseException | None:
    """What to raise a translated error from: errors of ours are raised as they are."""
    return error.__cause__ if isinstance(error, StoreError) else error


_BY_CLASS: tuple[tuple[type[Exception], type[StoreError]], ...] = (
    (FileNotFoundError, NotFound),
    (exceptions.AlreadyExistsError, AlreadyExists),
    (exceptions.PreconditionError, PreconditionFailed),
    (exceptions.NotModifiedError, PreconditionFailed),
    (exceptions.PermissionDeniedError, PermissionDenied),
    (exceptions.UnauthenticatedError, PermissionDenied),
    (exceptions.NotSupportedError, NotSupported),
    (exceptions.InvalidPathError, InvalidReference),
)
