"""The whole kit in one class."""

from __future__ import annotations

import pytest

from datastore.testing.base import KitTests
from datastore.testing.concurrency import ConcurrencyTests
from datastore.testing.conditions import ConditionTests
from datastore.testing.containers import ContainerTests
from datastore.testing.copies import CopyTests
from datastore.testing.deletes import DeleteTests
from datastore.testing.faults import FaultTests
from datastore.testing.harness import Harness
from datastore.testing.heads import HeadTests
from datastore.testing.keeping import MetadataTests
from datastore.testing.keys import KeyTests
from datastore.testing.limits import LimitTests
from datastore.testing.listing import ListTests
from datastore.testing.processes import ProcessTests
from datastore.testing.reads import ReadTests
from datastore.testing.signing import SigningTests
from datastore.testing.stateful import StatefulTests
from datastore.testing.writes import WriteTests

__all__ = ["ConformanceTests"]


class ConformanceTests(
    HeadTests,
    ReadTests,
    WriteTests,
    MetadataTests,
    ConditionTests,
    DeleteTests,
    ListTests,
    KeyTests,
    CopyTests,
    ContainerTests,
    SigningTests,
    LimitTests,
    FaultTests,
    ConcurrencyTests,
    ProcessTests,
    StatefulTests,
    KitTests,
):
    """Everything a data store promises, as tests.

    Derive a class whose name starts with ``Test`` and give it a class-scoped fixture ``harness``; pytest does the rest.
    What the store does not declare is left out, and checked to be refused.
    """

    def test_the_harness_names_tests_that_exist(self, harness: Harness) -> None:
        """An exception for a test that was renamed would hide what it was made for."""
        names = {name.partition("[")[0] for name in (*harness.known_failures, *harness.left_out)}
        assert sorted(name for name in names if not hasattr(type(self), name)) == []

    def test_the_harness_gives_what_it_declares(self, harness: Harness) -> None:
        """A place to write to, and other stores over the same backend, opened and closed at will."""
        harness.root.require_prefix()
        with harness.open_store() as other:
            assert harness.capabilities == other.capabilities(harness.root)
        if harness.picklable and not harness.shared:
            pytest.fail("a store that shares nothing cannot be tested in another process")
