"""Redis keeps what every store promises, through the whole stack."""

from collections.abc import Iterator

import pytest

from datastore import DataReference
from datastore.testing import AfterFork, ConformanceTests, Harness
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server


class _RedisHarness(StowHarness):
    after_fork = AfterFork.WORKS

    def __init__(self, server: Server) -> None:
        super().__init__(config_of("redis", {"unix_socket": server.extra["socket"]}, "localhost"))

    def missing_container(self, name: str) -> DataReference | None:
        # A server is one container, and it is always there.
        return None


class TestRedis(ConformanceTests):
    """Kind ``redis``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, redis_server: Server) -> Iterator[Harness]:
        with _RedisHarness(redis_server) as harness:
            yield harness
