"""The same random programs over the whole stack: staged and journalled on disk, in packs once committed."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.namespace.stacks import StackSession
from tests.namespace.test_against_disk import AgainstDisk


class StackAgainstDisk(AgainstDisk):
    """The file system over its real content and journal, against the local disk."""

    def make_session(self) -> StackSession:
        return StackSession()


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as several users on the local disk needs root")
class TestStackAgainstDisk(StackAgainstDisk.TestCase):  # type: ignore[misc]
    """Random programs answer over the whole stack as on the local disk."""

    settings = settings(
        max_examples=20,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
