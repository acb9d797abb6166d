"""A pluggable storage framework: one measured store over every location, and versioned volumes on it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stowstore.config import ContainerPolicy, Measuring, SchemeConfig, StoreConfig
    from stowstore.store import StowStore, open_store
    from stowstore.volumes import ROVolume, RWVolume, Volume

__all__ = [
    "ContainerPolicy",
    "Measuring",
    "ROVolume",
    "RWVolume",
    "SchemeConfig",
    "StoreConfig",
    "StowStore",
    "Volume",
    "open_store",
]

_HOMES = {
    "stowstore.config": ("ContainerPolicy", "Measuring", "SchemeConfig", "StoreConfig"),
    "stowstore.store": ("StowStore", "open_store"),
    # What volumes need beyond the store is an extra.
    "stowstore.volumes": ("ROVolume", "RWVolume", "Volume"),
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: daemons and commands that use other parts start the sooner.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
