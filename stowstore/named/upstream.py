"""Volumes that joblet has made, read where they lie; whoever changes one makes it a volume of ours.

It keeps ``volume-info.json`` (name, type, size, sizeBytes, createdTime) in the volume's directory, beside ``data/``,
and ``volume.img`` of one on a loop device.
"""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from stowstore.named.errors import VolumeCorrupt
from stowstore.named.names import is_name
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.sizes import MAX_SIZE
from stowstore.versions.ulid import ulid_text

__all__ = ["IMAGE", "UPSTREAM_RECORD", "read_upstream"]

UPSTREAM_RECORD: Final = "volume-info.json"

#: The image of a volume on a loop device, in its directory.
IMAGE: Final = "volume.img"

_MAX_BYTES: Final = 1 << 16

#: Go writes nanoseconds, which Python does not read.
_NANOSECONDS: Final = re.compile(r"(\.\d{6})\d+")


def read_upstream(directory: Path) -> VolumeRecord:
    """The record of a volume that joblet has made, and that nobody has changed since.

    Raises:
        FileNotFoundError: there is none.
        VolumeCorrupt: it cannot be read.
    """
    path = directory / UPSTREAM_RECORD
    with open(path, "rb") as file:
        raw = file.read(_MAX_BYTES)
    try:
        data: dict[str, Any] = json.loads(raw)
        name, type_, size, size_bytes = data["name"], data["type"], data["size"], data["sizeBytes"]
        created = data.get("createdTime", "")
        if not (is_name(name) and isinstance(size, str) and isinstance(created, str) and type(size_bytes) is int):
            raise VolumeCorrupt(f"{path} has a field of a wrong type")
        if not 0 < size_bytes <= MAX_SIZE:
            raise VolumeCorrupt(f"{path} says that the volume has {size_bytes} bytes")
        backing = BackingKind.LOOP if (directory / IMAGE).is_file() else BackingKind.DIRECTORY
        if VolumeType(type_) is VolumeType.MEMORY:
            backing = BackingKind.TMPFS
        return VolumeRecord(
            name=name,
            type=type_,
            size=size[:100],
            size_bytes=size_bytes,
            backing=backing,
            enforced=backing is not BackingKind.DIRECTORY,
            created_time=_NANOSECONDS.sub(r"\1", created)[:100],
            # The same whenever it is read, until the record is ours.
            id=ulid_text(blake2b(raw, digest_size=16).digest()),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VolumeCorrupt(f"{path} is damaged", hint="restore it, or remove the volume with --force") from error
