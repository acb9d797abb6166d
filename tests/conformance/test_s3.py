"""Ceph's S3 keeps what every store promises, through the whole stack."""

from collections.abc import Iterator

import pytest

from datastore.testing import AfterFork, ConformanceTests, Harness
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server


class _S3Harness(StowHarness):
    after_fork = AfterFork.WORKS

    def __init__(self, server: Server) -> None:
        options = {
            "endpoint": server.endpoint,
            "access_key_id": server.access_key,
            "secret_key": server.secret_key,
        }
        super().__init__(
            config_of("s3", options),
            denied={"secret_key": "not-the-secret"},
            unreachable={"endpoint": "http://127.0.0.1:1"},
        )
        self.secrets = (server.secret_key, "not-the-secret")


class TestS3(ConformanceTests):
    """Kind ``s3``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, radosgw: Server) -> Iterator[Harness]:
        with _S3Harness(radosgw) as harness:
            yield harness
