"""Swift against the conformance kit."""

import uuid
from collections.abc import Iterator
from typing import ClassVar

import pytest

from datastore.model import SignedURLScope
from datastore.reference import DataReference
from datastore.testing import AfterFork, ConformanceTests, DriverStore, LocationHarness, Scale
from stowstore.locations.base import Dial, HttpSettings, Location
from stowstore.locations.swift import KIND
from tests.servers import Server


class _SwiftHarness(LocationHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.WORKS
    # Swift lets whoever may read or write an object look at its headers.
    also_served: ClassVar = {
        SignedURLScope.READ: frozenset({"HEAD"}),
        SignedURLScope.WRITE: frozenset({"HEAD"}),
    }

    def __init__(self, server: Server) -> None:
        super().__init__(lambda: _dial(server, server.secret_key), f"kit-{uuid.uuid4().hex[:12]}")
        self._server = server
        # The server's password is a word that paths in a traceback have.
        self.secrets = (server.extra["temp_url_key"], "not-the-key")

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        # urllib3 resolves dot segments before they are sent.
        return ".." not in suffix and super().put_foreign(reference, suffix)

    def denied_store(self) -> DriverStore:
        return DriverStore(_dial(self._server, "not-the-key"), self._name)

    def unreachable_store(self) -> DriverStore:
        return DriverStore(_dial(self._server, self._server.secret_key, "http://127.0.0.1:1/auth/v1.0"), self._name)


def _dial(server: Server, key: str, auth_url: str | None = None) -> Location:
    options = {
        "auth_url": auth_url or server.extra["auth_url"],
        "username": server.access_key,
        "key": key,
        "temp_url_key": server.extra["temp_url_key"],
    }
    return KIND.dial(Dial(options=KIND.check(options), http=HttpSettings(timeout=30.0)))


class TestSwiftKit(ConformanceTests):
    """What every store has to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, swift: Server) -> Iterator[_SwiftHarness]:
        with _SwiftHarness(swift) as harness:
            yield harness
