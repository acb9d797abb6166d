"""Containers kept in maps keyed by location, and the store over them.

A `ContainerMap` holds the containers of one location and decides which may be used and when one is made.  A
`LocationStore` is the portable store over a main location, with another one that only signs where that is configured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from enum import StrEnum

from datastore.driver import Container, Location
from datastore.errors import ConfigError, ContainerNotAllowed, NoSuchContainer, StoreError
from datastore.model import Capabilities, SignedURLProperties, SignedURLResponse
from datastore.portable import PortableStore
from datastore.protocol import Reference
from datastore.reference import DataReference
from datastore.source import Source
from stowstore.config import ContainerPolicy

__all__ = ["ContainerMap", "LocationId", "LocationStore"]


class LocationId(StrEnum):
    """The two locations a store may have."""

    MAIN = "main"
    SIGNED_URL = "signed_url"


class ContainerMap:
    """The containers of one location, loaded once each; thread-safe.

    Only ``base`` may be used unless ``dynamic`` loading is on.  Handles are kept for good: they hold no state of the
    backend.  What is forgotten when a container turns out to be missing is that it was seen to exist.
    """

    def __init__(self, location: Location, *, base: str, dynamic: bool, policy: ContainerPolicy) -> None:
        self.location = location
        self._base = base
        self._dynamic = dynamic
        self._policy = policy
        #: The containers used so far, all of them allowed; to look at only.
        self.handles: dict[str, Container] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def get(self, name: str) -> Container:
        """The handle of a container that may be used; makes no request.

        Raises:
            ContainerNotAllowed: it is not the base container and dynamic loading is off.
        """
        try:
            return self.handles[name]
        except KeyError:
            self._allow(name)
        with self._lock:
            if name not in self.handles:
                self.handles[name] = self.location.container(name)
            return self.handles[name]

    def ensure(self, name: str) -> Container:
        """The handle of a container that exists, made if the policy says so; asks the backend once, not once a thread.

        Raises:
            NoSuchContainer: it is missing and the policy is ``never``.
        """
        handle = self.get(name)
        if name in self._seen or self._policy is ContainerPolicy.NEVER:
            return handle
        with self._turn(name):
            if name not in self._seen:
                if self._policy is ContainerPolicy.ALWAYS or not self.location.has_container(name):
                    self._create(name)
                self._seen.add(name)
        return handle

    def create(self, name: str) -> Container:
        """Makes a container whatever the policy; one that is ours already is fine."""
        handle = self.get(name)
        with self._turn(name):
            self._create(name)
            self._seen.add(name)
        return handle

    def load(self, name: str, *, create_if_not_found: bool) -> Container:
        """A container that exists.

        Raises:
            NoSuchContainer: it does not, and was not to be created.
        """
        handle = self.get(name)
        with self._turn(name):
            if not self.location.has_container(name):
                self._seen.discard(name)
                if not create_if_not_found:
                    raise NoSuchContainer(f"there is no container {name}", hint="create it, or mend the name")
                self._create(name)
            self._seen.add(name)
        return handle

    def delete(self, name: str) -> None:
        """Removes an empty container."""
        self.get(name)
        with self._turn(name):
            self._seen.discard(name)
            self.location.delete_container(name)

    def recreate(self, name: str) -> Container | None:
        """Makes a container that was met missing, if the policy allows."""
        with self._lock:
            self._seen.discard(name)
        return None if self._policy is ContainerPolicy.NEVER else self.ensure(name)

    def names(self, prefix: str = "") -> Iterator[str]:
        """The containers of the location that may be used."""
        for name in self.location.list_containers(prefix):
            if self._dynamic or name == self._base:
                yield name

    @property
    def loaded(self) -> int:
        """How many containers were used so far."""
        return len(self.handles)

    def _allow(self, name: str) -> None:
        if name != self._base and not self._dynamic:
            raise ContainerNotAllowed(
                f"Conf container:{self._base} != Passed Container:{name}",
                hint="allow other containers with enable-multicontainer",
            )

    def _create(self, name: str) -> None:
        try:
            self.location.create_container(name)
        except StoreError as error:
            error.message = f"unable to initialize container [{name}]. Error: {error.message}"
            raise

    def _turn(self, name: str) -> threading.Lock:
        with self._lock:
            return self._loading.setdefault(name, threading.Lock())


class LocationStore(PortableStore):
    """The store over one location: its base container and, where allowed, its others."""

    def __init__(
        self,
        main: ContainerMap,
        signing: ContainerMap | None = None,
        *,
        base: str,
        account: str | None = None,
        max_download_bytes: int = 0,
    ) -> None:
        super().__init__(max_download_bytes=max_download_bytes)
        self._maps = {LocationId.MAIN: main, LocationId.SIGNED_URL: main if signing is None else signing}
        self._main = main
        self._capabilities = main.location.capabilities
        self._account = account
        self._short_key = self._capabilities.max_key_bytes // 4
        scheme = main.location.scheme
        self._fqn = DataReference.build(scheme, base, "", account) if base else DataReference("")

    @property
    def base_container_fqn(self) -> DataReference:
        return self._fqn

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        return self._capabilities

    @property
    def loaded(self) -> int:
        """How many containers the map of the main location holds."""
        return self._main.loaded

    def ensure_base(self) -> None:
        """Makes sure of the base container, if there is one, as the policy says: what opening a store does."""
        if self._fqn.container:
            self._contained("load_container", self._fqn.container, lambda: self._main.ensure(self._fqn.container))

    def create_container(self, name: str) -> DataReference:
        """Makes a private container and returns its reference; one that is ours already is returned as it is."""
        return self._contained("create_container", name, lambda: self._main.create(name))

    def load_container(self, name: str, create_if_not_found: bool = False) -> DataReference:
        """The reference of a container that exists.

        Raises:
            NoSuchContainer: it does not exist and is not to be created.
        """
        return self._contained(
            "load_container", name, lambda: self._main.load(name, create_if_not_found=create_if_not_found)
        )

    def delete_container(self, name: str) -> None:
        """Removes an empty container.

        Raises:
            NoSuchContainer: it does not exist.
            ContainerNotEmpty: it holds objects.
        """
        self._contained("delete_container", name, lambda: self._main.delete(name))

    def list_containers(self, prefix: str = "") -> Iterator[DataReference]:
        """The references of the containers this store may use, ascending."""
        for name in self._main.names(prefix):
            yield self._reference(name)

    def close(self) -> None:
        for location in {id(kept.location): kept.location for kept in self._maps.values()}.values():
            location.close()

    def _container(self, reference: DataReference) -> Container:
        name = reference.container
        handles = self._main.handles
        return handles[name] if name in handles else self._main.get(name)

    def _write_container(self, reference: DataReference, source: Source) -> Container:
        # A body that cannot be sent twice must not be the one to find out that its container is missing.
        if source.data is None and not source.rewindable:
            return self._main.ensure(reference.container)
        name = reference.container
        handles = self._main.handles
        return handles[name] if name in handles else self._main.get(name)

    def _container_missing(self, reference: DataReference) -> Container | None:
        return self._main.recreate(reference.container)

    def _sign(self, reference: DataReference, properties: SignedURLProperties) -> SignedURLResponse:
        return self._maps[LocationId.SIGNED_URL].get(reference.container).sign(reference.key, properties)

    def _check_key(self, ref: DataReference) -> None:
        if ref.account is not None and self._account is not None and ref.account != self._account:
            raise ConfigError(
                f"the reference is of account {ref.account}, the store of {self._account}",
                hint="configure a store for that account",
            )
        # Short and without an empty segment it passes whatever the capabilities are.
        if len(ref.key) > self._short_key or "//" in ref.key:
            super()._check_key(ref)

    def _contained(self, op: str, name: str, act: Callable[[], object]) -> DataReference:
        reference = self._reference(name)
        try:
            act()
        except StoreError as error:
            error.about(op, reference)
            raise
        return reference

    def _reference(self, name: str) -> DataReference:
        return DataReference.build(self._main.location.scheme, name, "", self._account)
