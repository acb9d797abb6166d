"""Google Cloud Storage against the conformance kit, on the service of `gcs_service`.

That service is ours, so this proves that the kind keeps the contract if Google keeps its documentation; what a real
program by others can show is in `test_gcs_emulator`, and signatures are compared with Google's library in
`test_gcs_signing`.
"""

import json
from collections.abc import Iterator
from typing import ClassVar

import pytest

from datastore.testing import AfterFork, ConformanceTests, DriverStore, LocationHarness
from stowstore.locations.base import Dial, HttpSettings, Location
from stowstore.locations.gcs import KIND
from tests.locations.gcs_service import FakeService, running


class _GcsHarness(LocationHarness):
    after_fork = AfterFork.REFUSES
    left_out: ClassVar = {
        "test_odd_keys[newline]": "Google takes no line feed, and obstore no control character",
        "test_odd_keys[tab]": "obstore takes no control character",
    }

    def __init__(self, service: FakeService) -> None:
        super().__init__(lambda: dial(service.endpoint, service.account))
        self._service = service
        self.secrets = (service.account["private_key"][40:100],)

    def denied_store(self) -> DriverStore:
        with running() as other:
            stranger = {**other.account, "token_uri": self._service.account["token_uri"]}
        return DriverStore(dial(self._service.endpoint, stranger), self._name)

    def unreachable_store(self) -> DriverStore:
        return DriverStore(dial("http://127.0.0.1:1", self._service.account), self._name)


def dial(endpoint: str, account: dict[str, str]) -> Location:
    options = KIND.check({"json": json.dumps(account), "endpoint": endpoint})
    return KIND.dial(Dial(options=options, http=HttpSettings(timeout=30.0)))


class TestGcsKit(ConformanceTests):
    """What every store has to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[_GcsHarness]:
        with running() as service, _GcsHarness(service) as harness:
            yield harness
