"""The stores that paths of ``stow://`` are served by, one a scheme and process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl

from attrs import evolve

from datastore.errors import ConfigError, NoSuchContainer, PermissionDenied
from datastore.protocol import Store
from datastore.reference import DataReference
from stowstore.config import ContainerPolicy, StoreConfig
from stowstore.interop.fsspec.urls import ObjectPath
from stowstore.locations.base import nearest
from stowstore.locations.registry import known_schemes
from stowstore.store import StowStore

__all__ = ["opened_store", "require_container"]

#: Kinds whose containers a write makes; a mistyped bucket of a cloud must not become one.
_MADE_ON_DEMAND: Final = frozenset({"file", "mem", "redis"})

_stores: dict[tuple[Any, ...], StowStore] = {}
_lock = threading.Lock()


def opened_store(named: ObjectPath, query: str, options: Mapping[str, Any]) -> StowStore:
    """The store of a scheme in this process, opened when it is first needed; every container of it may be used."""
    if named.scheme not in known_schemes(named.scheme):
        raise ConfigError(
            f"no kind serves the scheme {named.scheme!r}", hint=nearest(named.scheme, known_schemes(named.scheme))
        )
    per_place = named.container if named.scheme in ("redis", "rediss") else named.container.partition("@")[2]
    key = (
        os.getpid(),
        named.scheme,
        per_place,
        query,
        tuple(sorted((name, str(value)) for name, value in options.items())),
    )
    found = _stores.get(key)
    if found is not None:
        return found
    given = dict(options)
    if per_place and named.scheme in ("redis", "rediss") and "addr" not in dict(parse_qsl(query)):
        given.setdefault("addr", per_place)
    authority = named.container or "any"
    config = StoreConfig.from_url(f"{named.scheme}://{authority}{'?' if query else ''}{query}", options=given)
    if "create_container=" not in query and config.kind not in _MADE_ON_DEMAND:
        config = evolve(config, create_container=ContainerPolicy.NEVER)
    opened = StowStore(evolve(config, container="", enable_multicontainer=True))
    with _lock:
        kept = _stores.setdefault(key, opened)
    if kept is not opened:
        # Another thread was first.
        opened.close()
    return kept


def require_container(store: Store, reference: DataReference) -> None:
    """Raises `NoSuchContainer` where it is sure that there is none."""
    if isinstance(store, StowStore):
        with suppress(PermissionDenied):
            store.load_container(reference.container)
        return
    if not store.list_page(reference, 1).entries and store.base_container_fqn != reference:
        raise NoSuchContainer("there is nothing in such a container", op="info", reference=str(reference))
