"""Local disk passes the conformance kit, in every mode of syncing."""

from collections.abc import Iterator

import pytest

from datastore.testing import AfterFork, ConformanceTests, Harness, LocationHarness
from stowstore.locations.local import FsyncMode, LocalLocation


class _LocalHarness(LocationHarness):
    picklable = True
    after_fork = AfterFork.WORKS

    def __init__(self, path: str, fsync: FsyncMode) -> None:
        super().__init__(lambda: LocalLocation(path, fsync=fsync), "kit")


class TestLocalKit(ConformanceTests):
    """Plain files."""

    @pytest.fixture(scope="class", params=[FsyncMode.NEVER, FsyncMode.FULL])
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Harness]:
        """A root of its own for each mode."""
        with _LocalHarness(str(tmp_path_factory.mktemp("root")), request.param) as harness:
            yield harness
