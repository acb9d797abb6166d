"""Arguments and results of tasks as plain data that JSON can hold, and back by their types."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from cattrs import ClassValidationError, IterableValidationError, StructureHandlerNotFoundError, transform_error
from cattrs.cols import is_namedtuple
from cattrs.preconf.json import JsonConverter, make_converter

from datastore.errors import ConfigError
from stowstore.interop.tasks.publishing import published
from stowstore.interop.tasks.walking import exchanged, is_model
from stowstore.volumes.rw import RWVolume
from stowstore.volumes.volume import KIND, Access, Volume

__all__ = ["Role", "from_wire", "to_data", "to_wire", "volume_field"]


class Role(StrEnum):
    """What a value is for the task."""

    #: An `RWVolume` has to be one.
    ARGUMENT = "argument"
    #: Where the type says `RWVolume` the version comes that it was published as.
    RESULT = "result"


def to_wire(value: Any, message: str | None = None) -> Any:
    """A result as plain data, every `RWVolume` in it published; see `published` and `to_data`."""
    # What cannot travel is refused before anything is published.
    to_data(value)
    return to_data(published(value, message))


def to_data(value: Any) -> Any:
    """A value as plain data: nothing but dicts, lists, texts, numbers, booleans and None.  Publishes nothing.

    Volumes become `Volume.to_dict`; dataclasses, classes of attrs and models of pydantic dicts of their fields; dates,
    uuids, paths, enums, bytes and decimals what their types are read from.  `from_wire` is the way back.

    Raises:
        ConfigError: something in it is no data.
    """
    exchanged(value, lambda volume: volume)
    try:
        data = _converter(Role.ARGUMENT).unstructure(value)
        return json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"a {type(value).__name__} does not travel between tasks: {error}",
            hint="pass volumes, plain values, dataclasses, classes of attrs or models of pydantic",
        ) from error


def from_wire(data: Any, expected: Any = Any, role: Role = Role.ARGUMENT) -> Any:
    """The value of a type that `to_data` or `to_wire` has made plain.

    ``expected`` Any gives plain data with the volumes in it.  Credentials never travel: the environment or
    `Volume.configure` brings them where a volume is used.

    Raises:
        ConfigError: the data are of no such type; the message names the fields.
    """
    try:
        return _converter(role).structure(data, expected)
    except (ClassValidationError, IterableValidationError) as error:
        told = "; ".join(transform_error(error, path="value", format_exception=_told))
        raise ConfigError(f"this is no {_name(expected)}: {told}") from error
    except (TypeError, ValueError, KeyError, AttributeError, StructureHandlerNotFoundError) as error:
        raise ConfigError(f"this is no {_name(expected)}: {error}") from error


def volume_field(kind: type[Volume], **more: Any) -> Any:
    """A field of a dataclass for a volume, which mashumaro and what builds on it can write and read, too.

    ``more`` is what `dataclasses.field` takes.
    """
    serialized = {"serialize": _as_dict, "deserialize": kind.validated}
    return dataclasses.field(metadata={**serialized, **more.pop("metadata", {})}, **more)


def _as_dict(volume: Volume) -> dict[str, Any]:
    return volume.to_dict()


# Read as it stands: a text, or a type with arguments, has mashumaro describe the field without end.
_as_dict.__annotations__["return"] = dict


@functools.cache
def _converter(role: Role) -> JsonConverter:
    converter = make_converter(detailed_validation=True)
    converter.register_unstructure_hook_func(_is_volume, Volume.to_dict)
    converter.register_structure_hook_func(_is_volume, _volume_reader(role))
    converter.register_structure_hook_func(_are_volumes, lambda data, _: Volume.from_dict(_a_mapping(data)))
    # By what they hold, not by what they declare.
    converter.register_unstructure_hook_func(is_namedtuple, lambda items: [converter.unstructure(one) for one in items])
    converter.register_structure_hook_func(is_namedtuple, lambda data, kind: _a_namedtuple(converter, data, kind))
    converter.register_unstructure_hook_func(is_model, lambda model: model.model_dump(mode="json", round_trip=True))
    converter.register_structure_hook_func(is_model, lambda data, kind: kind.model_validate(data))
    converter.register_structure_hook_func(lambda kind: kind is Any, lambda data, _: _with_volumes(data))
    return converter


def _a_namedtuple(converter: JsonConverter, data: Any, kind: Any) -> Any:
    """Its types may be texts, which cattrs does not look up."""
    types_of = get_type_hints(kind)
    if not isinstance(data, list) or len(data) != len(kind._fields):
        raise ConfigError(f"a {kind.__name__} is a list of {len(kind._fields)} items, not {data!r:.100}")
    pairs = zip(kind._fields, data, strict=True)
    return kind._make(converter.structure(one, types_of.get(name, Any)) for name, one in pairs)


def _is_volume(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Volume)


def _are_volumes(kind: object) -> bool:
    """Whether a type is a choice of nothing but volumes."""
    return get_origin(kind) in (Union, types.UnionType) and all(_is_volume(one) for one in get_args(kind))


def _volume_reader(role: Role) -> Callable[[Any, type[Volume]], Volume]:
    def read(data: Any, kind: type[Volume]) -> Volume:
        mapping = _a_mapping(data)
        if role is Role.RESULT and kind is RWVolume and mapping.get("access") == Access.RO:
            return Volume.from_dict(mapping)
        return kind.from_dict(mapping)

    return read


def _a_mapping(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"a volume is a JSON object, not {type(data).__name__}")
    return data


def _with_volumes(data: Any) -> Any:
    """Plain data with the volumes that are in it."""
    if isinstance(data, dict):
        if data.get("kind") == KIND:
            return Volume.from_dict(data)
        return {key: _with_volumes(one) for key, one in data.items()}
    return [_with_volumes(one) for one in data] if isinstance(data, list) else data


def _told(error: BaseException, kind: type | None) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    return str(error) or type(error).__name__


def _name(expected: Any) -> str:
    return getattr(expected, "__name__", None) or str(expected)
