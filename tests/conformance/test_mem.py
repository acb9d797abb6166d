"""Memory keeps what every store promises: as a bare driver, and as the store without configuration."""

from collections.abc import Iterator

import pytest

from datastore import DataReference, MemoryStore
from datastore.memory import MemoryLocation
from datastore.protocol import Store
from datastore.testing import AfterFork, ConformanceTests, Harness, LocationHarness


class _MemoryHarness(Harness):
    """Every memory store is a world of its own."""

    shared = False
    after_fork = AfterFork.WORKS

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        return MemoryStore(max_download_bytes=max_download_bytes)

    @property
    def root(self) -> DataReference:
        return DataReference("mem://kit")


class TestMemoryStore(ConformanceTests):
    """`MemoryStore`, which makes containers of whatever is written to."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[Harness]:
        with _MemoryHarness() as harness:
            yield harness


class TestMemoryDriver(ConformanceTests):
    """The driver of kind ``mem``, with one location under all stores."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[Harness]:
        location = MemoryLocation()
        with LocationHarness(lambda: location) as harness:
            yield harness
