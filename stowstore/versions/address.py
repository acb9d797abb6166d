"""Addresses of volumes: ``ROOT#NAME``, ``ROOT#NAME@VERSION-or-TAG``, and locators, ``ROOT#NAME@VERSION:DIGEST``.

A root is the URL of a prefix in a store, without secrets: ``s3://bucket/prefix?endpoint=...``, ``file:///directory/root``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import evolve, frozen

from datastore.errors import ConfigError
from datastore.model import Feature
from datastore.reference import DataReference
from stowstore.config import ContainerPolicy, Measuring, StoreConfig
from stowstore.locations.registry import load_kind
from stowstore.store import StowStore
from stowstore.versions.errors import CorruptManifest
from stowstore.versions.manifest import VersionName
from stowstore.versions.root import Root, RootFormat, check_volume_name
from stowstore.versions.ulid import is_ulid

__all__ = ["VolumeAddress", "kind_of_root", "normal_root", "open_root", "open_root_store"]

_DIGEST = re.compile(r"[0-9a-f]{64}")

_memory: dict[str, StowStore] = {}
_memory_lock = threading.Lock()


@frozen
class VolumeAddress:
    """What a text says of a volume; ``version`` is an id, a tag or None, ``digest`` is known in locators alone."""

    root: str
    volume: str
    version: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> VolumeAddress:
        """Reads an address.

        Raises:
            ConfigError: it is none; the hint shows one.
            InvalidReference: the name of the volume cannot be one.
        """
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} names no volume: it is no text", hint="write ROOT#NAME")
        root, hash_, rest = text.rpartition("#")
        if not hash_ or "://" not in root:
            raise ConfigError(
                f"{text!r} names no volume", hint="write ROOT#NAME, for instance file:///data/root#training@v1"
            )
        volume, at, version = rest.partition("@")
        check_volume_name(volume)
        if at and not version:
            raise ConfigError(f"{text!r} ends before its version", hint="write ROOT#NAME@VERSION, or leave the @ out")
        version, colon, digest = version.partition(":")
        if colon and not (is_ulid(version) and _DIGEST.fullmatch(digest)):
            raise ConfigError(f"{text!r} is a damaged locator", hint="copy it whole: ROOT#NAME@VERSION:DIGEST")
        return cls(normal_root(root), volume, version or None, digest or None)

    @classmethod
    def locator(cls, root: str, volume: str, name: VersionName) -> VolumeAddress:
        """The address that pins a version and verifies it; ``volume`` is the one its manifest is of."""
        return cls(root, volume, name.id, name.digest)

    @property
    def version_name(self) -> VersionName:
        """The version a locator names.

        Raises:
            CorruptManifest: this is no locator.
        """
        if self.version is None or self.digest is None:
            raise CorruptManifest(f"{self} is no locator")
        return VersionName(self.volume, self.version, self.digest)

    def __str__(self) -> str:
        text = f"{self.root}#{self.volume}"
        if self.version is not None:
            text += f"@{self.version}"
        return f"{text}:{self.digest}" if self.digest is not None else text


def normal_root(url: str) -> str:
    """The URL of a root without trailing slashes, userinfo and secrets: what may be shown, kept and handed on.

    Raises:
        ConfigError: it is no URL, or holds a secret: those are given aside.
    """
    parts = urlsplit(url)
    if not parts.scheme or "://" not in url:
        raise ConfigError(f"{url!r} is no root", hint="write file:///directory/root or s3://bucket/prefix")
    query = parse_qsl(parts.query, keep_blank_values=True)
    declared = load_kind(kind_of_root(url)).options
    for name, _ in query:
        option = declared.get(name)
        if option is not None and option.secret:
            raise ConfigError(
                f"the root holds a secret, {name}: addresses are shown and handed on",
                hint=f"give it aside, by the environment or as {name}_path",
            )
    netloc = parts.netloc
    if "@" in netloc and not parts.scheme.startswith(("abfs", "wasb")):
        raise ConfigError("the root holds credentials: addresses are shown and handed on", hint="give them aside")
    return parts._replace(netloc=netloc, path=parts.path.rstrip("/"), query=urlencode(query, safe=":/")).geturl()


def kind_of_root(url: str) -> str:
    """The kind of store a root lies in.

    Raises:
        ConfigError: no kind serves its scheme.
    """
    scheme = urlsplit(url).scheme
    return scheme if scheme.startswith("libcloud+") else _kind_of(scheme)


def open_root(
    root: str,
    *,
    options: Mapping[str, str] | None = None,
    containers: ContainerPolicy = ContainerPolicy.NEVER,
    create: RootFormat | None = None,
    measuring: Measuring = Measuring.ALWAYS,
) -> Root:
    """Opens the root at a URL; makes one where there is nothing, if ``create`` says of what.

    The caller closes its store, but that of a root in memory, which is shared within the process.

    Raises:
        NoSuchVolume: there is none.
        RootInUse: something else lies there.
    """
    store, base = open_root_store(root, options=options, create=containers, measuring=measuring)
    address = _directory_address(root, options or {}) if base.scheme == "file" else None
    try:
        if create is None:
            return Root.open(store, base, address=address)
        return Root.open_or_create(store, base, create, address=address)
    except BaseException:
        if base.scheme != "mem":
            store.close()
        raise


def open_root_store(
    root: str,
    *,
    options: Mapping[str, str] | None = None,
    create: ContainerPolicy = ContainerPolicy.NEVER,
    **overrides: Any,
) -> tuple[StowStore, DataReference]:
    """Opens the store a root lies in, and says at which prefix.

    ``options`` are more options of the kind, secrets among them.  Memory roots are shared within the process.
    """
    parts = urlsplit(normal_root(root))
    if parts.scheme == "file":
        config = StoreConfig.from_url(root, options=dict(options or {}))
        prefix = ""
    else:
        # The first part of the path belongs to the root, not to the container.
        config = StoreConfig.from_url(parts._replace(path="").geturl(), options=dict(options or {}))
        prefix = DataReference.parse(parts._replace(query="").geturl()).key
    config = evolve(config, create_container=create, **overrides)
    store = _shared_memory(config) if config.kind == "mem" else StowStore(config)
    base = store.base_container_fqn
    return store, base.join(prefix) if prefix else base


def _directory_address(root: str, options: Mapping[str, str]) -> str | None:
    """A root on the local disk with all of its path, however its URL says it."""
    parts = urlsplit(normal_root(root))
    if not parts.netloc:
        return f"file://{parts.path}"
    above = options.get("path") or dict(parse_qsl(parts.query)).get("path")
    return None if above is None else f"file://{quote(above.rstrip('/'))}/{parts.netloc}"


def _shared_memory(config: StoreConfig) -> StowStore:
    """One store a container name: two volumes of one root in memory must see the same objects."""
    with _memory_lock:
        store = _memory.get(config.container)
        if store is None:
            store = _memory[config.container] = StowStore(evolve(config, create_container=ContainerPolicy.IF_MISSING))
            assert Feature.PERSISTENT not in store.capabilities()
        return store


def _kind_of(scheme: str) -> str:
    from stowstore.locations.registry import known_schemes

    kind = known_schemes(scheme).get(scheme.lower())
    if kind is None:
        raise ConfigError(f"no kind serves the scheme {scheme!r}", hint="see docs/kinds.md")
    return kind
