"""How a volume is opened, what a version says of itself, and the chunks of a root by such options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen

from datastore.errors import PermissionDenied
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.encryption import Encryption, KeySource
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.store import ChunkStore
from stowstore.namespace.permissions import PermissionChecks
from stowstore.versions.lease import DEFAULT_LEASE_SECONDS
from stowstore.versions.manifest import VersionName
from stowstore.versions.root import Root

__all__ = ["CommitOptions", "SessionOptions", "chunk_store"]


@frozen(kw_only=True)
class SessionOptions:
    """How a volume is opened; sizes in bytes, times in seconds.

    ``meta_dir`` and ``cache_dir`` None keep journal and staged data in memory: what is not committed is lost with the
    process.  ``key`` is the root's key where it is encrypted.
    """

    meta_dir: Path | None = None
    cache_dir: Path | None = None
    metadata_store_type: str | None = None
    max_uploads: int = 50
    upload_delay: float = 0.0
    memory_cache_bytes: int = 256 << 20
    disk_cache_bytes: int = 10 << 30
    node_cache_bytes: int = 64 << 20
    staging_bytes: int = 10 << 30
    lease_seconds: float = DEFAULT_LEASE_SECONDS
    permissions: PermissionChecks = PermissionChecks.HERE
    key: KeySource | None = field(default=None, repr=False)


@frozen(kw_only=True)
class CommitOptions:
    """What a version says of itself."""

    message: str | None = None
    produced_by: Any = None
    parent_produced_by: Any = None
    parents: tuple[VersionName, ...] = ()


def chunk_store(root: Root, options: SessionOptions) -> ChunkStore:
    """The chunks of a root, with the caches and the key of a session's options; whoever opened it closes it."""
    codec = BlockCodec() if root.format.encryption is None else _unlocked(root, options)
    disk = None
    if options.cache_dir is not None:
        disk = DiskCache(options.cache_dir / "blocks", max_bytes=options.disk_cache_bytes)
    return ChunkStore(root.store, root.base, codec, memory=MemoryCache(options.memory_cache_bytes), disk=disk)


def _unlocked(root: Root, options: SessionOptions) -> BlockCodec:
    assert root.format.encryption is not None
    if options.key is None:
        raise PermissionDenied(
            "the root is encrypted", hint="give its key: bytes, env:NAME, file:PATH, or a passphrase"
        )
    return BlockCodec(Encryption.from_data(dict(root.format.encryption)).unlock(options.key))
