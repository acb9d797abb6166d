"""What the tests of `metrics` share: registries, label keys and the vectors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from metrics import set_label_keys
from metrics.context import process_keys


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def label_keys(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A process that has set no label keys yet, and the function to set them."""
    monkeypatch.setattr(process_keys, "_keys", ())
    monkeypatch.setattr(process_keys, "_final", False)
    return set_label_keys


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "vectors" / "references.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
