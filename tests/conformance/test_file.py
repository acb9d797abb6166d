"""Local disk keeps what every store promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.testing import AfterFork, ConformanceTests, Harness
from stowstore import StoreConfig
from tests.conformance.stow import StowHarness


class _FileHarness(StowHarness):
    after_fork = AfterFork.WORKS


class TestFile(ConformanceTests):
    """Kind ``file``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
        root: Path = tmp_path_factory.mktemp("file")
        config = StoreConfig(kind="file", options={"path": str(root)}, container="kit", enable_multicontainer=True)
        with _FileHarness(config) as harness:
            yield harness
