"""The kinds of location there are: those of this package and whatever the environment's entry points add."""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from datastore.errors import ConfigError
from stowstore.locations.base import Kind, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "known_kinds", "known_schemes", "load_kind", "register_kind", "register_scheme"]

#: A third party's distribution names its `Kind` here: ``mykind = mypackage.module:KIND``.
ENTRY_POINT_GROUP = "stowstore.kinds"

#: Modules are imported when their kind is asked for.
_BUILT_IN = {
    "mem": "stowstore.locations.memory:KIND",
    "file": "stowstore.locations.local:KIND",
    "s3": "stowstore.locations.s3:KIND",
    "gs": "stowstore.locations.gcs:KIND",
    "abfs": "stowstore.locations.azure:KIND",
    "sw": "stowstore.locations.swift:KIND",
    "redis": "stowstore.locations.redis:KIND",
    "libcloud": "stowstore.locations.libcloud:KIND",
}

#: Other names of the kinds, upstream's among them.
_ALIASES = {
    "memory": "mem",
    "local": "file",
    "minio": "s3",
    "google": "gs",
    "gcs": "gs",
    "azure": "abfs",
    "wasb": "abfs",
    "swift": "sw",
}

_SCHEMES = {
    "mem": "mem",
    "file": "file",
    "s3": "s3",
    "s3a": "s3",
    "minio": "s3",
    "gs": "gs",
    "abfs": "abfs",
    "abfss": "abfs",
    "wasb": "abfs",
    "wasbs": "abfs",
    "sw": "sw",
    "redis": "redis",
    "rediss": "redis",
}


class _Registry:
    """Kinds and schemes of this process; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, Kind] = {}
        self._schemes = dict(_SCHEMES)
        self._found: dict[str, EntryPoint] | None = None

    def register_kind(self, kind: Kind) -> None:
        with self._lock:
            if kind.name in self._kinds or kind.name in _BUILT_IN or kind.name in _ALIASES:
                raise ConfigError(f"kind [{kind.name}] already registered")
            self._claim(kind)

    def register_scheme(self, scheme: str, kind: str) -> None:
        scheme = scheme.lower()
        with self._lock:
            known = self._schemes.setdefault(scheme, kind)
        if known != kind:
            raise ConfigError(f"scheme [{scheme}] already registered to another kind: {known}")

    def load(self, name: str) -> Kind:
        base, plus, _ = name.partition("+")
        name = base if plus else name
        name = _ALIASES.get(name, name)
        with self._lock:
            kind = self._kinds.get(name)
            if kind is not None:
                return kind
        loader = self._loader(name)
        if loader is None:
            raise ConfigError(
                f"unsupported stow.kind [{name}]: unknown kind {name!r}", hint=nearest(name, self.names())
            )
        kind = loader()
        with self._lock:
            if name not in self._kinds:
                self._claim(kind)
            return self._kinds[name]

    def names(self) -> list[str]:
        with self._lock:
            known = set(self._kinds)
        return sorted({*known, *_BUILT_IN, *_ALIASES, *self._entry_points()})

    def schemes(self) -> dict[str, str]:
        with self._lock:
            return dict(self._schemes)

    def kind_of_scheme(self, scheme: str) -> str | None:
        """The kind that serves a scheme; plug-ins are asked for theirs when no other has it."""
        with self._lock:
            known = self._schemes.get(scheme)
        if known is not None:
            return known
        if scheme.startswith("libcloud+"):
            return "libcloud"
        for name in self._entry_points():
            self.load(name)
        with self._lock:
            return self._schemes.get(scheme)

    def _loader(self, name: str) -> Callable[[], Kind] | None:
        find: Callable[[], Any]
        target = _BUILT_IN.get(name)
        if target is not None:
            find = partial(pkgutil.resolve_name, target)
        else:
            point = self._entry_points().get(name)
            if point is None:
                return None
            target, find = point.value, point.load

        def load() -> Kind:
            try:
                kind = find()
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"kind {name!r} cannot be loaded from {target!r}: {error}") from error
            if not isinstance(kind, Kind):
                raise ConfigError(f"entry point {target!r} of {ENTRY_POINT_GROUP} is no Kind")
            return kind

        return load

    def _entry_points(self) -> dict[str, EntryPoint]:
        with self._lock:
            if self._found is None:
                from importlib.metadata import entry_points

                self._found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
            return self._found

    def _claim(self, kind: Kind) -> None:
        for scheme in kind.schemes:
            owner = self._schemes.setdefault(scheme.lower(), kind.name)
            if owner != kind.name:
                raise ConfigError(f"scheme [{scheme}] already registered to another kind: {owner}")
        self._kinds[kind.name] = kind


_registry = _Registry()


def load_kind(name: str) -> Kind:
    """The kind of a name, an alias, or ``libcloud+<provider>``; imports its module on first use.

    Raises:
        ConfigError: there is none; the hint names the nearest.
    """
    return _registry.load(name)


def register_kind(kind: Kind) -> None:
    """Adds a kind to this process, for tests and applications that do without an entry point.

    Raises:
        ConfigError: its name or one of its schemes is taken.
    """
    _registry.register_kind(kind)


def register_scheme(scheme: str, kind: str) -> None:
    """Lets a kind serve one more scheme; the same pair again is no error.

    Raises:
        ConfigError: the scheme belongs to another kind.
    """
    _registry.register_scheme(scheme, kind)


def known_kinds() -> list[str]:
    """The names of every kind there is, aliases included, sorted."""
    return _registry.names()


def known_schemes(scheme: str | None = None) -> dict[str, str]:
    """Schemes and their kinds; given one, only it (looked for among the plug-ins too)."""
    if scheme is None:
        return _registry.schemes()
    kind = _registry.kind_of_scheme(scheme.lower())
    return {} if kind is None else {scheme.lower(): kind}
