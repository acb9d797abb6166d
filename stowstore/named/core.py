"""What every group of operations on named volumes stands on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Final

from datastore.errors import ConfigError
from stowstore.named.backings import backing_of
from stowstore.named.errors import InvalidType, NamedError, NotAllowed
from stowstore.named.info import VolumeInfo
from stowstore.named.leases import holders
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.registry import DATA, Registry
from stowstore.named.settings import Settings
from stowstore.named.sizes import MAX_SIZE, format_size

__all__ = ["NamedCore", "checked_backing", "checked_inodes", "checked_labels", "checked_type"]

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


class NamedCore:
    """The registry, and what is shown of a volume in it."""

    def __init__(self, base: Path | str | None = None) -> None:
        self._registry = Registry(None if base is None else Path(base))

    @property
    def base(self) -> Path:
        """The registry's directory."""
        return self._registry.base

    def _info(self, record: VolumeRecord, mounted: Container[str] | None = None) -> VolumeInfo:
        """A volume as listings show it; ``mounted`` is where anything is mounted, where that is known already."""
        directory = self._registry.directory(record.name)
        path = Path(f"{directory}/{DATA}")
        backing = backing_of(record.backing)
        return VolumeInfo(
            name=record.name,
            path=path,
            record=record,
            usage=backing.usage(directory, record),
            jobs=tuple(holders(directory)),
            is_mounted=backing.is_attached(directory) if mounted is None else str(path) in mounted,
        )

    def _publish(self, record: VolumeRecord, build: Callable[[Path], VolumeRecord | None]) -> VolumeRecord:
        """Makes a volume that the operator allows, see `Registry.publish`."""
        self._require_allowed(record)
        return self._registry.publish(record, build)

    def _require_allowed(self, record: VolumeRecord) -> None:
        """Refuses what is more than the operator allows, beside what there is.

        Raises:
            NotAllowed: it is; the message names the limit.
        """
        allowed = Settings.from_environment()
        if allowed.max_size is not None and record.size_bytes > allowed.max_size:
            raise NotAllowed(
                f"volume {record.name} would have {format_size(record.size_bytes)}, and {format_size(allowed.max_size)}"
                " are allowed",
                hint="$STOWSTORE_VOLUMES_MAX_SIZE says so",
            )
        if allowed.max_volumes is None and allowed.max_memory is None and allowed.max_memory_volumes is None:
            return
        names = [name for name in self._registry.names() if name != record.name]
        if allowed.max_volumes is not None and len(names) >= allowed.max_volumes:
            raise NotAllowed(
                f"there are {len(names)} volumes, and {allowed.max_volumes} are allowed",
                hint="remove one; $STOWSTORE_VOLUMES_MAX_VOLUMES says so",
            )
        if record.type is not VolumeType.MEMORY:
            return
        sizes = [size for name in names if (size := self._memory_of(name)) is not None]
        if allowed.max_memory_volumes is not None and len(sizes) >= allowed.max_memory_volumes:
            raise NotAllowed(
                f"there are {len(sizes)} volumes in memory, and {allowed.max_memory_volumes} are allowed",
                hint="remove one; $STOWSTORE_VOLUMES_MAX_MEMORY_VOLUMES says so",
            )
        if allowed.max_memory is not None and sum(sizes) + record.size_bytes > allowed.max_memory:
            raise NotAllowed(
                f"volumes in memory would have {format_size(sum(sizes) + record.size_bytes)},"
                f" and {format_size(allowed.max_memory)} are allowed",
                hint="remove one, or ask for less; $STOWSTORE_VOLUMES_MAX_MEMORY says so",
            )

    def _memory_of(self, name: str) -> int | None:
        """The size of a volume in memory; None of every other one."""
        with contextlib.suppress(NamedError):
            record = self._registry.load(name)
            return record.size_bytes if record.type is VolumeType.MEMORY else None
        return None

    def _sweep(self) -> None:
        """Deletes what others have withdrawn and not deleted."""
        withdrawn = self._registry.gone()
        if withdrawn:
            from stowstore.named.removing import sweep

            sweep(withdrawn)


def checked_type(given: VolumeType | str) -> VolumeType:
    """A type of volume.

    Raises:
        InvalidType: there is no such type.
    """
    try:
        return VolumeType(given)
    except ValueError:
        raise InvalidType(f"invalid volume type: {given}", hint="use filesystem or memory") from None


def checked_backing(given: BackingKind | str) -> BackingKind:
    """A kind of backing.

    Raises:
        InvalidType: there is no such kind.
    """
    try:
        return BackingKind(given)
    except ValueError:
        raise InvalidType(f"invalid backing: {given}", hint=f"use one of {', '.join(BackingKind)}") from None


def checked_inodes(given: int | None) -> int | None:
    """How many inodes a volume may have.

    Raises:
        ConfigError: that is no number of 1 or more.
    """
    if given is not None and (type(given) is not int or not 0 < given <= MAX_SIZE):
        raise ConfigError(f"a volume cannot have {given!r} inodes", hint="give a number of 1 or more")
    return given


def checked_labels(given: Mapping[str, str] | None) -> dict[str, str]:
    """Labels of a volume.

    Raises:
        ConfigError: a key or a value cannot be one.
    """
    for key, value in (given or {}).items():
        if _LABEL.fullmatch(key) is None or not isinstance(value, str) or len(value) > 255:
            raise ConfigError(
                f"invalid label {key[:80]!r}",
                hint="a key has letters, digits, '.', '_', '/' and '-', a value at most 255 characters",
            )
    return dict(given or {})
