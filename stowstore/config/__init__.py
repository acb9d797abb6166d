"""The configuration of a store: its values, and how each source of them is read."""

from stowstore.config.values import ContainerPolicy, Measuring, SchemeConfig, StoreConfig

__all__ = ["ContainerPolicy", "Measuring", "SchemeConfig", "StoreConfig"]
