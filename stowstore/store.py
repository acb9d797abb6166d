"""StowStore: one store over every location."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from datastore import protobuf
from datastore.errors import NotSupported
from datastore.metric_names import Operation
from datastore.model import Feature, Metadata, WriteOptions
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.wrappers.routing import RoutingStore
from stowstore.config import SchemeConfig, StoreConfig
from stowstore.locations.registry import known_schemes
from stowstore.opening import configure, dial_backend, dial_scheme

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from metrics import Scope

    M = TypeVar("M", bound=Message)
else:
    M = TypeVar("M")

__all__ = ["StowStore", "open_store"]


class StowStore(RoutingStore):
    """A data store over pluggable locations: references of any scheme, containers kept in maps, everything measured.

    The primary location serves its own scheme, schemeless references and unknown schemes; others are dialled when a
    reference first needs them.  Thread-safe.  A store over a backend that outlives the process can be pickled: the
    receiving process dials anew.  It is a context manager that closes its connections.

    ``scope`` names the metrics (``stow`` in the default registry when left out); two stores of one scope share them.
    Modelled on flytestdlib's ``StowStore``, without its defects (docs/explanation.md lists them).
    """

    def __init__(self, config: StoreConfig, *, scope: Scope | None = None) -> None:
        self._config = config
        self._scope = scope
        self._primary_backend = dial_backend(config, self._scope)
        super().__init__(
            self._primary_backend.store,
            self._dial,
            primary_scheme=self._primary_backend.scheme,
            primary_account=config.account,
            schemes=_ServedSchemes(),
            per_host=() if "addr" in config.schemes.get("redis", SchemeConfig()).options else ("redis", "rediss"),
        )

    @classmethod
    def from_config(
        cls,
        config: StoreConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        *,
        scope: Scope | None = None,
    ) -> Self:
        """Opens the store of a configuration, in any of the forms `open_store` takes."""
        return cls(configure(config), scope=scope)

    @property
    def config(self) -> StoreConfig:
        """What the store was made of."""
        return self._config

    def create_container(self, name: str) -> DataReference:
        """Makes a private container in the primary location and returns its reference; ours already is fine.

        Raises:
            ContainerNotAllowed: it is not the base container and other containers are not enabled.
            ContainerTaken: it belongs to somebody else.
        """
        backend = self._primary_backend
        return backend.on_container(Operation.CREATE_CONTAINER, name, lambda: backend.containers.create_container(name))

    def load_container(self, name: str, create_if_not_found: bool = False) -> DataReference:
        """The reference of a container that exists, made first if asked.

        Raises:
            NoSuchContainer: it does not exist and is not to be created.
        """
        backend = self._primary_backend
        return backend.on_container(
            Operation.LOAD_CONTAINER, name, lambda: backend.containers.load_container(name, create_if_not_found)
        )

    def is_primary(self, reference: Reference) -> bool:
        """Whether the primary location serves a reference."""
        return self.store_of(reference) is self._primary_backend.store

    def delete_container(self, name: str) -> None:
        """Removes an empty container.

        Raises:
            NoSuchContainer: it does not exist.
            ContainerNotEmpty: it holds objects.
        """
        backend = self._primary_backend
        backend.on_container(Operation.DELETE_CONTAINER, name, lambda: backend.containers.delete_container(name))

    def list_containers(self, prefix: str = "") -> Iterator[DataReference]:
        """The references of the containers this store may use, ascending."""
        return self._primary_backend.containers.list_containers(prefix)

    def read_protobuf(self, reference: Reference, message: M, *, max_bytes: int | None = None) -> M:
        """Reads an object into a protobuf message, cleared first; see `datastore.protobuf.read_protobuf`.

        ``max_bytes`` None is the configured limit, 2 MiB by default.
        """
        limit = self._config.max_protobuf_bytes if max_bytes is None else max_bytes
        return protobuf.read_protobuf(
            self, reference, message, max_bytes=limit, hook=self._primary_backend.protobuf_hook
        )

    def write_protobuf(self, reference: Reference, message: Message, options: WriteOptions | None = None) -> Metadata:
        """Writes a protobuf message, equal messages as equal bytes; see `datastore.protobuf.write_protobuf`."""
        return protobuf.write_protobuf(self, reference, message, options, hook=self._primary_backend.protobuf_hook)

    def refresh_config(self, config: StoreConfig | Mapping[str, Any] | str | os.PathLike[str]) -> None:
        """Moves to another configuration: dials it first, swaps at once, then closes the old connections.

        Operations under way end on the old backend or fail as if it had gone; metrics go on counting.

        Raises:
            ConfigError, StoreError: the new configuration cannot be used; the store goes on with the old one.
        """
        fresh = configure(config)
        backend = dial_backend(fresh, self._scope)
        self._config, self._primary_backend = fresh, backend
        self.replace_primary(backend.store, scheme=backend.scheme, account=fresh.account)

    def _dial(self, scheme: str, account: str | None, reference: DataReference) -> Store:
        return dial_scheme(self._config, scheme, account, reference, self._scope).store

    def __reduce__(self) -> tuple[Any, ...]:
        if Feature.PERSISTENT not in self.capabilities():
            raise NotSupported(
                f"a {self._config.kind} store holds its objects in this process and cannot be sent to another",
                hint="use file:// or an object store to share data between processes",
            )
        return type(self), (self._config,)

    def __repr__(self) -> str:
        return f"StowStore({self._config.kind!r}, {str(self.base_container_fqn)!r})"


class _ServedSchemes:
    """The schemes some kind serves, plug-ins included; asked only for references the primary does not serve."""

    def __contains__(self, scheme: object) -> bool:
        return isinstance(scheme, str) and bool(known_schemes(scheme))


def open_store(
    source: StoreConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    scope: Scope | None = None,
    **overrides: Any,
) -> StowStore:
    """Opens a store: ``open_store("file:///data/main")``, ``open_store("s3://bucket?endpoint=http://localhost:9000")``.

    ``source`` is a URL, the path of a YAML file, a mapping, a `StoreConfig`, or None for what the environment says
    (``STOWSTORE_URL``, ``STOWSTORE_CONFIG``).  ``overrides`` replace fields of the configuration.

    Raises:
        ConfigError: the configuration is wrong; the message names the key and the nearest valid one.
        StoreError: the base container cannot be used.
    """
    return StowStore(configure(source, **overrides), scope=scope)
