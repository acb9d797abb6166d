"""The configuration of a store, from code, a mapping, a YAML file, the environment or a URL.

The layout is upstream's ``storage`` section, so a Flyte configuration can be read as it is; what upstream ignores in
silence (unknown keys, values that cannot be parsed) is refused here.  Secrets may stand in the options or in files
named by ``<option>_path``; neither shows in ``repr``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import evolve, field, frozen

from datastore.errors import ConfigError
from datastore.pickling import PickledByFields
from datastore.reference import DataReference
from datastore.wrappers.cached import CachePolicy
from datastore.wrappers.retrying import RetryPolicy
from stowstore.durations import parse_duration
from stowstore.locations.base import HttpSettings, nearest
from stowstore.locations.registry import known_schemes, load_kind

__all__ = ["ContainerPolicy", "SchemeConfig", "StoreConfig"]

_MIB = 1 << 20
_SECRET_NAME = re.compile(
    r"secret|password|passphrase|token|credential|json|connection_string|private|(^|_)key$", re.IGNORECASE
)
_TYPES = ("s3", "minio", "local", "mem", "stow", "redis")
_KIND_OF_TYPE = {"s3": "s3", "minio": "s3", "local": "file", "mem": "mem", "redis": "redis", "stow": "s3"}


class ContainerPolicy(StrEnum):
    """When a store makes a container that a write or its own opening needs."""

    NEVER = "never"
    IF_MISSING = "if_missing"
    """Look first, create only when it is really not there."""
    ALWAYS = "always"
    """Create without looking: for credentials that may create but not list."""


def _texts(options: Mapping[str, object] | None) -> Mapping[str, str]:
    return MappingProxyType({name: _text(name, value) for name, value in (options or {}).items()})


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ConfigError(f"option {name!r} is text, not {type(value).__name__}")


def _masked(options: Mapping[str, str]) -> str:
    return repr({name: "***" if _SECRET_NAME.search(name) else value for name, value in options.items()})


@frozen(kw_only=True)
class SchemeConfig(PickledByFields):
    """How references of one more scheme are served."""

    kind: str | None = None
    options: Mapping[str, str] = field(factory=dict, converter=_texts, repr=_masked)


def _frozen_schemes(schemes: Mapping[str, SchemeConfig]) -> Mapping[str, SchemeConfig]:
    return MappingProxyType(dict(schemes))


@frozen(kw_only=True)
class StoreConfig(PickledByFields):
    """Everything a `stowstore.StowStore` is made of.

    ``kind`` and ``options`` name the primary location, ``container`` its base container.  With
    ``enable_multicontainer`` other containers may be used, and the base one may be left out.  ``schemes`` configures
    references of other schemes, which are dialled when first met.  ``max_download_mbs`` bounds one read, in MiB: None
    leaves ``read_raw`` unbounded and protobuf reads at 2.  ``name`` is the location's label in the metrics;
    ``legacy_scope`` also exposes them under flytestdlib's names, in that scope.
    """

    kind: str
    options: Mapping[str, str] = field(factory=dict, converter=_texts, repr=_masked)
    container: str = ""
    enable_multicontainer: bool = False
    create_container: ContainerPolicy = field(default=ContainerPolicy.IF_MISSING, converter=ContainerPolicy)
    schemes: Mapping[str, SchemeConfig] = field(factory=dict, converter=_frozen_schemes)
    signed_url_options: Mapping[str, str] = field(factory=dict, converter=_texts, repr=_masked)
    cache: CachePolicy | None = None
    retry: RetryPolicy = field(factory=RetryPolicy)
    max_download_mbs: int | None = None
    http: HttpSettings = field(factory=HttpSettings)
    account: str | None = None
    name: str = "main"
    legacy_scope: str = ""

    def __attrs_post_init__(self) -> None:
        if self.max_download_mbs is not None and self.max_download_mbs < 0:
            raise ConfigError(
                f"limits.maxDownloadMBs is {self.max_download_mbs}, a number of MiB is wanted", hint="0 is no limit"
            )
        if not self.container and not self.enable_multicontainer:
            raise ConfigError(
                "initContainer is required: container is empty and enable-multicontainer is off",
                hint="name a base container, or allow any with enable-multicontainer",
            )

    @property
    def max_download_bytes(self) -> int:
        """What one ``read_raw`` may transfer; 0 is no limit."""
        return (self.max_download_mbs or 0) * _MIB

    @property
    def max_protobuf_bytes(self) -> int:
        """What one protobuf read may transfer; 0 is no limit."""
        return (2 if self.max_download_mbs is None else self.max_download_mbs) * _MIB

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> StoreConfig:
        """Reads upstream's ``storage`` section, with or without that outer key.

        Raises:
            ConfigError: an unknown key (the hint names the nearest) or a value of another type.
        """
        section = mapping["storage"] if set(mapping) == {"storage"} else mapping
        return _SectionReader(section).read()

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> StoreConfig:
        """Reads a YAML file of the same layout.

        Raises:
            ConfigError: the file cannot be read, is no YAML, or has an invalid value.
        """
        import yaml

        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"configuration {os.fspath(path)!r} cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"configuration {os.fspath(path)!r} is not YAML: {error}") from error
        if not isinstance(loaded, Mapping):
            raise ConfigError(f"configuration {os.fspath(path)!r} is no mapping", hint="write a 'storage:' section")
        return cls.from_mapping(loaded)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, prefix: str = "STOWSTORE_") -> StoreConfig:
        """Reads ``STOWSTORE_URL``, or ``STOWSTORE_CONFIG`` (a YAML file), or one variable a key of the layout.

        A key's variable is its path in capitals with underscores: ``STOWSTORE_CONTAINER``, ``STOWSTORE_STOW_KIND``,
        ``STOWSTORE_STOW_CONFIG_ENDPOINT``, ``STOWSTORE_LIMITS_MAXDOWNLOADMBS``.

        Raises:
            ConfigError: none of them is set, or one has an invalid value.
        """
        env = os.environ if environ is None else environ
        if url := env.get(f"{prefix}URL"):
            return cls.from_url(url)
        if path := env.get(f"{prefix}CONFIG"):
            return cls.from_yaml(path)
        section: dict[str, Any] = {}
        for name, value in env.items():
            if name.startswith(prefix):
                _place(section, name.removeprefix(prefix), value)
        if not section:
            raise ConfigError("no store is configured in the environment", hint=f"set {prefix}URL, for instance")
        return cls.from_mapping(section)

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> StoreConfig:
        """Reads ``scheme://container?option=value&...``; ``file:///directory/container`` for local disk.

        The query takes the options of the kind and ``multicontainer``, ``create_container``, ``max_download_mbs``,
        ``cache_mbs`` and ``name``.  ``overrides`` are fields of the configuration; its ``options`` are merged in.

        Raises:
            ConfigError: unknown scheme or option, or a path below the container.
        """
        return _read_url(url, overrides)


class _SectionReader:
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
        return _texts(found)

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
        return _texts(options)

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

    def _section(self, name: str) -> _SectionReader:
        self._known.append(name)
        return _SectionReader(self._left.pop(name, None) or {}, self._key(name))

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


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off", ""):
        return False
    raise ValueError(text)


_PARSERS: dict[type, Callable[[str], Any]] = {bool: _boolean, int: int}


def _header_values(name: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    if isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values):
        return tuple(values)
    raise ConfigError(f"defaultHttpClient.headers.{name} is a text or a list of texts")


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
_ENV_FOREIGN = frozenset({"ROOT", "SERVERS", "REQUIRE_SERVERS", "VOLUME_METADATA_STORE"})


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


def _read_url(url: str, overrides: dict[str, Any]) -> StoreConfig:
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
    options.update(_texts(overrides.pop("options", None)))
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
                fields["enable_multicontainer"] = _boolean(value)
            elif name == "create_container":
                fields["create_container"] = ContainerPolicy(value)
            elif name == "max_download_mbs":
                fields["max_download_mbs"] = int(value)
            elif name == "cache_mbs":
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
