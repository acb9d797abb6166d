"""The measuring wrapper changes nothing: it passes the whole kit, and its numbers add up afterwards."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from datastore import DataReference, MemoryStore
from datastore.protocol import Store
from datastore.testing import AfterFork, ConformanceTests, Harness
from datastore.wrappers.measured import MeasuredStore, StoreMetrics
from metrics import Scope


class _MeasuredHarness(Harness):
    """Measured memory, every store of it in one registry."""

    shared = False
    after_fork = AfterFork.WORKS

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        inner = MemoryStore(max_download_bytes=max_download_bytes)
        return MeasuredStore(inner, StoreMetrics(Scope("stow", self.registry), "memory", "main"))

    @property
    def root(self) -> DataReference:
        return DataReference("mem://kit")

    def total(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class TestMeasuredStore(ConformanceTests):
    """A measured `MemoryStore`."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[Harness]:
        with _MeasuredHarness() as harness:
            yield harness
            ended = harness.total("stow_operations_total")
            assert ended > 0
            assert ended == harness.total("stow_operation_duration_seconds_count")
            not_ok = ended - harness.total("stow_operations_total", outcome="ok")
            assert not_ok == harness.total("stow_operation_errors_total")
            assert harness.total("stow_operations_in_progress") == 0
