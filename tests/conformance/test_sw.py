"""Swift keeps what every store promises, through the whole stack."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from datastore.model import SignedURLScope
from datastore.testing import AfterFork, ConformanceTests, Harness, Scale
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server


class _SwiftHarness(StowHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.WORKS
    # Swift lets whoever may read or write an object look at its headers.
    also_served: ClassVar = {SignedURLScope.READ: frozenset({"HEAD"}), SignedURLScope.WRITE: frozenset({"HEAD"})}

    def __init__(self, server: Server) -> None:
        options = {
            "auth_url": server.extra["auth_url"],
            "username": server.access_key,
            "key": server.secret_key,
            "set_temp_url_key": "true",
        }
        super().__init__(
            config_of("sw", options),
            denied={"key": "not-the-key"},
            unreachable={"auth_url": "http://127.0.0.1:1/auth/v1.0"},
        )
        # The server's password is a word that paths in a traceback have.
        self.secrets = (server.extra["temp_url_key"], "not-the-key")


class TestSwift(ConformanceTests):
    """Kind ``sw``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, swift: Server) -> Iterator[Harness]:
        with _SwiftHarness(swift) as harness:
            yield harness
