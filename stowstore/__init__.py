"""A pluggable storage framework: one measured store over every location, and versioned volumes on it."""

from typing import TYPE_CHECKING, Any

from stowstore.config import ContainerPolicy, SchemeConfig, StoreConfig
from stowstore.store import StowStore, open_store

if TYPE_CHECKING:
    from stowstore.volumes import ROVolume, RWVolume, Volume

__all__ = [
    "ContainerPolicy",
    "ROVolume",
    "RWVolume",
    "SchemeConfig",
    "StoreConfig",
    "StowStore",
    "Volume",
    "open_store",
]

_VOLUMES = ("ROVolume", "RWVolume", "Volume")


def __getattr__(name: str) -> Any:
    # What volumes need beyond the store is an extra, and costs time to import.
    if name in _VOLUMES:
        from stowstore import volumes

        return getattr(volumes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
