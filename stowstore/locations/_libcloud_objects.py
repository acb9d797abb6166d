"""The objects of one libcloud container, through the verbs of a storage driver."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from datastore.context import check
from datastore.driver import Container, DriverEntry, DriverPage
from datastore.errors import NotFound, NotSupported, PreconditionFailed, StoreError, TransientError
from datastore.memory import resolve_range
from datastore.model import Metadata, SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from datastore.stream import Body, ReadStream
from stowstore.locations._packing import pack, unpack
from stowstore.locations._paging import select_page

if TYPE_CHECKING:
    from stowstore.locations.libcloud import LibcloudLocation

__all__ = ["LibcloudContainer", "bare_container", "checked"]

_PIECE = 1 << 20
#: Up to this size a source is held in memory until libcloud reads it from its file.
_WHOLE = 4 << 20
#: How often an object that changes meanwhile is opened anew.
_LOOKS = 8


class LibcloudContainer:
    """One container of a provider."""

    def __init__(self, location: LibcloudLocation, name: str) -> None:
        self._location = location
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        return _metadata(self._found(key))

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        # The verbs tell an object's size and open it in two requests: what came between them is seen by the etag.
        for _ in range(_LOOKS):
            found = self._found(key)
            metadata = _metadata(found)
            if if_match is not None and metadata.etag != if_match:
                raise PreconditionFailed(f"the object is not the one of etag {if_match}")
            first, count = resolve_range(metadata.size, start, length)
            if count == 0:
                return ReadStream(b"", 0, metadata)
            body = self._body(found, first, count, metadata)
            if body is not None:
                return ReadStream(body, count, metadata)
        raise TransientError("the object is replaced faster than it can be opened", hint="read it again later")

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        self._location.check_key(key)
        content = source.buffered(_WHOLE)
        if content is None:
            self._location.run(lambda driver: driver.get_container(self._name))
        # The drivers read a body twice, for its digest and to send it: only a file surely has the same bytes again.
        with tempfile.NamedTemporaryFile(prefix="stowstore-") as file:
            if content is not None:
                file.write(content)
            else:
                while piece := source.read(_PIECE):
                    self._location.check_size(source.position)
                    file.write(piece)
            file.flush()
            extra = {
                "content_type": options.content_type or "application/octet-stream",
                "meta_data": pack(options.metadata, _is_plain),
            }
            etag: str = self._location.run(lambda driver: self._upload(driver, file.name, key, extra))
            return etag

    def delete(self, key: str) -> None:
        self._location.check_key(key)

        def remove(driver: Any) -> None:
            if self._location.is_plain:
                found = _handle(driver, self._name, key)
            else:
                found = driver.get_object(self._name, key)
            driver.delete_object(found)

        try:
            self._location.run(remove, missing=NotFound)
        except NotFound:
            pass

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for key in keys:
            try:
                self.delete(key)
            except StoreError as error:
                failed[key] = error
        return failed

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        def page(driver: Any) -> DriverPage:
            # Some signers strip what they sign; spaces at the ends are looked for here alone.
            asked = prefix.rstrip() if prefix[:1].strip() else ""
            found = driver.iterate_container_objects(self._container(driver), prefix=asked or None)
            chosen, prefixes, more = select_page(
                ((entry.name, entry) for entry in checked(found)), prefix, after, limit, delimiter
            )
            return DriverPage([_entry(entry) for _, entry in chosen], prefixes, more)

        found: DriverPage = self._location.run(page)
        return found

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        raise NotSupported("libcloud has no copies on the server")

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        raise NotSupported(
            "libcloud's URLs are not signed in one way", hint="use the provider's own kind if it has one"
        )

    def _found(self, key: str) -> Any:
        self._location.check_key(key)
        return self._location.run(lambda driver: driver.get_object(self._name, key), missing=NotFound)

    def _container(self, driver: Any) -> Any:
        return bare_container(driver, self._name) if self._location.is_plain else driver.get_container(self._name)

    def _upload(self, driver: Any, path: str, key: str, extra: dict[str, Any]) -> str:
        stored = driver.upload_object(path, self._container(driver), key, extra=extra)
        response = driver.connection.trace.response
        return clean_etag((response is not None and response.headers.get("etag")) or stored.hash)

    def _body(self, found: Any, first: int, count: int, metadata: Metadata) -> Body | None:
        """The bytes of a range of an object, None if another one is there by now."""
        skipped = 0

        def ask(driver: Any) -> Any:
            nonlocal skipped
            # The handle belongs to the driver that made it, which may be another thread's.
            handle = _handle(driver, self._name, found.name, found)
            if count == metadata.size:
                return driver.download_object_as_stream(handle), driver.connection.trace.response
            try:
                return driver.download_object_range_as_stream(handle, first, first + count), (
                    driver.connection.trace.response
                )
            except NotImplementedError:
                skipped = first
                return driver.download_object_as_stream(handle), None

        try:
            pieces, response = self._location.run(ask, missing=NotFound)
        except StoreError as error:
            if error.http_status == 416:
                return None
            raise
        if response is None:
            return _Pieces(pieces, skipped, self._location)
        etag = clean_etag(response.headers.get("etag"))
        if etag and metadata.etag and etag != metadata.etag:
            response.close()
            return None
        # The driver's own iterator decodes what the writer compressed, and cannot be closed.
        return self._location.body(response)


class _Pieces:
    """A driver's iterator as a body, where its answer cannot be read directly."""

    def __init__(self, pieces: Any, skipped: int, location: LibcloudLocation) -> None:
        self._pieces = iter(pieces)
        self._skipped = skipped
        self._location = location
        self._ready = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            check()
            try:
                piece = next(self._pieces, None)
            except Exception as error:
                raise self._location.translated(error, None) from error
            if piece is None:
                return b""
            dropped = min(self._skipped, len(piece))
            self._skipped -= dropped
            self._ready = memoryview(piece)[dropped:]
        taken, self._ready = self._ready[:size], self._ready[size:]
        return bytes(taken)

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


def bare_container(driver: Any, name: str) -> Any:
    from libcloud.storage.base import Container as Handle

    return Handle(name=name, extra={}, driver=driver)


def checked(found: Any) -> Iterator[Any]:
    for item in found:
        check()
        yield item


def _handle(driver: Any, container: str, key: str, known: Any = None) -> Any:
    """An object as libcloud's verbs want it, without asking the backend."""
    from libcloud.storage.base import Container as ContainerHandle
    from libcloud.storage.base import Object

    extra = {} if known is None else known.extra
    holder = ContainerHandle(name=container, extra={} if known is None else known.container.extra, driver=driver)
    size, digest = (0, "") if known is None else (known.size, known.hash)
    return Object(name=key, size=size, hash=digest, extra=extra, meta_data={}, container=holder, driver=driver)


def _is_plain(name: str, value: str) -> bool:
    """Whether every provider keeps it: Azure's names are identifiers, signers differ about spaces in values."""
    return name.isalnum() and name[0].isalpha() and value != "" and "  " not in value


def _metadata(found: Any) -> Metadata:
    extra = found.extra or {}
    return Metadata(
        exists=True,
        size=int(found.size),
        etag=clean_etag(extra.get("etag") or found.hash),
        content_type=extra.get("content_type"),
        last_modified=_when(extra.get("last_modified")),
        user_metadata=unpack({str(name): str(value) for name, value in (found.meta_data or {}).items()}),
    )


def _entry(found: Any) -> DriverEntry:
    extra = found.extra or {}
    etag = clean_etag(extra.get("etag") or found.hash)
    return DriverEntry(found.name, int(found.size), etag, _when(extra.get("last_modified")))


def _when(text: Any) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = parse(str(text))
        except (ValueError, TypeError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
