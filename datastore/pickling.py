"""Pickling frozen values by their fields."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import attrs

__all__ = ["PickledByFields"]


class PickledByFields:
    """Lets a frozen attrs class with read-only mappings be pickled.

    They travel as dictionaries, and what arrives has passed the class's own converters and validation again.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        kind: type[Any] = type(self)
        values = {attribute.name: getattr(self, attribute.name) for attribute in attrs.fields(kind)}
        return _rebuild, (kind, {name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, MappingProxyType) else value


def _rebuild(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**values)
