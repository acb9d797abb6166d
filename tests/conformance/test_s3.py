"""Ceph's S3 keeps what every store promises, through the whole stack."""

from collections.abc import Iterator
from io import BytesIO
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from minio import Minio

from datastore import DataReference
from datastore.testing import AfterFork, ConformanceTests, Harness
from tests.conformance.stow import StowHarness, config_of
from tests.servers import Server


class _S3Harness(StowHarness):
    after_fork = AfterFork.WORKS
    known_failures: ClassVar = {
        "test_metadata_names_with_underscores": "Ceph takes the underscores of metadata names for dashes",
    }

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
        self._other = Minio(
            urlsplit(server.endpoint).netloc, server.access_key, server.secret_key, secure=False, region="us-east-1"
        )

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        if ".." in suffix:
            return False  # minio refuses to make such names
        self._other.put_object(reference.container, reference.key + suffix, BytesIO(), 0)
        return True

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:
        self._other.remove_object(reference.container, reference.key + suffix)


class TestS3(ConformanceTests):
    """Kind ``s3``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, radosgw: Server) -> Iterator[Harness]:
        with _S3Harness(radosgw) as harness:
            yield harness
