"""S3 against the conformance kit, on Ceph's gateway."""

import http.client
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import quote, urlsplit

import pytest

from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing import AfterFork, ConformanceTests, DriverStore, Harness, LocationHarness
from datastore.wrappers.retrying import RetryingStore
from stowstore.locations.base import Dial, HttpSettings, Location
from stowstore.locations.s3 import KIND
from stowstore.locations.s3.signing import signed_query
from tests.servers import Server

_WRONG_SECRET = "not-the-secret-of-anybody"


class _S3Harness(LocationHarness):
    after_fork = AfterFork.WORKS
    known_failures: ClassVar = {
        "test_metadata_names_with_underscores": "Ceph turns '_' in names of user metadata into '-'; Amazon keeps it",
    }

    def __init__(self, server: Server) -> None:
        super().__init__(lambda: _dial(server, server.secret_key), f"kit-{uuid.uuid4().hex[:12]}")
        self._server = server
        self.secrets = (server.secret_key, _WRONG_SECRET)

    def denied_store(self) -> DriverStore:
        return DriverStore(_dial(self._server, _WRONG_SECRET), self._name)

    def unreachable_store(self) -> DriverStore:
        return DriverStore(_dial(self._server, self._server.secret_key, "http://127.0.0.1:1"), self._name)

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        return self._request("PUT", reference, suffix) == 200

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:
        self._request("DELETE", reference, suffix)

    def _request(self, method: str, reference: DataReference, suffix: str) -> int:
        """Sends the path as it is: every client of ours refuses or tidies such names."""
        host = urlsplit(self._server.endpoint).netloc
        path = quote(f"/{reference.container}/{reference.key}{suffix}", safe="/-_.~")
        query = signed_query(
            method=method,
            host=host,
            path=path,
            headers={},
            region="us-east-1",
            access_key=self._server.access_key,
            secret_key=self._server.secret_key,
            token=None,
            expires_in=60,
            now=datetime.now(UTC),
        )
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            connection.request(method, f"{path}?{query}")
            return connection.getresponse().status
        finally:
            connection.close()


def _dial(server: Server, secret: str, endpoint: str | None = None) -> Location:
    options = {"endpoint": endpoint or server.endpoint, "access_key_id": server.access_key, "secret_key": secret}
    return KIND.dial(Dial(options=KIND.check(options), http=HttpSettings(timeout=30.0)))


class TestS3Kit(ConformanceTests):
    """What every store has to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, radosgw: Server) -> Iterator[_S3Harness]:
        with _S3Harness(radosgw) as harness:
            yield harness

    def test_exactly_one_replacement_wins(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Of threads that replace the object they all saw exactly one succeeds, once those Ceph confuses try again."""
        # Ceph answers some losers of a race with 500, which says nothing about the condition.
        super().test_exactly_one_replacement_wins(harness, RetryingStore(store), place)
