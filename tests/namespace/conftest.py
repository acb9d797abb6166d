"""What the tests of the namespace share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.namespace.sessions import Session


@pytest.fixture
def session() -> Iterator[Session]:
    """An empty file system in memory, without a journal."""
    made = Session()
    yield made
    made.files.close()


@pytest.fixture
def journalled() -> Iterator[Session]:
    """An empty file system in memory, with a journal that is written on request only."""
    made = Session(journal=True)
    yield made
    made.files.close()
