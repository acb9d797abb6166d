"""A store over one bare location, for testing drivers: no retries, no metrics, no policy."""

from __future__ import annotations

from datastore.driver import Container, Location
from datastore.errors import NoSuchContainer
from datastore.model import Capabilities, Feature
from datastore.portable import PortableStore
from datastore.protocol import Reference
from datastore.reference import DataReference
from datastore.source import Source

__all__ = ["DriverStore"]


class DriverStore(PortableStore):
    """Every container of one location; a write to a missing one makes it where the location can.

    It can be pickled when its location can.
    """

    def __init__(self, location: Location, container: str, *, max_download_bytes: int = 0) -> None:
        super().__init__(max_download_bytes=max_download_bytes)
        self.location = location
        self._base = DataReference.build(location.scheme, container)

    @property
    def base_container_fqn(self) -> DataReference:
        return self._base

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        return self.location.capabilities

    def create_container(self, name: str, /) -> DataReference:
        """Makes a container; that it is there already is no error."""
        self.location.create_container(name)
        return DataReference.build(self.location.scheme, name)

    def load_container(self, name: str, /, create_if_not_found: bool = False) -> DataReference:
        """Finds a container, and makes it first if asked to.

        Raises:
            NoSuchContainer: it is not there.
        """
        if not self.location.has_container(name):
            if not create_if_not_found:
                raise NoSuchContainer(f"there is no container {name}", op="load_container")
            self.location.create_container(name)
        return DataReference.build(self.location.scheme, name)

    def delete_container(self, name: str, /) -> None:
        """Removes an empty container."""
        self.location.delete_container(name)

    def close(self) -> None:
        self.location.close()

    def _container(self, reference: DataReference) -> Container:
        return self.location.container(reference.container)

    def _write_container(self, reference: DataReference, source: Source) -> Container:
        # What cannot be read twice must not be read before its container is there.
        if not source.rewindable and not self.location.has_container(reference.container):
            return self._container_missing(reference) or self.location.container(reference.container)
        return self.location.container(reference.container)

    def _container_missing(self, reference: DataReference) -> Container | None:
        if Feature.CONTAINERS not in self.location.capabilities:
            return None
        self.location.create_container(reference.container)
        return self.location.container(reference.container)
