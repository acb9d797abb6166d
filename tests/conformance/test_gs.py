"""The kind for Google Cloud Storage keeps what every store promises, through the whole stack.

On the service of `tests.locations.gcs_service`, which is ours: this proves that the kind keeps the contract if Google
keeps its documentation.  What a program by others can show is in `tests.locations.test_gcs_emulator`, and signatures
are compared with Google's library in `tests.locations.test_gcs_signing`.
"""

import json
from collections.abc import Iterator

import pytest

from datastore import DataReference
from datastore.testing import AfterFork, ConformanceTests, Harness
from tests.conformance.stow import StowHarness, config_of
from tests.locations.gcs_service import FakeService, running


class _GcsHarness(StowHarness):
    after_fork = AfterFork.REFUSES
    # Google takes no line feed, and the client no control character.
    refused_characters = "\n\t"

    def __init__(self, service: FakeService) -> None:
        with running() as other:
            stranger = {**other.account, "token_uri": service.account["token_uri"]}
        super().__init__(
            config_of("gs", {"json": json.dumps(service.account), "endpoint": service.endpoint}),
            denied={"json": json.dumps(stranger)},
            unreachable={"endpoint": "http://127.0.0.1:1"},
        )
        self._service = service
        self.secrets = tuple(account["private_key"][40:100] for account in (service.account, stranger))

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        self._service.put(reference.container, reference.key + suffix, b"", {})
        return True

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:
        del self._service.buckets[reference.container][reference.key + suffix]


class TestGcs(ConformanceTests):
    """Kind ``gs``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[Harness]:
        with running() as service, _GcsHarness(service) as harness:
            yield harness
