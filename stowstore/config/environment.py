"""Reading one variable a key: ``STOWSTORE_STOW_CONFIG_ENDPOINT`` and its kin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from datastore.errors import ConfigError
from stowstore.locations.base import nearest

__all__ = ["read_environment"]

#: The keys an environment variable can set, by their capital spelling.
_ENV_KEYS = {
    re.sub(r"[.-]", "_", key).upper(): key
    for key in (
        "type",
        "stow.kind",
        "container",
        "enable-multicontainer",
        "create-container",
        "name",
        "redis.addr",
        "redis.username",
        "redis.password",
        "redis.db",
        "cache.max_size_mbs",
        "cache.target_gc_percent",
        "metrics.legacyScope",
        "limits.maxDownloadMBs",
        "defaultHttpClient.timeout",
        "defaultHttpClient.maxIdleConns",
        "defaultHttpClient.maxIdleConnsPerHost",
        "defaultHttpClient.maxConnsPerHost",
        "defaultHttpClient.idleConnTimeout",
    )
}
_ENV_MAPS = {"STOW_CONFIG_": "stow.config", "SIGNEDURL_STOWCONFIGOVERRIDE_": "signedUrl.stowConfigOverride"}
#: Variables of this prefix that configure something else than a store.
_ENV_FOREIGN = frozenset({"ROOT", "SERVERS", "REQUIRE_SERVERS", "VOLUME_METADATA_STORE", "VOLUME_ROOT"})


def read_environment(environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """The section that the variables of a prefix spell out.

    Raises:
        ConfigError: a variable names no key, or there is none.
    """
    section: dict[str, Any] = {}
    for name, value in environ.items():
        if name.startswith(prefix):
            _place(section, name.removeprefix(prefix), value)
    if not section:
        raise ConfigError("no store is configured in the environment", hint=f"set {prefix}URL, for instance")
    return section


def _place(section: dict[str, Any], name: str, value: str) -> None:
    if name in _ENV_FOREIGN:
        return
    for start, key in _ENV_MAPS.items():
        if name.startswith(start) and len(name) > len(start):
            path = [*key.split("."), name.removeprefix(start).lower()]
            break
    else:
        if name not in _ENV_KEYS:
            raise ConfigError(f"unknown variable STOWSTORE_{name}", hint=nearest(name, _ENV_KEYS))
        path = _ENV_KEYS[name].split(".")
    place = section
    for part in path[:-1]:
        place = place.setdefault(part, {})
    place[path[-1]] = value
