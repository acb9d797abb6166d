"""The configuration of a store, from code, a mapping, a YAML file, the environment or a URL.

The layout is upstream's ``storage`` section, so a Flyte configuration can be read as it is; what upstream ignores in
silence (unknown keys, values that cannot be parsed) is refused here.  Secrets may stand in the options or in files
named by ``<option>_path``; neither shows in ``repr``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from datastore.errors import ConfigError
from datastore.pickling import PickledByFields
from datastore.wrappers.retrying import RetryPolicy
from stowstore.locations.base import HttpSettings

if TYPE_CHECKING:
    from datastore.wrappers.cached import CachePolicy

__all__ = ["ContainerPolicy", "Measuring", "SchemeConfig", "StoreConfig", "option_texts"]

_MIB = 1 << 20
_SECRET_NAME = re.compile(
    r"secret|password|passphrase|token|credential|json|connection_string|private|(^|_)key$", re.IGNORECASE
)


class ContainerPolicy(StrEnum):
    """When a store makes a container that a write or its own opening needs."""

    NEVER = "never"
    IF_MISSING = "if_missing"
    """Look first, create only when it is really not there."""
    ALWAYS = "always"
    """Create without looking: for credentials that may create but not list."""


class Measuring(StrEnum):
    """Whether a store counts what it does."""

    ALWAYS = "always"
    IF_HEARD = "if_heard"
    """Only where somebody can hear of it in other ways than a scrape of this process: in the logs, the files of
    multi-process mode or a legacy scope.  Without, the client library of Prometheus is not loaded."""


def option_texts(options: Mapping[str, object] | None) -> Mapping[str, str]:
    """Options as text, frozen; numbers and switches are spelled out."""
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
    options: Mapping[str, str] = field(factory=dict, converter=option_texts, repr=_masked)


def _frozen_schemes(schemes: Mapping[str, SchemeConfig]) -> Mapping[str, SchemeConfig]:
    return MappingProxyType(dict(schemes))


@frozen(kw_only=True)
class StoreConfig(PickledByFields):
    """Everything a `stowstore.StowStore` is made of.

    ``kind`` and ``options`` name the primary location, ``container`` its base container.  With
    ``enable_multicontainer`` other containers may be used, and the base one may be left out.  ``schemes`` configures
    references of other schemes, which are dialled when first met.  ``max_download_mbs`` bounds one read, in MiB: None
    leaves ``read_raw`` unbounded and protobuf reads at 2.  ``name`` is the location's label in the metrics;
    ``legacy_scope`` also exposes them under flytestdlib's names, in that scope.  ``measuring`` is for processes that
    nobody scrapes.
    """

    kind: str
    options: Mapping[str, str] = field(factory=dict, converter=option_texts, repr=_masked)
    container: str = ""
    enable_multicontainer: bool = False
    create_container: ContainerPolicy = field(default=ContainerPolicy.IF_MISSING, converter=ContainerPolicy)
    schemes: Mapping[str, SchemeConfig] = field(factory=dict, converter=_frozen_schemes)
    signed_url_options: Mapping[str, str] = field(factory=dict, converter=option_texts, repr=_masked)
    cache: CachePolicy | None = None
    retry: RetryPolicy = field(factory=RetryPolicy)
    max_download_mbs: int | None = None
    http: HttpSettings = field(factory=HttpSettings)
    account: str | None = None
    name: str = "main"
    legacy_scope: str = ""
    measuring: Measuring = field(default=Measuring.ALWAYS, converter=Measuring)

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
        from stowstore.config.mapping import SectionReader

        return SectionReader(section).read()

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
        from stowstore.config.environment import read_environment

        return cls.from_mapping(read_environment(env, prefix))

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> StoreConfig:
        """Reads ``scheme://container?option=value&...``; ``file:///directory/container`` for local disk.

        The query takes the options of the kind and ``multicontainer``, ``create_container``, ``max_download_mbs``,
        ``cache_mbs`` and ``name``.  ``overrides`` are fields of the configuration; its ``options`` are merged in.

        Raises:
            ConfigError: unknown scheme or option, or a path below the container.
        """
        from stowstore.config.url import read_url

        return read_url(url, overrides)
