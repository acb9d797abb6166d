"""What a registry knows of a volume: one small JSON file, read as if a stranger had written it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from attrs import asdict, field, frozen

from stowstore.named.errors import VolumeCorrupt
from stowstore.named.names import is_name
from stowstore.named.sizes import MAX_SIZE
from stowstore.versions.ulid import new_ulid
from stowstore.whole_files import whole_file

__all__ = [
    "RECORD",
    "BackingKind",
    "VolumeRecord",
    "VolumeType",
    "now_text",
    "read_record",
    "write_record",
]

#: The name of the record in a volume's directory.
RECORD: Final = "volume.json"

_FORMAT: Final = 1
_MAX_BYTES: Final = 1 << 16


class VolumeType(StrEnum):
    """What a volume is for."""

    #: It stays until it is removed.
    FILESYSTEM = "filesystem"
    #: It lies in RAM, and is gone with removal or reboot but for what was committed.
    MEMORY = "memory"


class BackingKind(StrEnum):
    """How a volume is provided on this host."""

    CHUNKED = "chunked"
    LOOP = "loop"
    TMPFS = "tmpfs"
    DIRECTORY = "directory"


def _frozen_labels(given: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(given))


def now_text() -> str:
    """The present moment as RFC 3339 has it, to the microsecond, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@frozen(kw_only=True)
class VolumeRecord:
    """The record of a volume.

    ``size`` is what was asked for, in the user's own words, and ``size_bytes`` what it means; ``inodes`` is how many
    there may be, None for no limit.  ``created_time`` is set once.  ``generation`` goes up with every change.
    ``root`` and ``stored_as`` say where the versions of a chunked volume lie, ``head`` is the locator of the newest
    one as far as this registry has made it, ``snapshots`` how many it has made, ``parent`` what the volume was cloned
    from.  ``tombstone`` is when its removal began.
    """

    name: str
    type: VolumeType = field(converter=VolumeType)
    size: str
    size_bytes: int
    inodes: int | None = None
    backing: BackingKind = field(converter=BackingKind)
    enforced: bool = True
    created_time: str = field(factory=now_text)
    labels: Mapping[str, str] = field(factory=dict, converter=_frozen_labels)
    id: str = field(factory=new_ulid)
    generation: int = 0
    root: str | None = None
    stored_as: str | None = None
    head: str | None = None
    snapshots: int = 0
    parent: str | None = None
    preallocated: bool = False
    tombstone: str | None = None

    @property
    def created(self) -> datetime | None:
        """When it was created; None when nobody can tell."""
        try:
            return datetime.fromisoformat(self.created_time)
        except ValueError:
            return None

    def encode(self) -> bytes:
        """JSON, for people to read as well."""
        data = asdict(self, recurse=False) | {"format": _FORMAT, "labels": dict(self.labels)}
        return json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def decode(cls, raw: bytes, where: object = RECORD) -> Self:
        """Reads `encode`.

        Raises:
            VolumeCorrupt: it is no record; the message says what of it is wrong.
        """
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise VolumeCorrupt(f"{where} is no JSON", hint=_AS_IT_IS) from error
        if not isinstance(data, dict):
            raise VolumeCorrupt(f"{where} is no JSON object", hint=_AS_IT_IS)
        if data.pop("format", _FORMAT) != _FORMAT:
            raise VolumeCorrupt(f"{where} was written by another release", hint="use the newer release of stowstore")
        for name, value in data.items():
            check = _CHECKS.get(name)
            if check is None or not check(value):
                raise VolumeCorrupt(f"{where} has a damaged {name!r}"[:200], hint=_AS_IT_IS)
        try:
            return cls(**data)
        except (TypeError, ValueError) as error:
            raise VolumeCorrupt(f"{where} is incomplete: {error}"[:200], hint=_AS_IT_IS) from error


def read_record(directory: Path) -> VolumeRecord:
    """The record in a volume's directory.

    Raises:
        FileNotFoundError: there is none.
        VolumeCorrupt: it cannot be read.
    """
    path = f"{directory}/{RECORD}"
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > _MAX_BYTES:
        raise VolumeCorrupt(f"{path} is no record: it has over {_MAX_BYTES} bytes", hint=_AS_IT_IS)
    return VolumeRecord.decode(raw, path)


def write_record(directory: Path, record: VolumeRecord) -> None:
    """Replaces the record in a volume's directory: a crash leaves the old one or the new one."""
    with whole_file(directory / RECORD, durable=True) as file:
        file.write(record.encode())


_TYPES: Final = tuple(one.value for one in VolumeType)
_BACKINGS: Final = tuple(one.value for one in BackingKind)
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

_AS_IT_IS: Final = "nothing was changed; restore it from a backup, or remove the volume with --force"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 4096


def _is_optional_text(value: object) -> bool:
    return value is None or _is_text(value)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and _is_text(text) for key, text in value.items())


_CHECKS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "name": lambda value: _is_text(value) and is_name(value),
        "type": lambda value: value in _TYPES,
        "size": _is_text,
        "size_bytes": lambda value: _is_count(value) and value > 0,
        "inodes": lambda value: value is None or (_is_count(value) and value > 0),
        "backing": lambda value: value in _BACKINGS,
        "enforced": lambda value: isinstance(value, bool),
        "created_time": _is_text,
        "labels": _is_labels,
        "id": lambda value: _is_text(value) and _ULID.fullmatch(value) is not None,
        "generation": _is_count,
        "root": _is_optional_text,
        "stored_as": _is_optional_text,
        "head": _is_optional_text,
        "snapshots": _is_count,
        "parent": _is_optional_text,
        "preallocated": lambda value: isinstance(value, bool),
        "tombstone": _is_optional_text,
    }
)
