"""Redis against the conformance kit."""

from collections.abc import Iterator

import pytest

from datastore.reference import DataReference
from datastore.testing import AfterFork, ConformanceTests, DriverStore, LocationHarness
from stowstore.locations.base import Dial, HttpSettings, Location
from stowstore.locations.redis import KIND
from tests.servers import Server, redis


class _RedisHarness(LocationHarness):
    after_fork = AfterFork.WORKS

    def __init__(self, server: Server) -> None:
        super().__init__(lambda: _dial(unix_socket=server.extra["socket"]), "localhost")

    def missing_container(self, name: str) -> DataReference | None:
        # A server has one container, and it is always there.
        return None

    def unreachable_store(self) -> DriverStore:
        return DriverStore(_dial(addr="127.0.0.1:1"), "127.0.0.1:1")


def _dial(**options: str) -> Location:
    return KIND.dial(Dial(options=KIND.check(options), http=HttpSettings(timeout=30.0)))


class TestRedisKit(ConformanceTests):
    """What every store has to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, redis_server: Server) -> Iterator[_RedisHarness]:
        # The kit counts what lies in the container, which on Redis is the whole server: one of its own.
        with redis.start() as server, _RedisHarness(server) as harness:
            yield harness
