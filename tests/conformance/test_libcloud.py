"""A provider of apache-libcloud keeps what every store promises, through the whole stack."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from datastore import DataReference
from datastore.testing import AfterFork, ConformanceTests, Harness, Scale
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server


class _LibcloudHarness(StowHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.WORKS

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.endpoint)
        options = {
            "key": server.access_key,
            "secret": server.secret_key,
            "region": "us-east-1",
            "host": parts.hostname or "",
            "port": str(parts.port),
            "secure": "false",
        }
        super().__init__(
            config_of("libcloud+s3", options),
            denied={"secret": "not-the-secret"},
            unreachable={"port": "1"},
        )
        self.secrets = (server.secret_key, "not-the-secret")

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        return False


class TestLibcloud(ConformanceTests):
    """Kind ``libcloud+s3``, over Ceph."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, radosgw: Server) -> Iterator[Harness]:
        with _LibcloudHarness(radosgw) as harness:
            yield harness
