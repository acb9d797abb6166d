"""The documents say what the code does."""

from pathlib import Path

import pytest

from docs.generate import generated
from stowstore.locations.registry import known_kinds, load_kind

_DOCUMENTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


@pytest.mark.parametrize("path", _DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_up_to_date(path: Path) -> None:
    """What is made from the code was made since the code changed (``python -m docs.generate`` does)."""
    text = path.read_text(encoding="utf-8")
    assert generated(text) == text


def test_every_kind_is_documented() -> None:
    """The document of kinds names every kind, scheme and option there is."""
    text = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text(encoding="utf-8")
    for kind in {load_kind(name).name: load_kind(name) for name in known_kinds()}.values():
        for word in (kind.name, *kind.schemes, *kind.options):
            assert f"`{word}`" in text
