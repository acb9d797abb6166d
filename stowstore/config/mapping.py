"""Reading upstream's ``storage`` section, key by key; what is left over is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datastore.errors import ConfigError
from datastore.wrappers.cached import CachePolicy
from stowstore.config.values import ContainerPolicy, SchemeConfig, StoreConfig, option_texts
from stowstore.durations import parse_duration
from stowstore.locations.base import HttpSettings, nearest
from stowstore.locations.registry import load_kind

__all__ = ["SectionReader", "parse_boolean"]

_MIB = 1 << 20
_TYPES = ("s3", "minio", "local", "mem", "stow", "redis")
_KIND_OF_TYPE = {"s3": "s3", "minio": "s3", "local": "file", "mem": "mem", "redis": "redis", "stow": "s3"}


class SectionReader:
    """Reads one mapping key by key, and refuses what is left over."""

    def __init__(self, section: object, path: str = "") -> None:
        if not isinstance(section, Mapping):
            raise ConfigError(f"{path or 'storage'} is a mapping, not {type(section).__name__}")
        self._path = path
        self._left = {str(key): value for key, value in section.items()}
        self._known: list[str] = []

    def read(self) -> StoreConfig:
        kind = self._read_kind()
        options = self._read_options(kind)
        config = StoreConfig(
            kind=kind,
            options=options,
            container=self._take("container", str, ""),
            enable_multicontainer=self._take("enable-multicontainer", bool, False),
            create_container=self._take_policy(),
            schemes=self._read_schemes(),
            signed_url_options=self._section("signedUrl").take_last("stowConfigOverride"),
            cache=self._read_cache(),
            max_download_mbs=self._section("limits").take_only("maxDownloadMBs", int, None),
            http=self._read_http(),
            name=self._take("name", str, "main"),
            legacy_scope=self._section("metrics").take_only("legacyScope", str, ""),
        )
        self._refuse_rest()
        return config

    def take_last(self, name: str) -> Mapping[str, str]:
        found = self._take(name, Mapping, None) or {}
        self._refuse_rest()
        return option_texts(found)

    def take_only(self, name: str, kind: type, default: Any) -> Any:
        found = self._take(name, kind, default)
        self._refuse_rest()
        return found

    def _read_kind(self) -> str:
        store_type: str = self._take("type", str, "stow")
        if store_type not in _TYPES:
            raise ConfigError(f"type is of an invalid value [{store_type}]", hint=nearest(store_type, _TYPES))
        stow = self._section("stow")
        named = stow._take("kind", str, None)
        self._stow_options = stow.take_last("config")
        if store_type in ("mem", "redis"):
            return store_type
        kind: str = named or _KIND_OF_TYPE[store_type]
        load_kind(kind)
        return kind

    def _read_options(self, kind: str) -> Mapping[str, str]:
        redis = self._section("redis")
        given = {name: redis._take(name, kind_of, None) for name, kind_of in _REDIS_KEYS.items()}
        redis._refuse_rest()
        if kind != "redis":
            return self._stow_options
        options = {name: value for name, value in given.items() if value not in (None, "")}
        if "addr" not in options:
            raise ConfigError("type redis requires redis.addr", hint='write redis: {addr: "host:6379"}')
        return option_texts(options)

    def _take_policy(self) -> ContainerPolicy:
        text = self._take("create-container", str, ContainerPolicy.IF_MISSING.value)
        try:
            return ContainerPolicy(text)
        except ValueError as error:
            known = [policy.value for policy in ContainerPolicy]
            raise ConfigError(f"create-container is of an invalid value [{text}]", hint=nearest(text, known)) from error

    def _read_schemes(self) -> Mapping[str, SchemeConfig]:
        schemes = {}
        section = self._section("schemes")
        for name in list(section._left):
            entry = section._section(name)
            kind = entry._take("kind", str, None)
            options = entry._take("config", Mapping, None) or {}
            redis = entry._take("redis", Mapping, None) or {}
            entry._refuse_rest()
            schemes[name.lower()] = SchemeConfig(kind=kind, options={**options, **redis})
        return schemes

    def _read_cache(self) -> CachePolicy | None:
        section = self._section("cache")
        size = section._take("max_size_mbs", int, 0)
        # Upstream tunes Go's garbage collector with this; it has no counterpart here.
        section._take("target_gc_percent", int, 0)
        section._refuse_rest()
        if size < 0:
            raise ConfigError(f"cache.max_size_mbs is a number of MiB, not {size}")
        return CachePolicy(max_bytes=size * _MIB) if size else None

    def _read_http(self) -> HttpSettings:
        section = self._section("defaultHttpClient")
        plain = HttpSettings()
        headers = section._take("headers", Mapping, None) or {}
        settings = HttpSettings(
            headers={name: _header_values(name, values) for name, values in headers.items()},
            timeout=section._seconds("timeout", plain.timeout),
            max_idle_connections=section._take("maxIdleConns", int, plain.max_idle_connections),
            max_idle_connections_per_host=section._take(
                "maxIdleConnsPerHost", int, plain.max_idle_connections_per_host
            ),
            max_connections_per_host=section._take("maxConnsPerHost", int, plain.max_connections_per_host),
            idle_timeout=section._seconds("idleConnTimeout", plain.idle_timeout),
        )
        section._refuse_rest()
        return settings

    def _section(self, name: str) -> SectionReader:
        self._known.append(name)
        return SectionReader(self._left.pop(name, None) or {}, self._key(name))

    def _seconds(self, name: str, default: float) -> float:
        self._known.append(name)
        if name not in self._left:
            return default
        return parse_duration(self._left.pop(name)) / 1e9

    def _take(self, name: str, kind: type, default: Any) -> Any:
        self._known.append(name)
        value = self._left.pop(name, None)
        if value is None:
            return default
        if isinstance(value, str) and kind in _PARSERS:
            try:
                return _PARSERS[kind](value)
            except ValueError as error:
                raise ConfigError(f"{self._key(name)} is {_WORDS[kind]}, not {value!r}") from error
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self._key(name)} is {_WORDS[kind]}, not {type(value).__name__}")
        return value

    def _key(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _refuse_rest(self) -> None:
        for name in self._left:
            raise ConfigError(f"unknown configuration key {self._key(name)!r}", hint=nearest(name, self._known))


_REDIS_KEYS: dict[str, type] = {"addr": str, "username": str, "password": str, "db": int}
_WORDS = {str: "text", bool: "true or false", int: "a whole number", Mapping: "a mapping"}


def parse_boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off", ""):
        return False
    raise ValueError(text)


_PARSERS: dict[type, Callable[[str], Any]] = {bool: parse_boolean, int: int}


def _header_values(name: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    if isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values):
        return tuple(values)
    raise ConfigError(f"defaultHttpClient.headers.{name} is a text or a list of texts")
