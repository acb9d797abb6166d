"""The conformance kit: what every store has to do, as tests that any driver and any wrapper can run.

    import pytest
    from datastore.testing import ConformanceTests, LocationHarness

    class TestMyKind(ConformanceTests):
        @pytest.fixture(scope="class")
        @classmethod
        def harness(cls, tmp_path_factory):
            with LocationHarness(lambda: MyLocation(...)) as harness:
                yield harness

`strategies` and `reference_model` are for tests of one's own.  Needs pytest and hypothesis (``stowstore[testing]``).
"""

from pkgutil import iter_modules

import pytest

# Before they are imported: the kit's assertions explain themselves as those of a test module do.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from datastore.testing import strategies  # noqa: E402
from datastore.testing.conformance import ConformanceTests  # noqa: E402
from datastore.testing.driver_store import DriverStore  # noqa: E402
from datastore.testing.harness import AfterFork, ContainerAdmin, Harness, HttpAnswer, LocationHarness, Scale  # noqa: E402
from datastore.testing.reference_model import ReferenceModel  # noqa: E402
from datastore.testing.stateful import StoreMachine, check_against_model  # noqa: E402

__all__ = [
    "AfterFork",
    "ConformanceTests",
    "ContainerAdmin",
    "DriverStore",
    "Harness",
    "HttpAnswer",
    "LocationHarness",
    "ReferenceModel",
    "Scale",
    "StoreMachine",
    "check_against_model",
    "strategies",
]
