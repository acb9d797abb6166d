"""Identity is machinable's, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from stowstore.records import canonical_json, identity_key, predicate_key
from stowstore.records.identity import canonical_config


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e16, "1e+16"),
        (1e15, "1000000000000000.0"),
        (1e-5, "1e-05"),
        (1e-4, "0.0001"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (1, "1"),
        (1.0, "1.0"),
        (2**53 + 1, "9007199254740993"),
        ("é", '"\\u00e9"'),
        ("\U0001f600", '"\\ud83d\\ude00"'),
        ({"b": [1, None], "a": True}, '{"a":true,"b":[1,null]}'),
    ],
)
def test_canonical_json(value: Any, text: str) -> None:
    """Equal values have one text, and numbers keep their type."""
    assert text == canonical_json(value)


@pytest.mark.parametrize(
    ("module", "config", "key"),
    [
        (None, {}, "2eb69eceae9fda52829dfe4e"),
        ("pkg.model", {}, "1c0672394dd9efce248281ac"),
        ("pkg.model", {"lr": 0.2}, "13d93c30cbf582c41b2ea796"),
        ("pkg.model", {"lr": 1}, "ba4687568355b3fc548afac3"),
        ("pkg.model", {"lr": 1.0}, "2e2a51c32cba864bfab5112a"),
        ("pkg.model", {"opt": {"beta": 0.5}, "tag": "café"}, "2c1e153243ec1822dbddd3d9"),
    ],
)
def test_identity_keys(module: str | None, config: dict[str, Any], key: str) -> None:
    """The keys of the format's own table."""
    assert key == identity_key(module, config)


@pytest.mark.parametrize(
    ("resolved", "default", "exclude", "kept"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, (), {"b": 2}),
        ({"a": 1.0}, {"a": 1}, (), {}),
        ({"o": {"x": 1, "y": 2}}, {"o": {"x": 1, "y": 3}}, (), {"o": {"y": 2}}),
        ({"o": {"x": 1}}, {"o": {"x": 1}}, (), {}),
        ({"uri": "here", "a": 1}, {}, ("uri",), {"a": 1}),
        ({"d": {"uri": "here", "n": 1}}, {}, ("d.uri",), {"d": {"n": 1}}),
        ({"d": {"uri": "here"}}, {}, ("d.uri",), {}),
        ({"o": {}}, {}, (), {"o": {}}),
    ],
)
def test_what_identifies(resolved: Any, default: Any, exclude: Any, kept: Any) -> None:
    """Defaults and fields that do not identify are left out, and so is a mapping nothing is left of."""
    assert kept == canonical_config(resolved, default, exclude)


def test_identity_is_that_of_machinable() -> None:
    """The released package computes the same keys."""
    config = pytest.importorskip("machinable.config", reason="machinable is not installed")
    utils = pytest.importorskip("machinable.utils", reason="machinable is not installed")
    resolved = {"lr": 0.5, "opt": {"beta": 0.9, "name": "é"}, "steps": [1, 2.0], "uri": "x"}
    default = {"lr": 0.1, "opt": {"beta": 0.9, "name": "a"}, "steps": []}

    assert config.canonical_identity_key("study", resolved, default, {"uri"}) == identity_key(
        "study", resolved, default, {"uri"}
    )
    assert utils.object_hash({"seed": 1})[:32] == predicate_key({"seed": 1})
