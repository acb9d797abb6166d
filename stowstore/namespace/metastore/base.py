"""Choosing a metadata store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from datastore.errors import ConfigError
from stowstore.locations.base import nearest
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.metastore.memory import MemoryMetaStore
from stowstore.namespace.metastore.redis import RedisMetaStore
from stowstore.namespace.metastore.sqlite import SqliteMetaStore

__all__ = ["DEFAULT_KIND", "KINDS", "VARIABLES", "choose_kind", "open_metastore"]

#: Where the choice is read from when none is given, the first that is set.
VARIABLES: Final = ("STOWSTORE_VOLUME_METADATA_STORE", "UNION_VOLUME_METADATA_STORE")

DEFAULT_KIND: Final = "sqlite"

KINDS: Final[Mapping[str, Callable[[Path], MetaStore]]] = {
    "memory": lambda _: MemoryMetaStore(),
    "redis": RedisMetaStore,
    "sqlite": SqliteMetaStore,
}


def choose_kind(kind: str | None = None) -> str:
    """The kind of metadata store asked for: the argument, else the environment, else `DEFAULT_KIND`.

    Raises:
        ConfigError: there is no such kind; the hint has the nearest.
    """
    asked_by = "metadata_store_type"
    if kind is None:
        for variable in VARIABLES:
            if kind := os.environ.get(variable):
                asked_by = f"${variable}"
                break
        else:
            return DEFAULT_KIND
    if kind not in KINDS:
        raise ConfigError(f"{asked_by} asks for an unknown metadata store {kind!r}", hint=nearest(kind, KINDS))
    return kind


def open_metastore(kind: str | None = None, meta_dir: Path | None = None) -> MetaStore:
    """Opens the crash journal of a session in a directory of its own; `choose_kind` says which kind.

    Raises:
        ConfigError: the kind is unknown, needs a directory or a program that is missing, or is open in another session.
    """
    chosen = choose_kind(kind)
    if chosen == "memory":
        return MemoryMetaStore()
    if meta_dir is None:
        raise ConfigError(f"the metadata store {chosen!r} keeps its data in a directory", hint="give meta_dir")
    meta_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return KINDS[chosen](meta_dir)
