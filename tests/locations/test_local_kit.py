"""Local disk against the conformance kit."""

from collections.abc import Iterator

import pytest

from datastore.testing import AfterFork, ConformanceTests, Harness, LocationHarness
from stowstore.locations.local import LocalLocation


class _LocalHarness(LocationHarness):
    picklable = True
    after_fork = AfterFork.WORKS

    def __init__(self, path: str) -> None:
        super().__init__(lambda: LocalLocation(path), "kit")


class TestLocalKit(ConformanceTests):
    """What every store has to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
        """A root of its own."""
        with _LocalHarness(str(tmp_path_factory.mktemp("root"))) as harness:
            yield harness
