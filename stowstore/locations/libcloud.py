"""Every other provider of apache-libcloud, ``libcloud+<provider>``, through its storage driver's own verbs.

The verbs differ in quality, so this is the common and safe part of them: whole objects from real files, ranged reads,
listings sorted here, no conditional writes, no copies on the server.  Kinds of their own (``s3``, ``gs``, ``abfs``,
``sw``) do more, faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from datastore.driver import Location
from datastore.errors import (
    ConfigError,
    ContainerTaken,
    DigestMismatch,
    InvalidReference,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    StoreError,
    from_status,
)
from datastore.model import Capabilities, Feature
from datastore.stream import Body
from stowstore.locations._libcloud_objects import LibcloudContainer, bare_container, checked
from stowstore.locations.base import Dial, HttpSettings, Kind, Option, Options, nearest

if TYPE_CHECKING:
    from stowstore.locations._libcloud_transport import PerThread, Transport

__all__ = ["KIND", "LibcloudContainer", "LibcloudLocation"]

#: Providers this kind does not serve, and what to use.
_REFUSED = {
    "local": "its driver lets keys leave the directory and tears overwritten files: use file://",
    "dummy": "it keeps nothing: use mem://",
    "openstack_swift": "its driver asks for other objects than those named when a name has '?' or '#': use sw://",
    "cloudfiles": "its driver asks for other objects than those named when a name has '?' or '#': use sw://",
    "ktucloud": "its driver asks for other objects than those named when a name has '?' or '#': use sw://",
}
_S3_MAX_PUT = 5 << 30


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
            container = bare_container(driver, name) if self.is_plain else driver.get_container(name)
            return bool(driver.delete_container(container))

        self.container(name)
        self.run(remove)

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        names = self.run(lambda driver: [container.name for container in checked(driver.iterate_containers())])
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
