"""Redis keeps what every store promises, through the whole stack."""

from collections.abc import Iterator

import pytest

from datastore import DataReference
from datastore.testing import AfterFork, ConformanceTests, Harness
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server, redis


class _RedisHarness(StowHarness):
    after_fork = AfterFork.WORKS

    def __init__(self, server: Server) -> None:
        super().__init__(
            config_of("redis", {"unix_socket": server.extra["socket"]}, "localhost"),
            denied={"username": "nobody", "password": "not-the-password"},
            unreachable={"unix_socket": "/dev/null/nothing-listens"},
        )
        self.secrets = ("not-the-password",)

    def missing_container(self, name: str) -> DataReference | None:
        # A server is one container, and it is always there.
        return None


class TestRedis(ConformanceTests):
    """Kind ``redis``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, redis_server: Server) -> Iterator[Harness]:
        # The kit counts what lies in the container, which on Redis is the whole server: one of its own.
        with redis.start() as server, _RedisHarness(server) as harness:
            yield harness
