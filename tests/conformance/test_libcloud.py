"""Providers of apache-libcloud keep what every store promises, through the whole stack: one for S3, one for Azure."""

from collections.abc import Iterator

import pytest

from datastore.testing import AfterFork, ConformanceTests, Harness, Scale
from tests.conformance.providers import azure_provider, s3_provider
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server

_WRONG_SECRET = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmcta2V5"


class _LibcloudHarness(StowHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.WORKS

    def __init__(self, kind: str, options: dict[str, str]) -> None:
        super().__init__(config_of(kind, options), denied={"secret": _WRONG_SECRET}, unreachable={"port": "1"})
        self.secrets = (options["secret"], _WRONG_SECRET)


class TestLibcloudS3(ConformanceTests):
    """Kind ``libcloud+s3``, over Ceph."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, radosgw: Server) -> Iterator[Harness]:
        with _LibcloudHarness("libcloud+s3", s3_provider(radosgw)) as harness:
            yield harness


class _AzureHarness(_LibcloudHarness):
    # Azure turns a backslash into a slash.
    refused_characters = "\\"


class TestLibcloudAzure(ConformanceTests):
    """Kind ``libcloud+azure_blobs``, over Azurite."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, azurite: Server) -> Iterator[Harness]:
        with _AzureHarness("libcloud+azure_blobs", azure_provider(azurite)) as harness:
            yield harness
