"""The generic libcloud kind against the conformance kit: an S3 and an Azure provider of libcloud's."""

import uuid
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from datastore.reference import DataReference
from datastore.testing import AfterFork, ConformanceTests, DriverStore, LocationHarness, Scale
from stowstore.locations.base import Dial, HttpSettings, Location
from stowstore.locations.libcloud import KIND
from tests.servers import Server

_WRONG_KEY = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmcta2V5"


class _LibcloudHarness(LocationHarness):
    scale = Scale.SMALL
    after_fork = AfterFork.WORKS

    def __init__(self, server: Server, **options: str) -> None:
        parts = urlsplit(server.endpoint)
        self._options = {"host": parts.hostname or "", "port": str(parts.port), "secure": "false", **options}
        super().__init__(lambda: self._open(secret=server.secret_key), f"kit-{uuid.uuid4().hex[:12]}")
        self._server = server
        self.secrets = (server.secret_key, _WRONG_KEY)

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        # libcloud's signers do not sign what becomes of dot segments on the wire.
        return ".." not in suffix and super().put_foreign(reference, suffix)

    def denied_store(self) -> DriverStore:
        return DriverStore(self._open(secret=_WRONG_KEY), self._name)

    def unreachable_store(self) -> DriverStore:
        return DriverStore(self._open(secret=self._server.secret_key, port="1"), self._name)

    def _open(self, **options: str) -> Location:
        checked = KIND.check({**self._options, **options})
        return KIND.dial(Dial(options=checked, http=HttpSettings(timeout=30.0)))


class TestLibcloudS3Kit(ConformanceTests):
    """What every store has to do, through libcloud's S3 driver."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, radosgw: Server) -> Iterator[_LibcloudHarness]:
        with _LibcloudHarness(radosgw, provider="s3", key=radosgw.access_key, region="us-east-1") as harness:
            yield harness


class _AzureHarness(_LibcloudHarness):
    left_out: ClassVar = {"test_odd_keys[backslash]": "Azure turns a backslash into a slash, so the kind refuses it"}


class TestLibcloudAzureKit(ConformanceTests):
    """What every store has to do, through libcloud's Azure driver."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, azurite: Server) -> Iterator[_AzureHarness]:
        with _AzureHarness(azurite, provider="azure_blobs", key="devstoreaccount1") as harness:
            yield harness
