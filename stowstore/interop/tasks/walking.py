"""Exchanging the volumes in a value, however deep: in lists, tuples, sets, mappings and objects with fields."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import attrs

from datastore.errors import ConfigError
from stowstore.volumes.volume import Volume

__all__ = ["exchanged", "is_model"]

Exchange: TypeAlias = Callable[[Volume], Volume]


def exchanged(value: Any, exchange: Exchange) -> Any:
    """The same value with other volumes; what holds none is returned as it is, and nothing is changed in place.

    Looks into lists, tuples, sets, mappings (their values), dataclasses, classes of attrs and models of pydantic.

    Raises:
        ConfigError: the value contains itself.
    """
    return _exchanged(value, exchange, ())


def is_model(kind: object) -> bool:
    """Whether a class is a model of pydantic, which is not imported for that."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _exchanged(value: Any, exchange: Exchange, above: tuple[int, ...]) -> Any:
    if isinstance(value, Volume):
        return exchange(value)
    if value is None or isinstance(value, (str, bytes, bool, int, float, type)):
        return value
    if id(value) in above:
        raise ConfigError(
            f"a {type(value).__name__} contains itself, which no result of a task can",
            hint="return what refers to other things by their names",
        )
    above = (*above, id(value))
    if isinstance(value, Mapping):
        new = {key: _exchanged(one, exchange, above) for key, one in value.items()}
        return value if _same(new.values(), value.values()) else _mapping(value, new)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_exchanged(one, exchange, above) for one in value]
        if _same(items, value):
            return value
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    names = _fields(value)
    old = [getattr(value, name) for name in names]
    changed = {
        name: one
        for name, before in zip(names, old, strict=True)
        if (one := _exchanged(before, exchange, above)) is not before
    }
    return _with(value, changed) if changed else value


def _fields(value: Any) -> list[str]:
    """The attributes of an object whose class declares them."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind) if hasattr(value, field.name)]
    if attrs.has(kind):
        return [field.name for field in attrs.fields(kind) if hasattr(value, field.name)]
    if is_model(kind):
        return [*kind.model_fields, *(value.model_extra or {})]
    return []


def _mapping(value: Mapping[Any, Any], new: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return new
    made: Any = copy.copy(value)
    try:
        made.update(new)
    except AttributeError as error:
        raise ConfigError(
            f"a {type(value).__name__} cannot be given other values", hint="return a dict of the volumes"
        ) from error
    return made


def _with(value: Any, changed: dict[str, Any]) -> Any:
    if is_model(type(value)):
        return value.model_copy(update=changed)
    # Neither frozen classes nor fields that no argument sets are in the way of a copy.
    made = copy.copy(value)
    for name, one in changed.items():
        object.__setattr__(made, name, one)
    return made


def _same(new: Iterable[Any], old: Iterable[Any]) -> bool:
    return all(one is before for one, before in zip(new, old, strict=True))
