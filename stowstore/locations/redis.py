"""Redis: one plain string an object, as upstream writes them, and a hash beside it for what a string cannot hold.

Other programs may read and set the strings; `_redis_scripts` says how metadata stay true then.  There is one logical
container: objects differ by their keys alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from datastore.driver import Location
from datastore.errors import NotSupported
from datastore.model import Capabilities, Feature
from stowstore.locations._redis_client import address_of, connected, import_redis
from stowstore.locations._redis_objects import MAX_OBJECT, RedisContainer
from stowstore.locations.base import Dial, HttpSettings, Kind, Option, Options

__all__ = ["KIND", "RedisContainer", "RedisLocation"]

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


class RedisLocation:
    """One server, the configured one; without an address, whichever the reference names as its host."""

    kind = "redis"

    def __init__(self, options: Options, settings: HttpSettings) -> None:
        self.scheme = "rediss" if options.flag("tls") else "redis"
        self._options = options
        self._settings = settings
        self._address = address_of(options)
        self._containers: dict[str, RedisContainer] = {}
        limit = options.integer("max_object_bytes", MAX_OBJECT)
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
            client = connected(address, self._options, self._settings)
            made = RedisContainer(address, client, self._settings, self.capabilities.max_object_bytes or MAX_OBJECT)
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


def _dial(dial: Dial) -> Location:
    import_redis()
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
