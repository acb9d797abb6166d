"""What the methods of volumes do, for plain scripts as well: the coroutines run these in a thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from datastore.errors import ConfigError
from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.index.node import NodeCache
from stowstore.index.snapshot import Snapshot, SnapshotRef
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import PermissionChecks
from stowstore.versions.address import VolumeAddress
from stowstore.versions.changes import path_changes
from stowstore.versions.errors import NoSuchVersion, Unrelated, VolumeError
from stowstore.versions.history import walk_history
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.volumes.arguments import Directory, directory
from stowstore.volumes.files import Files
from stowstore.volumes.history import Change, LogEntry, VolumeUsage
from stowstore.volumes.mounting import take_down
from stowstore.volumes.registry import Key, OpenOptions, OpenVolume, registry

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume
    from stowstore.volumes.volume import Volume

__all__ = ["BlockingVolume", "BlockingVolumes", "Blocks"]

V = TypeVar("V", bound="Volume")
B = TypeVar("B", bound="BlockingVolume[Any]")


class Blocks(Generic[B]):
    """``blocking`` of a class of volumes and of its instances."""

    def __init__(self, kind: type[B]) -> None:
        self._kind = kind

    @overload
    def __get__(self, volume: None, owner: type[Volume]) -> BlockingVolumes: ...
    @overload
    def __get__(self, volume: Volume, owner: type[Volume]) -> B: ...
    def __get__(self, volume: Volume | None, owner: type[Volume]) -> B | BlockingVolumes:
        return BlockingVolumes(owner) if volume is None else self._kind(volume)


class BlockingVolumes:
    """``Volume.blocking``: finding volumes."""

    def __init__(self, kind: type[Volume]) -> None:
        self._kind = kind

    def from_locator(self, text: str) -> ROVolume:
        """See `Volume.from_locator`."""
        address = VolumeAddress.parse(text)
        if address.digest is None:
            raise ConfigError(f"{text!r} is no locator", hint="a locator is ROOT#NAME@VERSION:DIGEST; see Volume.at")
        return self._found(address, registry.root(address.root).load(address.version_name))

    def at(self, address: str) -> Volume:
        """See `Volume.at`."""
        parsed = VolumeAddress.parse(address)
        if parsed.digest is not None:
            return self.from_locator(address)
        root = registry.root(parsed.root)
        manifest = root.load(root.resolve(parsed.volume, parsed.version))
        found = self._found(parsed, manifest)
        return found._working_copy(manifest) if parsed.version is None else found

    def _found(self, address: VolumeAddress, manifest: Manifest) -> ROVolume:
        locator = VolumeAddress.locator(address.root, manifest.volume, manifest.name)
        # A value with the locator alone knows how to describe itself.
        bare = self._kind.validated(str(locator)) if self._kind.access != "rw" else None
        if bare is None:
            raise ConfigError(f"{locator} is a version, which cannot be written", hint="fork it; or use Volume.at")
        return bare._version(manifest, address.volume)


class BlockingVolume(Generic[V]):
    """What both kinds of volume can do."""

    def __init__(self, volume: Any) -> None:
        self._volume: V = volume

    @property
    def files(self) -> Files:
        """The files of the open volume.

        Raises:
            VolumeError: it is not open.
        """
        return registry.require(self._key).files

    @property
    def mount_path(self) -> Path | None:
        """See `Volume.mount_path`."""
        return registry.mount_of(self._key)

    def unmount(self, mount_path: Directory = None, *, timeout: float | None = None, force: bool = False) -> None:
        """See `Volume.unmount`."""
        take_down(self._volume, directory(mount_path), timeout=timeout, force=force)

    def close(self) -> None:
        """See `Volume.close`."""
        with registry.changing(self._key):
            if registry.mount_of(self._key) is not None:
                self.unmount()
            opened = registry.find(self._key)
            if opened is not None:
                registry.remove(self._key, "was closed", self._volume.locator)
                opened.session.close()

    def log(self, limit: int | None = None) -> list[LogEntry]:
        """See `Volume.log`."""
        found: list[LogEntry] = []
        for manifest in walk_history(self._root(), self._newest(), limit=limit):
            parents = tuple(
                str(VolumeAddress.locator(self._volume.bucket, parent.volume, parent)) for parent in manifest.parents
            )
            version = self._volume._version(manifest, manifest.volume)
            found.append(LogEntry(id=manifest.id, version=version, created=manifest.created, parents=parents))
        return found

    def diff(self, other: Volume | str | None = None) -> list[Change]:
        """See `Volume.diff`."""
        root = self._root()
        new = root.load(self._newest())
        if other is not None:
            old = root.load(self._resolved(other)).snapshot
        else:
            old = root.load(new.parents[0]).snapshot if new.parents else SnapshotRef()
        with self._chunks(root) as chunks:
            nodes = NodeCache(chunks.index_reader)
            return list(path_changes(Snapshot(old, nodes), Snapshot(new.snapshot, nodes)))

    def tag(self, tag: str, version: str | None = None) -> None:
        """See `Volume.tag`."""
        name = self._newest() if version is None else self._resolved(version)
        root = self._root()
        root.load(name)
        root.set_tag(self._volume.name, tag, name)

    def untag(self, tag: str) -> None:
        """See `Volume.untag`."""
        self._root().delete_tag(self._volume.name, tag)

    def tags(self) -> dict[str, str]:
        """See `Volume.tags`."""
        return {
            tag: str(VolumeAddress.locator(self._volume.bucket, name.volume, name))
            for tag, name in self._root().tags(self._volume.name).items()
        }

    def usage(self) -> VolumeUsage:
        """See `Volume.usage`."""
        root = self._root()
        manifest = root.load(self._newest())
        opened = registry.find(self._key)
        used, inodes, uncommitted = manifest.statistics.used_bytes, manifest.statistics.inode_count, 0
        if opened is not None and not opened.session.read_only:
            used, inodes = opened.session.files.usage()
            uncommitted = opened.session.files.changed_inodes
        with self._chunks(root) as chunks:
            stored = {kind: sum(pack.size for pack in chunks.list_packs(kind)) for kind in PackKind}
        return VolumeUsage(
            used_bytes=used,
            inode_count=inodes,
            index_bytes=manifest.statistics.index_bytes,
            uncommitted_inodes=uncommitted,
            versions=sum(1 for _ in root.version_ids(self._volume.name)),
            root_data_bytes=stored[PackKind.DATA],
            root_index_bytes=stored[PackKind.INDEX],
        )

    @property
    def _key(self) -> Key:
        return self._volume._key()

    def _root(self, *, create: bool = False) -> Root:
        return registry.root(self._volume.bucket, self._volume.region, create=create)

    def _chunks(self, root: Root) -> ChunkStore:
        return chunk_store(root, SessionOptions(key=registry.key_source(self._volume.bucket)))

    def _newest(self) -> VersionName:
        """The version that is meant when none is said."""
        return VolumeAddress.parse(self._volume._require_index()).version_name

    def _resolved(self, other: Volume | str) -> VersionName:
        """The version another volume stands for, or the text of an address, a version or a tag."""
        if not isinstance(other, str):
            self._same_root(other.bucket)
            return other.blocking._newest()
        root = self._root()
        if "#" in other:
            address = VolumeAddress.parse(other)
            self._same_root(address.root)
            return address.version_name if address.digest else root.resolve(address.volume, address.version)
        try:
            return root.resolve(self._volume.name, other)
        except NoSuchVersion:
            # Versions from before a fork are those of the volume it came from.
            for manifest in walk_history(root, self._newest()):
                if manifest.id == other.upper():
                    return manifest.name
            raise

    def _same_root(self, root: str) -> None:
        if root != self._volume.bucket:
            raise Unrelated(
                f"{root} is another root than {self._volume.bucket}",
                hint="only versions of one root have a past in common",
            )

    def _open_session(
        self, options: OpenOptions, begin: Callable[[SessionOptions], Session], key: Key | None = None
    ) -> OpenVolume:
        session = begin(
            SessionOptions(
                meta_dir=options.meta_dir,
                cache_dir=options.cache_dir,
                metadata_store_type=self._volume.metadata_store_type,
                max_uploads=options.max_uploads,
                upload_delay=options.upload_delay,
                # Whoever has the store's credentials has all bytes; modes are for whoever mounts the volume.
                permissions=PermissionChecks.KERNEL,
                key=registry.key_source(self._volume.bucket),
            )
        )
        key = key or self._key

        def source() -> FileSystem:
            return registry.require(key).session.files

        opened = OpenVolume(key, options, session, Files(source))
        registry.add(opened)
        return opened

    def _again(self, options: OpenOptions) -> OpenVolume | None:
        """The volume if it is open already, in the same way."""
        opened = registry.find(self._key)
        if opened is not None and opened.options != options:
            raise VolumeError(
                f"volume {self._volume.name!r} is open already, with other options",
                hint="close it first, or open it without any",
            )
        return opened
