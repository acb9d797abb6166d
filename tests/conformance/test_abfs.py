"""Azure blobs keep what every store promises, through the whole stack."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from datastore import DataReference
from datastore.model import SignedURLScope, WriteOptions
from datastore.source import Source
from datastore.testing import AfterFork, ConformanceTests, Harness, Scale
from tests.conformance.providers import azure_provider
from tests.conformance.stow import StowHarness, config_of, dial
from tests.servers import Server

_WRONG_KEY = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmcta2V5"


class _AzureHarness(StowHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.REFUSES
    # A right to read is one to read the headers; a read SAS serves both.
    also_served: ClassVar = {SignedURLScope.READ: frozenset({"HEAD"}), SignedURLScope.HEAD: frozenset({"GET"})}
    # Azure turns a backslash into a slash and takes no control characters.
    refused_characters = "\\\n\t"

    def __init__(self, server: Server) -> None:
        options = {"account": server.extra["account"], "key": server.secret_key, "endpoint": server.endpoint}
        super().__init__(
            config_of("abfs", options),
            denied={"key": _WRONG_KEY},
            unreachable={"endpoint": f"http://127.0.0.1:1/{server.extra['account']}"},
        )
        self.secrets = (server.secret_key, _WRONG_KEY)
        self._other = dial("libcloud+azure_blobs", azure_provider(server))

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        # obstore tidies such names up; another client does not.
        container = self._other.container(reference.container)
        container.put(reference.key + suffix, Source(b"", 0), WriteOptions())
        return True

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:
        self._other.container(reference.container).delete(reference.key + suffix)

    def close(self) -> None:
        super().close()
        self._other.close()


class TestAzure(ConformanceTests):
    """Kind ``abfs``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, azurite: Server) -> Iterator[Harness]:
        with _AzureHarness(azurite) as harness:
            yield harness
