"""A pluggable storage framework: one measured store over every location."""

from stowstore.config import ContainerPolicy, SchemeConfig, StoreConfig
from stowstore.store import StowStore, open_store

__all__ = ["ContainerPolicy", "SchemeConfig", "StoreConfig", "StowStore", "open_store"]
