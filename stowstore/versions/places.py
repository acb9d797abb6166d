"""A root as another process opens it: by its address, with credentials of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from attrs import field, frozen

from datastore.errors import ConfigError
from stowstore.chunks.store import ChunkStore
from stowstore.config import ContainerPolicy
from stowstore.locations.registry import load_kind
from stowstore.versions.address import kind_of_root, normal_root, open_root
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.root import Root
from stowstore.versions.ulid import new_ulid

__all__ = ["RootPlace", "public_options"]

#: What each process keeps of blocks it has read, bytes: pieces of a job seldom read one twice.
_CACHE_BYTES = 64 << 20


@frozen(kw_only=True)
class RootPlace:
    """The packs of a root, for one run of a job; holds no secret.

    ``key`` says where a process finds the key of an encrypted root: ``env:NAME`` or ``file:PATH``.
    """

    url: str
    options: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    run: str = field(factory=new_ulid)

    @classmethod
    def of(cls, url: str, options: Mapping[str, str] | None = None, key: str | None = None) -> Self:
        """The place of a root; secret options are left out, each process has its own.

        Raises:
            ConfigError: other processes cannot see the root, or the key is no name of one.
        """
        url = normal_root(url)
        if key is not None and not key.startswith(("env:", "file:")):
            raise ConfigError("the key itself is not sent to workers", hint="name it, env:NAME or file:PATH")
        return cls(url=url, options=public_options(url, options or {}), key=key)

    @property
    def session_options(self) -> SessionOptions:
        """How a process opens what lies in the root: past all caches of its own."""
        return SessionOptions(key=self.key, memory_cache_bytes=_CACHE_BYTES)

    def open_root(self) -> Root:
        """Opens the root; its store stays open as long as somebody has it.

        Raises:
            NoSuchVolume: there is none, as far as this process can see.
        """
        return open_root(self.url, options=dict(self.options), containers=ContainerPolicy.NEVER)

    def open(self) -> ChunkStore:
        """Opens its packs."""
        return chunk_store(self.open_root(), self.session_options)


def public_options(url: str, options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The options of a store that are no secrets, as they may be sent to other processes.

    Raises:
        ConfigError: the store lies in the memory of this process.
    """
    kind = kind_of_root(url)
    if kind == "mem":
        raise ConfigError(f"{url} lies in the memory of this process", hint="use a store that workers can see")
    declared = load_kind(kind).options
    secret = {name for name, option in declared.items() if option.secret}
    secret |= {alias for name in secret for alias in declared[name].aliases}
    return tuple(sorted((name, value) for name, value in options.items() if name not in secret))
