"""Identity: what makes two records the same experiment, byte for byte as machinable computes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

__all__ = ["canonical_config", "canonical_json", "identity_key", "predicate_key"]

_IDENTITY_DIGITS: Final = 24
_PREDICATE_DIGITS: Final = 32


def canonical_json(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces, ASCII, floats as Python writes them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def canonical_config(
    resolved: Mapping[str, Any], default: Mapping[str, Any] | None = None, exclude: Collection[str] = ()
) -> dict[str, Any]:
    """What of a configuration identifies: keys that differ from their default, without the fields in ``exclude``.

    ``exclude`` holds dotted paths.  A nested mapping of which nothing is left is dropped; keys without a default stay.
    """
    default = default or {}
    kept: dict[str, Any] = {}
    for key, value in resolved.items():
        if key in exclude:
            continue
        inner = {path[len(key) + 1 :] for path in exclude if path.startswith(f"{key}.")}
        given = default.get(key)
        if isinstance(value, Mapping) and (isinstance(given, Mapping) or (inner and key not in default)):
            below = canonical_config(value, given, inner)
            if below:
                kept[key] = below
        elif key not in default or value != given:
            kept[key] = value
    return kept


def identity_key(
    module: str | None,
    config: Mapping[str, Any],
    default: Mapping[str, Any] | None = None,
    exclude: Collection[str] = (),
) -> str:
    """The name of a module and its configuration: 24 hex digits of SHA-256."""
    text = canonical_json({"module": module, "config": canonical_config(config, default, exclude)})
    return hashlib.sha256(text.encode()).hexdigest()[:_IDENTITY_DIGITS]


def predicate_key(predicate: Mapping[str, Any]) -> str:
    """The name of a predicate: 32 hex digits of SHA-256."""
    return hashlib.sha256(canonical_json(dict(predicate)).encode()).hexdigest()[:_PREDICATE_DIGITS]
