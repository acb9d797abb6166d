"""SQLite keeps what every store promises."""

from collections.abc import Iterator

import pytest

from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing import AfterFork, ConformanceTests, Harness
from stowstore import open_store


class _SqliteHarness(Harness):
    picklable = True
    after_fork = AfterFork.WORKS

    def __init__(self, path: str) -> None:
        self._url = f"sqlite://kit?path={path}&multicontainer=true"

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        return open_store(self._url, max_download_mbs=max_download_bytes >> 20)

    @property
    def root(self) -> DataReference:
        return DataReference("sqlite://kit")


class TestSqlite(ConformanceTests):
    """Kind ``sqlite``, found by its entry point."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
        with _SqliteHarness(str(tmp_path_factory.mktemp("sqlite") / "objects.db")) as harness:
            yield harness
