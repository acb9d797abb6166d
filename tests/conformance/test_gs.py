"""The kind for Google Cloud Storage keeps what every store promises, through the whole stack.

On the service of `tests.locations.gcs_service`, which is ours; its docstring says what that can prove.
"""

import json
from collections.abc import Iterator

import pytest

from datastore.testing import AfterFork, ConformanceTests, Harness
from tests.conformance.stow import StowHarness, config_of
from tests.locations.gcs_service import FakeService, running


class _GcsHarness(StowHarness):
    after_fork = AfterFork.REFUSES
    # Google takes no line feed, and the client no control character.
    refused_characters = "\n\t"

    def __init__(self, service: FakeService) -> None:
        options = {"json": json.dumps(service.account), "endpoint": service.endpoint}
        super().__init__(config_of("gs", options), unreachable={"endpoint": "http://127.0.0.1:1"})
        self.secrets = (service.account["private_key"][40:100],)


class TestGcs(ConformanceTests):
    """Kind ``gs``."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[Harness]:
        with running() as service, _GcsHarness(service) as harness:
            yield harness
