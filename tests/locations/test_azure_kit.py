"""Azure against the conformance kit, on Azurite."""

import uuid
from collections.abc import Iterator
from typing import ClassVar

import pytest

from datastore.model import SignedURLScope
from datastore.testing import AfterFork, ConformanceTests, DriverStore, LocationHarness, Scale
from stowstore.locations.azure import KIND
from stowstore.locations.base import Dial, HttpSettings, Location
from tests.servers import Server

_WRONG_KEY = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmcta2V5"


class _AzureHarness(LocationHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.REFUSES
    # A right to read is one to read the headers; a read SAS serves both.
    also_served: ClassVar = {
        SignedURLScope.READ: frozenset({"HEAD"}),
        SignedURLScope.HEAD: frozenset({"GET"}),
    }

    left_out: ClassVar = {
        "test_odd_keys[backslash]": "Azure turns a backslash into a slash, so the kind refuses it",
        "test_odd_keys[newline]": "Azure takes no control characters",
        "test_odd_keys[tab]": "Azure takes no control characters",
    }

    def __init__(self, server: Server) -> None:
        super().__init__(lambda: _dial(server.endpoint, server.secret_key), f"kit-{uuid.uuid4().hex[:12]}")
        self._server = server
        self.secrets = (server.secret_key, _WRONG_KEY)

    def denied_store(self) -> DriverStore:
        return DriverStore(_dial(self._server.endpoint, _WRONG_KEY), self._name)

    def unreachable_store(self) -> DriverStore:
        return DriverStore(_dial("http://127.0.0.1:1/devstoreaccount1", self._server.secret_key), self._name)


def _dial(endpoint: str, key: str) -> Location:
    options = KIND.check({"account": "devstoreaccount1", "key": key, "endpoint": endpoint})
    return KIND.dial(Dial(options=options, http=HttpSettings(timeout=30.0)))


class TestAzureKit(ConformanceTests):
    """What every store has to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, azurite: Server) -> Iterator[_AzureHarness]:
        with _AzureHarness(azurite) as harness:
            yield harness
