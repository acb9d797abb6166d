"""Reading ``scheme://container?option=value&...``."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import evolve

from datastore.errors import ConfigError
from datastore.reference import DataReference
from stowstore.config.mapping import parse_boolean
from stowstore.config.values import ContainerPolicy, StoreConfig, option_texts
from stowstore.locations.base import nearest
from stowstore.locations.registry import known_schemes, load_kind

__all__ = ["read_url"]

_MIB = 1 << 20


def read_url(url: str, overrides: dict[str, Any]) -> StoreConfig:
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"{url!r} is no store URL", hint="write scheme://container, for instance file:///data/main")
    kind = known_schemes(scheme).get(scheme.lower())
    if kind is None:
        raise ConfigError(f"no kind serves the scheme {scheme!r}", hint=nearest(scheme, known_schemes()))
    if kind == "libcloud":
        kind = scheme.lower()
    parts = urlsplit(url)
    options, fields = _read_query(parts.query)
    if scheme.lower() == "rediss":
        options.setdefault("tls", "true")
    if kind == "file":
        container = _local_container(parts.netloc, parts.path, options)
    else:
        container = _remote_container(url, kind, options, fields)
    options.update(option_texts(overrides.pop("options", None)))
    return evolve(
        StoreConfig(kind=kind, options=options, container=container, enable_multicontainer=True),
        **{"enable_multicontainer": False, **fields, **overrides},
    )


def _read_query(query: str) -> tuple[dict[str, str], dict[str, Any]]:
    options: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            if name == "multicontainer":
                fields["enable_multicontainer"] = parse_boolean(value)
            elif name == "create_container":
                fields["create_container"] = ContainerPolicy(value)
            elif name == "max_download_mbs":
                fields["max_download_mbs"] = int(value)
            elif name == "cache_mbs":
                from datastore.wrappers.cached import CachePolicy

                fields["cache"] = CachePolicy(max_bytes=int(value) * _MIB)
            elif name == "name":
                fields["name"] = value
            else:
                options[name] = value
        except ValueError as error:
            raise ConfigError(f"{name}={value!r} in the URL is no valid value") from error
    return options, fields


def _local_container(netloc: str, path: str, options: dict[str, str]) -> str:
    """``file:///data/main`` is the directory ``main`` below the root ``/data``; ``file://main?path=/data`` too."""
    if netloc:
        if path.strip("/"):
            raise ConfigError(f"file://{netloc}{path} names something below a container", hint="end at the container")
        return unquote(netloc)
    directory = Path(unquote(path))
    if not directory.name:
        raise ConfigError("file:/// names no directory", hint="write file:///directory/container")
    options.setdefault("path", str(directory.parent))
    return directory.name


def _remote_container(url: str, kind: str, options: dict[str, str], fields: dict[str, Any]) -> str:
    parts = urlsplit(url)
    reference = DataReference.parse(parts._replace(query="", fragment="").geturl())
    if reference.key:
        raise ConfigError(
            f"{reference} names something below a container", hint="open the container and join the rest of the key"
        )
    if reference.account:
        fields["account"] = reference.account
    elif "@" in parts.netloc:
        _take_credentials(kind, parts.netloc.rpartition("@")[0], options)
    if kind == "mem":
        return reference.container or "main"
    return reference.container


def _take_credentials(kind: str, userinfo: str, options: dict[str, str]) -> None:
    user, _, password = userinfo.partition(":")
    declared = load_kind(kind).options
    for user_option, secret_option in (("username", "password"), ("access_key_id", "secret_key")):
        if user_option in declared and secret_option in declared:
            if user:
                options.setdefault(user_option, unquote(user))
            if password:
                options.setdefault(secret_option, unquote(password))
            return
    raise ConfigError(f"kind {kind!r} takes no user and password in its URL", hint="give them as options")
