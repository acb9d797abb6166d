"""How a volume is mounted: what a daemon is told when it is started."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from attrs import asdict, field, frozen

from datastore.errors import ConfigError
from stowstore.fuse.device import mount_point

__all__ = ["Hosting", "Lifetime", "MountOptions", "MountRequest"]


class Lifetime(StrEnum):
    """When a daemon ends of itself."""

    #: Its parent's end unmounts it; what is not committed stays in the journal.
    PARENT = "parent"
    #: It serves until somebody unmounts it.
    OWN = "own"
    #: It serves while somebody has a lease on the file that `Hosting` names, and a little longer.
    LEASED = "leased"


#: The longest time the kernel is told, seconds: some 68 years.
_LONGEST: Final = 2**31


def _seconds(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _LONGEST:
        raise ConfigError(f"{attribute.name} is {value!r}", hint=f"give seconds, from 0 to {_LONGEST}")


def _switch(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} is {value!r}", hint="True or False")


@frozen(kw_only=True)
class MountOptions:
    """What the kernel is told, and how the daemon behaves.

    ``attr_cache``, ``entry_cache`` and ``dir_entry_cache`` are how long the kernel may keep attributes, names and
    listings, in seconds.  ``writeback`` False has a close or fsync answer only when the data are in the store.
    ``kernel_cache`` is ``writethrough`` or ``writeback``, see `stowstore.fuse.options.KernelCache`.  ``spin`` is how
    long the daemon asks again before it sleeps.  ``metrics_port`` serves Prometheus on 127.0.0.1; 0 takes a free port,
    None none.
    """

    attr_cache: float = field(default=60.0, validator=_seconds)
    entry_cache: float = field(default=60.0, validator=_seconds)
    dir_entry_cache: float = field(default=60.0, validator=_seconds)
    writeback: bool = field(default=True, validator=_switch)
    kernel_cache: str = "writethrough"
    xattrs: bool = field(default=True, validator=_switch)
    allow_other: bool | None = None
    spin: float = field(default=0.0, validator=_seconds)
    lifetime: Lifetime = field(default=Lifetime.PARENT, converter=Lifetime)
    metrics_port: int | None = 0
    log_file: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.kernel_cache not in ("writethrough", "writeback"):
            raise ConfigError(f"kernel_cache is {self.kernel_cache!r}", hint="'writethrough' or 'writeback'")


@frozen(kw_only=True)
class Hosting:
    """What the daemon of a volume with limits keeps to, see `stowstore.named`.

    ``limit_bytes`` and ``limit_inodes`` are what the volume may hold, 0 for no limit.  ``lease_file`` is locked by
    whoever needs the mount: with `Lifetime.LEASED` it ends when nobody has for ``idle_seconds``.  ``counters_file`` is
    where it writes what the volume holds.  ``in_memory`` keeps everything that is not committed in RAM.
    """

    limit_bytes: int = 0
    limit_inodes: int = 0
    lease_file: str | None = None
    idle_seconds: float = 5.0
    counters_file: str | None = None
    in_memory: bool = False


@frozen(kw_only=True)
class MountRequest:
    """Everything a daemon needs, as plain data that goes through a pipe: credentials and keys are among it.

    ``path`` is kept as the kernel calls it.
    ``volume`` is the volume as `Volume.to_dict` has it, ``opening`` the arguments of its `open`; ``seen`` says that the
    process knows the volume to exist.  ``opened_by`` is when it has to be open, on the system's monotonic clock.
    ``key`` is a pair of its kind (``key`` in hexadecimal, ``passphrase``) and text.
    """

    path: Path = field(converter=mount_point)
    volume: Mapping[str, Any]
    opening: Mapping[str, Any]
    seen: bool = False
    opened_by: float | None = None
    access: Mapping[str, str] = field(factory=dict, repr=False)
    key: tuple[str, str] | None = field(default=None, repr=False)
    options: MountOptions = field(factory=MountOptions)
    hosting: Hosting | None = None

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"path": str(self.path)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Reads `to_data`."""
        key = data.get("key")
        hosting = data.get("hosting")
        return cls(
            **{
                **data,
                "key": tuple(key) if key else None,
                "options": MountOptions(**data["options"]),
                "hosting": Hosting(**hosting) if hosting else None,
            }
        )
