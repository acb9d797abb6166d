"""Every other provider of apache-libcloud, ``libcloud+<provider>``, through its storage driver's own verbs.

The verbs differ in quality, so this is the common and safe part of them: whole objects from real files, ranged reads,
listings sorted here, no conditional writes, no copies on the server.  Kinds of their own (``s3``, ``gs``, ``abfs``,
``sw``) do more, faster.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from datastore.context import check
from datastore.driver import Container, DriverEntry, DriverPage, Location
from datastore.errors import (
    ConfigError,
    ContainerTaken,
    DigestMismatch,
    InvalidReference,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
    TransientError,
    from_status,
)
from datastore.memory import resolve_range
from datastore.model import (
    Capabilities,
    Feature,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
    clean_etag,
)
from datastore.source import Source
from datastore.stream import Body, ReadStream
from stowstore.locations._packing import pack, unpack
from stowstore.locations._paging import select_page
from stowstore.locations.base import Dial, HttpSettings, Kind, Option, Options, nearest

if TYPE_CHECKING:
    from stowstore.locations._libcloud_transport import PerThread, Transport

__all__ = ["KIND", "LibcloudContainer", "LibcloudLocation"]

_PIECE = 1 << 20
#: Up to this size a source is held in memory until libcloud reads it from its file.
_WHOLE = 4 << 20
#: Providers this kind does not serve, and what to use.
_REFUSED = {
    "local": "its driver lets keys leave the directory and tears overwritten files: use file://",
    "dummy": "it keeps nothing: use mem://",
    "openstack_swift": "its driver asks for other objects than those named when a name has '?' or '#': use sw://",
    "cloudfiles": "its driver asks for other objects than those named when a name has '?' or '#': use sw://",
    "ktucloud": "its driver asks for other objects than those named when a name has '?' or '#': use sw://",
}
#: How often an object that changes meanwhile is opened anew.
_LOOKS = 8
_S3_MAX_PUT = 5 << 30


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
                ((entry.name, entry) for entry in _checked(found)), prefix, after, limit, delimiter
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
        return _bare_container(driver, self._name) if self._location.is_plain else driver.get_container(self._name)

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


class LibcloudLocation:
    """One account of a provider; libcloud's drivers are not thread-safe, so each thread has its own."""

    def __init__(self, provider: str, make: Callable[[], Any], transport: Transport, threads: PerThread[Any]) -> None:
        from libcloud.storage.drivers.azure_blobs import AzureBlobsStorageDriver
        from libcloud.storage.drivers.s3 import BaseS3StorageDriver

        self.kind = f"libcloud+{provider}"
        # A scheme has no underscores.
        self.scheme = f"libcloud+{provider.replace('_', '-')}"
        self._transport = transport
        self._drivers = threads
        driver = make()
        s3 = isinstance(driver, BaseS3StorageDriver)
        #: Whether objects can be addressed by name alone, without a look for their ids first.
        self.is_plain = s3 or isinstance(driver, AzureBlobsStorageDriver)
        self._has_backslashes = not isinstance(driver, AzureBlobsStorageDriver)
        features = {Feature.CONTAINERS, Feature.NESTED_KEYS, Feature.PERSISTENT}
        if self.is_plain:
            features |= {Feature.EMPTY_SEGMENTS, Feature.USER_METADATA}
        self.capabilities = Capabilities(features=features, max_object_bytes=_S3_MAX_PUT if s3 else None)

    def container(self, name: str) -> LibcloudContainer:
        if not name or "/" in name or "?" in name or "#" in name or name in (".", ".."):
            raise InvalidReference(f"{name!r} is no name of a container", reason="bad_container")
        return LibcloudContainer(self, name)

    def has_container(self, name: str) -> bool:
        self.container(name)
        try:
            self.run(lambda driver: driver.get_container(name))
        except NoSuchContainer:
            return False
        return True

    def create_container(self, name: str) -> None:
        self.container(name)
        try:
            self.run(lambda driver: driver.create_container(name))
        except ContainerTaken:
            # Providers say the same of ours and of others'; only ours can be looked at.
            if not self.has_container(name):
                raise

    def delete_container(self, name: str) -> None:
        def remove(driver: Any) -> bool:
            container = _bare_container(driver, name) if self.is_plain else driver.get_container(name)
            return bool(driver.delete_container(container))

        self.container(name)
        self.run(remove)

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        names = self.run(lambda driver: [container.name for container in _checked(driver.iterate_containers())])
        return iter(sorted(name for name in names if name.startswith(prefix)))

    def run(self, action: Callable[[Any], Any], *, missing: type[NotFound] = NoSuchContainer) -> Any:
        """Runs an action with this thread's driver and translates what it raises.

        ``missing`` is what a 404 means where the driver does not say.
        """
        driver = self._drivers.get()
        trace = driver.connection.trace
        trace.response = None
        try:
            result = action(driver)
        except Exception as error:
            raise self.translated(error, trace.status, missing) from error
        if result is False and trace.status is not None and trace.status >= 300:
            # Some verbs return False for any status they did not expect.
            failed = from_status(trace.status, f"the backend answered {trace.status}")
            raise missing("it is not there") if type(failed) is NotFound else failed
        return result

    def translated(self, error: Exception, status: int | None, missing: type[NotFound] = NotFound) -> StoreError:
        from stowstore.locations._libcloud_transport import translate

        found = translate(error, self._transport.settings, status)
        if status == 404 and (type(found) is NotFound or isinstance(found, DigestMismatch)) and missing is not NotFound:
            return missing(f"there is no such container: {found.message}")
        return found

    def body(self, response: Any) -> Body:
        from stowstore.locations._libcloud_transport import ResponseBody

        return ResponseBody(response, self._transport)

    def check_key(self, key: str) -> None:
        """Refuses a key that the backend takes for another one."""
        if "\\" in key and not self._has_backslashes:
            raise InvalidReference("the key has a backslash, which Azure turns into a slash", reason="backslash")

    def check_size(self, size: int) -> None:
        limit = self.capabilities.max_object_bytes
        if limit is not None and size > limit:
            raise LimitExceeded(f"the data are longer than the {limit} bytes the backend takes an object")

    def close(self) -> None:
        self._drivers.renew()
        self._transport.close()

    def __repr__(self) -> str:
        return f"<LibcloudLocation {self.kind}>"


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


def _checked(found: Any) -> Iterator[Any]:
    for item in found:
        check()
        yield item


def _bare_container(driver: Any, name: str) -> Any:
    from libcloud.storage.base import Container as Handle

    return Handle(name=name, extra={}, driver=driver)


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


def _driver_class(provider: str) -> Any:
    """A subclass of the provider's driver: some keep an endpoint on the class, where two locations would share it."""
    from libcloud.storage.providers import DRIVERS, get_driver

    if provider in _REFUSED:
        raise ConfigError(f"libcloud provider {provider!r} is not supported: {_REFUSED[provider]}")
    if provider not in DRIVERS:
        known = sorted(str(name) for name in DRIVERS if name not in _REFUSED)
        raise ConfigError(f"unknown libcloud provider {provider!r}", hint=nearest(provider, known))
    found = get_driver(provider)
    connection = type(found.connectionCls.__name__, (found.connectionCls,), {})
    return type(found.__name__, (found,), {"connectionCls": connection})


def _arguments(options: Options) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: value for name in ("host", "region") if (value := options.text(name))}
    if options.text("port"):
        arguments["port"] = options.integer("port")
    if options.text("secure"):
        arguments["secure"] = options.flag("secure")
    if text := options.text("driver_options"):
        try:
            more = json.loads(text)
        except ValueError:
            more = None
        if not isinstance(more, dict):
            raise ConfigError(
                "option 'driver_options' of kind 'libcloud' is no JSON object",
                hint='give the driver\'s own arguments, as in {"token": "..."}',
            )
        arguments.update(more)
    return arguments


def _dial(dial: Dial) -> Location:
    return _located(dial.options, dial.http)


def _located(options: Options, settings: HttpSettings) -> LibcloudLocation:
    from stowstore.locations._libcloud_transport import PerThread, Transport

    provider = options.text("provider").lower().replace("-", "_")
    kind = _driver_class(provider)
    arguments = _arguments(options)
    transport = Transport(settings)

    def make() -> Any:
        secret = options.text("secret")
        try:
            driver = kind(options.text("key"), *([secret] if secret else []), **arguments)
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"libcloud's driver {provider!r} does not take these options: {type(error).__name__}",
                hint=f"see libcloud's documentation of {kind.__name__}",
            ) from error
        transport.equip(driver.connection)
        return driver

    return LibcloudLocation(provider, make, transport, PerThread(make))


KIND = Kind(
    name="libcloud",
    schemes=(),
    dial=_dial,
    summary="every other provider of apache-libcloud, as libcloud+<provider>",
    options={
        "provider": Option(help="libcloud's name of the provider, as in libcloud+backblaze_b2", required=True),
        "key": Option(help="the user, account or access key", required=True),
        "secret": Option(help="what goes with key", secret=True),
        "host": Option(help="another endpoint than the provider's own"),
        "port": Option(help="its port"),
        "secure": Option(help="whether to use HTTPS; the provider's own choice by default"),
        "region": Option(help="the region, where the provider has them"),
        "driver_options": Option(help="more arguments of libcloud's driver, as a JSON object", secret=True),
    },
)
