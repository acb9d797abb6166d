"""The conformance kit can fail: each of these mistakes is found by the tests that are there for it."""

from collections.abc import Iterator

import hypothesis
import pytest

from datastore import MemoryStore
from datastore.testing import processes
from tests.datastore.broken_stores import BROKEN, Sound

pytest_plugins = ["pytester"]

_KIT = """
import pytest
from datastore.testing import ConformanceTests
from tests.datastore import broken_stores

class TestStore(ConformanceTests):
    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls):
        with broken_stores.BrokenHarness(broken_stores.{name}) as harness:
            yield harness
"""


def _run(pytester: pytest.Pytester, kind: type[MemoryStore], names: set[str]) -> tuple[set[str], set[str]]:
    """The tests that passed with all their parameters, and those that did not."""
    path = pytester.makepyfile(test_store=_KIT.format(name=kind.__name__))
    chosen = [f"{path}::TestStore::{name}" for name in sorted(names)]
    # Examples are not kept: a broken store would leave them to the next.
    found = pytester.inline_run(*chosen, "-p", "no:randomly", "-p", "no:cacheprovider", "-q")
    passed, _, failed = found.listoutcomes()
    seen = {_name(report.nodeid) for report in (*passed, *failed)}
    failing = {_name(report.nodeid) for report in failed}
    assert names == seen, "a test was skipped or is not there"
    return seen - failing, failing


def _name(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].partition("[")[0]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hanging child is given up after a moment, and a failing history is not made shorter, which takes minutes."""
    monkeypatch.setattr(processes, "_PATIENCE", 2.0)
    before = hypothesis.settings()
    hypothesis.settings.register_profile(
        "catching", phases=[hypothesis.Phase.generate], database=None, derandomize=True, deadline=None
    )
    hypothesis.settings.load_profile("catching")
    yield
    hypothesis.settings.register_profile("before", before)
    hypothesis.settings.load_profile("before")


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_the_kit_catches(pytester: pytest.Pytester, kind: type[MemoryStore]) -> None:
    """Each test that is named for a mistake fails on the store that makes it."""
    expected = set(BROKEN[kind])
    assert (set(), expected) == _run(pytester, kind, expected)


def test_the_kit_passes_a_sound_store(pytester: pytest.Pytester) -> None:
    """The same tests pass where the mistake is not made; all but those for what memory can do."""
    names = {name for found in BROKEN.values() for name in found}
    names -= {"test_user_metadata_that_cannot_be_kept_are_refused"}
    assert (names, set()) == _run(pytester, Sound, names)


def test_parts_of_the_kit_do_not_hide_each_other() -> None:
    """No two parts have a test or a fixture of one name, of which only one would run."""
    from datastore.testing import ConformanceTests

    seen: dict[str, type] = {}
    for part in ConformanceTests.__mro__:
        for name in vars(part):
            if not name.startswith("__"):
                assert seen.setdefault(name, part) is part, f"{name} is in {seen[name].__name__} and {part.__name__}"
