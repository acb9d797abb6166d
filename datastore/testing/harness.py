"""What a driver author hands to the kit: where to test, with how much, and what else can be tried there."""

from __future__ import annotations

import http.client
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

from attrs import field, frozen

from datastore.driver import Container, Location
from datastore.model import Capabilities, Feature, SignedURLScope, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.source import Source
from datastore.testing.driver_store import DriverStore

__all__ = [
    "AfterFork",
    "ContainerAdmin",
    "Harness",
    "HttpAnswer",
    "LocationHarness",
    "Scale",
]


class Scale(StrEnum):
    """How much work a backend is given; choose ``SMALL`` for servers of fewer than some hundred writes a second."""

    SMALL = "small"
    NORMAL = "normal"

    @property
    def objects(self) -> int:
        """Objects in the tests that want many; more than one default page where it is affordable."""
        return 40 if self is Scale.SMALL else 1010

    @property
    def large(self) -> int:
        """Bytes of the object that clients send in several parts."""
        return (6 << 20) + 1 if self is Scale.SMALL else (20 << 20) + 1

    @property
    def threads(self) -> int:
        """Threads of the tests that mix operations."""
        return 8 if self is Scale.SMALL else 16

    @property
    def rounds(self) -> int:
        """How often races are run."""
        return 2 if self is Scale.SMALL else 5


class AfterFork(StrEnum):
    """What a store used before ``fork`` does in the child."""

    WORKS = "works"
    REFUSES = "refuses"
    """Raises `datastore.errors.ForkUnsafe`."""
    EITHER = "either"


@frozen(kw_only=True)
class HttpAnswer:
    """What a server said to a signed request."""

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""

    @property
    def refused(self) -> bool:
        """Whether the server understood and declined: neither a success nor a failure of its own."""
        return 400 <= self.status < 500


@runtime_checkable
class ContainerAdmin(Protocol):
    """A store that makes, finds and removes containers."""

    def create_container(self, name: str, /) -> object: ...

    def load_container(self, name: str, /, create_if_not_found: bool = False) -> object: ...

    def delete_container(self, name: str, /) -> None: ...


class Harness(ABC):
    """Gives the kit stores over one backend; derive from it, or from `LocationHarness` for a bare driver.

    Only `open_store` and `root` have to be written.  Everything else has a default that leaves tests out, each with a
    reason in pytest's output.  All stores a harness opens show the same objects, unless `shared` says otherwise.
    """

    #: How much the backend can take.
    scale: Scale = Scale.NORMAL
    #: Whether two stores that `open_store` returns show the same objects.
    shared: bool = True
    #: Whether a store can be pickled and used in a process that is started anew; needs `shared`.
    picklable: bool = False
    after_fork: AfterFork = AfterFork.EITHER
    #: Whether a write to a container that does not exist makes it.
    creates_containers: bool = True
    #: Characters the backend has no names with: keys that hold one are refused with `InvalidReference`.
    refused_characters: str = ""
    #: What may not appear in any error.
    secrets: tuple[str, ...] = ()
    #: Methods that a signed URL of a scope serves besides its own.
    also_served: Mapping[SignedURLScope, frozenset[str]] = {}
    #: Tests (``test_name`` or ``test_name[id]``) the backend is known to fail, and why; passing one is a failure.
    known_failures: Mapping[str, str] = {}
    #: Tests the backend cannot be asked for at all, and why.
    left_out: Mapping[str, str] = {}

    _store: Store | None = None

    @abstractmethod
    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        """A new store over the backend, limited to reads of ``max_download_bytes`` (whole MiB); the kit closes it."""

    @property
    @abstractmethod
    def root(self) -> DataReference:
        """An existing container, or a place in one, below which the kit may write and remove."""

    @property
    def store(self) -> Store:
        """The store most tests use; opened once."""
        if self._store is None:
            self._store = self.open_store()
        return self._store

    @property
    def capabilities(self) -> Capabilities:
        return self.store.capabilities(self.root)

    @property
    def containers(self) -> ContainerAdmin | None:
        """What makes and removes containers; the store itself if it can."""
        store = self.store
        return store if isinstance(store, ContainerAdmin) and Feature.CONTAINERS in self.capabilities else None

    def missing_container(self, name: str) -> DataReference | None:
        """The reference of a container that does not exist, of a name nobody else uses; None if there cannot be one."""
        return DataReference.build(self.root.scheme, name, "", self.root.account)

    def bound_store(self) -> Store | None:
        """A new store that may use no container but that of `root`."""
        return None

    def denied_store(self) -> Store | None:
        """A new store whose credentials the backend does not accept."""
        return None

    def unreachable_store(self) -> Store | None:
        """A new store whose backend does not answer (nothing listens there)."""
        return None

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        """Makes an empty object of the raw name ``reference.key + suffix`` behind the store's back; False if it cannot.

        The kit asks for names that no reference can express, as other tools leave them: ``folder/``.
        """
        return False

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:  # noqa: B027 - nothing was made
        """Removes what `put_foreign` made."""

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> HttpAnswer:
        """Sends exactly this request, following no redirect, and returns the answer."""
        parts = urlsplit(url)
        connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=30, context=self.ssl_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=30)
        )
        try:
            connection.request(method, f"{parts.path}?{parts.query}", body=body, headers=dict(headers))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return HttpAnswer(status=answer.status, headers=found, body=answer.read())
        finally:
            connection.close()

    def ssl_context(self) -> ssl.SSLContext | None:
        """Whom to trust when signed URLs are https; None for the system's authorities."""
        return None

    def close(self) -> None:
        """Closes the store most tests used."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocationHarness(Harness):
    """Tests a bare driver, with nothing between it and the kit but the portable layer.

    ``dial`` makes a location; all it makes share one backend, or ``shared`` is False.  The container ``name`` is made
    if it is missing.
    """

    def __init__(self, dial: Callable[[], Location], name: str = "stowstore-kit") -> None:
        self._dial = dial
        self._name = name

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        location = self._dial()
        if not location.has_container(self._name):
            location.create_container(self._name)
        return DriverStore(location, self._name, max_download_bytes=max_download_bytes)

    @property
    def root(self) -> DataReference:
        return self.store.base_container_fqn

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        if Feature.EMPTY_SEGMENTS not in self.capabilities:
            return False
        self._container(reference).put(reference.key + suffix, Source(b"", 0), _PLAIN)
        return True

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:
        self._container(reference).delete(reference.key + suffix)

    def _container(self, reference: DataReference) -> Container:
        store = self.store
        assert isinstance(store, DriverStore)
        return store.location.container(reference.container)


_PLAIN = WriteOptions()
