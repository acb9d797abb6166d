"""What the methods of volumes do, for plain scripts as well: the coroutines run these in a thread."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from attrs import evolve

from datastore.context import deadline
from datastore.errors import ConfigError
from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.durations import parse_duration
from stowstore.index.keys import ROOT_INODE
from stowstore.index.node import NodeCache
from stowstore.index.snapshot import Snapshot, SnapshotRef
from stowstore.mounts.options import MountOptions
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.metastore import choose_kind
from stowstore.namespace.permissions import ROOT, PermissionChecks
from stowstore.versions.address import VolumeAddress
from stowstore.versions.changes import path_changes
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume, NotCommitted, RootInUse, Unrelated, VolumeError
from stowstore.versions.history import walk_history
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.merging import Conflicts
from stowstore.versions.migrating import migrate_version, migrate_volume
from stowstore.versions.root import Root, check_volume_name
from stowstore.versions.session import CommitOptions, Session, SessionOptions, chunk_store
from stowstore.versions.successors import merge_version, restore_version
from stowstore.volumes.files import Files
from stowstore.volumes.history import Change, LogEntry, Merge, VolumeUsage
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.mounting import (
    ask,
    await_end,
    control_answers,
    default_mount_path,
    mount,
    published,
    take_down,
)
from stowstore.volumes.registry import Key, OpenOptions, OpenVolume, registry

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume
    from stowstore.volumes.rw import RWVolume
    from stowstore.volumes.volume import Volume

__all__ = ["BlockingROVolume", "BlockingRWVolume", "BlockingVolume", "BlockingVolumes", "Blocks", "Directory"]

V = TypeVar("V", bound="Volume")
B = TypeVar("B", bound="BlockingVolume[Any]")

#: A directory on the local disk.
Directory = str | os.PathLike[str] | None


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

    def unmount(self, *, timeout: float | None = None, force: bool = False) -> None:
        """See `Volume.unmount`."""
        take_down(self._volume, timeout=timeout, force=force)

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


class BlockingROVolume(BlockingVolume["ROVolume"]):
    """What a version can do."""

    @property
    def files(self) -> Files:
        """The files of the version; opens it when it is not open."""
        opened = registry.find(self._key)
        return opened.files if opened is not None else self.open()

    def open(self, *, cache_dir: Directory = None, timeout: float | None = None) -> Files:
        """See `ROVolume.open`."""
        options = OpenOptions(cache_dir=_directory(cache_dir), read_only=True)
        with registry.changing(self._key), _within(timeout):
            opened = registry.find(self._key) if cache_dir is None else self._again(options)
            if opened is None:
                root, name = self._root(), self._newest()
                opened = self._open_session(options, lambda how: Session.read(root, name, how))
            return opened.files

    def mount(
        self,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        cache_dir: Directory = None,
        timeout: float | None = None,
        attr_cache: float = 60.0,
        entry_cache: float = 60.0,
        dir_entry_cache: float = 60.0,
        *,
        options: MountOptions | None = None,
    ) -> Path:
        """See `ROVolume.mount`."""
        path = _directory(mount_path) or default_mount_path(f"{self._volume.name}@{self._newest().id}")
        opening = {} if cache_dir is None else {"cache_dir": _directory(cache_dir)}
        told = evolve(
            options or MountOptions(), attr_cache=attr_cache, entry_cache=entry_cache, dir_entry_cache=dir_entry_cache
        )
        return mount(self._volume, path, opening, told, timeout=timeout)

    def fork(self, name: str | None = None, meta_dir: Directory = None, timeout: float | None = None) -> RWVolume:
        """See `ROVolume.fork`."""
        with _within(timeout):
            root = self._root()
            manifest = root.load(self._newest())
            forked = _fork_name(root, self._volume.name, name)
            root.set_head(forked, manifest.name, None)
            return _forked(self._volume._working_copy(manifest, forked), meta_dir)

    def migrate_metadata_store_type(
        self, new_metadata_store_type: str, meta_dir: Directory = None, new_meta_dir: Directory = None
    ) -> ROVolume:
        """See `Volume.migrate_metadata_store_type`; a version has no journal for the directories."""
        root = self._root()
        kind = choose_kind(self._volume.metadata_store_type)
        with self._chunks(root) as chunks:
            made = migrate_version(
                root,
                chunks,
                self._newest(),
                kind=kind,
                new_kind=new_metadata_store_type,
                produced_by=current_producer(),
            )
        return self._volume._version(made)

    def __enter__(self) -> Files:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()


class BlockingRWVolume(BlockingVolume["RWVolume"]):
    """What a working copy can do."""

    def open(
        self,
        *,
        meta_dir: Directory = None,
        cache_dir: Directory = None,
        read_only: bool = False,
        upload_delay: str | float | None = None,
        max_uploads: int = 50,
        timeout: float | None = None,
    ) -> Files:
        """See `RWVolume.open`."""
        if type(max_uploads) is not int or max_uploads < 1:
            raise ConfigError(f"max_uploads is {max_uploads!r}", hint="give a number of 1 or more")
        options = self._options(meta_dir, cache_dir, read_only, upload_delay, max_uploads)
        with registry.changing(self._key), _within(timeout):
            plain = options == self._options(None, None, False, None, 50)
            opened = registry.find(self._key) if plain else self._again(options)
            return (opened or self._begin(options)).files

    def mount(
        self,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        cache_dir: Directory = None,
        timeout: float | None = None,
        writeback: bool = True,
        upload_delay: str | float | None = None,
        max_uploads: int = 50,
        attr_cache: float = 60.0,
        entry_cache: float = 60.0,
        dir_entry_cache: float = 60.0,
        read_only: bool = False,
        *,
        options: MountOptions | None = None,
    ) -> Path:
        """See `RWVolume.mount`."""
        path = _directory(mount_path) or default_mount_path(self._volume.name)
        opening: dict[str, Any] = {"read_only": read_only, "max_uploads": max_uploads}
        if not read_only:
            opening |= {"meta_dir": _directory(meta_dir) or registry.preferred_meta_dir(self._key)}
            opening |= {"upload_delay": upload_delay if writeback else None}
        if cache_dir is not None:
            opening["cache_dir"] = _directory(cache_dir)
        told = evolve(
            options or MountOptions(),
            attr_cache=attr_cache,
            entry_cache=entry_cache,
            dir_entry_cache=dir_entry_cache,
            writeback=writeback,
        )
        return mount(self._volume, path, opening, told, timeout=timeout)

    def close(self, *, discard: bool = False) -> None:
        """See `RWVolume.close`."""
        with registry.changing(self._key):
            if registry.mount_of(self._key) is not None:
                self.unmount()
            opened = registry.find(self._key)
            if opened is not None:
                registry.remove(self._key, "was closed", self._volume.locator)
                opened.session.close(discard=discard)

    def commit(
        self,
        message: str | None = None,
        *,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        timeout: float | None = None,
    ) -> ROVolume:
        """See `RWVolume.commit`."""
        where = self._mounted_at(mount_path)
        if where is not None:
            return self._published_by(ask(where, "commit", message=_text(message), timeout=timeout))
        with _within(timeout), self._writing(meta_dir) as opened:
            return self._volume._version(opened.session.commit(_said(message)))

    def finalize(
        self,
        message: str | None = None,
        *,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        timeout: float | None = None,
    ) -> ROVolume:
        """See `RWVolume.finalize`."""
        where = self._mounted_at(mount_path)
        if where is not None:
            try:
                version = self._published_by(ask(where, "finalize", message=_text(message), timeout=timeout))
            except BaseException:
                if not control_answers(where):
                    registry.note_unmount(self._key, "was unmounted, and what could not be published is in its journal")
                raise
            await_end(where)
            registry.note_unmount(self._key, f"was finalized as {version.locator}")
            return version
        with registry.changing(self._key), _within(timeout), self._writing(meta_dir) as opened:
            version = self._volume._version(opened.session.commit(_said(message)))
            registry.remove(self._key, f"was finalized as {version.locator}", version.locator)
            opened.session.close()
            return version

    def fork(
        self,
        name: str | None = None,
        as_: Literal["rw", "ro"] = "rw",
        *,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        timeout: float | None = None,
    ) -> RWVolume | ROVolume:
        """See `RWVolume.fork`."""
        if as_ not in ("rw", "ro"):
            raise ConfigError(f"as_ is {as_!r}", hint="'rw' makes a working copy, 'ro' a version")
        with _within(timeout):
            root = self._root()
            forked = _fork_name(root, self._volume.name, name)
            opened = registry.find(self._key)
            where = self._mounted_at(mount_path)
            if where is not None:
                version = VolumeAddress.parse(ask(where, "fork", name=forked)["locator"]).version_name
            elif opened is None:
                version = self._newest()
                root.set_head(forked, version, None)
            else:
                version = opened.session.branch(forked, _said(None))
            manifest = root.load(version)
            if as_ == "ro":
                return self._volume._version(manifest, forked)
            return _forked(self._volume._working_copy(manifest, forked), meta_dir)

    def merge(
        self, other: Volume | str, *, conflicts: Conflicts | str = Conflicts.FAIL, message: str | None = None
    ) -> Merge:
        """See `RWVolume.merge`."""
        if conflicts not in tuple(Conflicts):
            raise ConfigError(f"conflicts is {conflicts!r}", hint="'fail', 'ours' or 'theirs'")
        theirs = self._resolved(other)
        with self._between_sessions() as root, self._chunks(root) as chunks:
            merged = merge_version(
                root,
                chunks,
                self._volume.name,
                theirs,
                conflicts=Conflicts(conflicts),
                message=message,
                produced_by=current_producer(),
            )
            return Merge(version=self._volume._version(root.load(merged.version)), conflicts=merged.conflicts)

    def restore(self, version: Volume | str, *, message: str | None = None) -> ROVolume:
        """See `RWVolume.restore`."""
        with self._between_sessions() as root, self._chunks(root) as chunks:
            made = restore_version(
                root,
                chunks,
                self._volume.name,
                self._resolved(version),
                message=message,
                produced_by=current_producer(),
            )
            return self._volume._version(root.load(made))

    def migrate_metadata_store_type(
        self, new_metadata_store_type: str, meta_dir: Directory = None, new_meta_dir: Directory = None
    ) -> RWVolume:
        """See `Volume.migrate_metadata_store_type`."""
        with registry.changing(self._key):
            if registry.find(self._key) is not None:
                raise VolumeError(f"volume {self._volume.name!r} is open", hint="close it before its store is moved")
            old = _directory(meta_dir) or self._default_dir("meta")
            new = _directory(new_meta_dir) or old
            root = self._root(create=True)
            kind = choose_kind(self._volume.metadata_store_type)
            with self._chunks(root) as chunks:
                made = migrate_volume(
                    root,
                    chunks,
                    self._volume.name,
                    kind=kind,
                    meta_dir=old,
                    new_kind=new_metadata_store_type,
                    new_meta_dir=new,
                    produced_by=current_producer(),
                )
            moved = self._volume._evolved(metadata_store_type=new_metadata_store_type)
            if made is not None:
                moved = moved._working_copy(made)
            if new is not None and new_meta_dir is not None:
                registry.prefer_meta_dir(self._key, new)
            return moved

    def __enter__(self) -> Files:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mounted_at(self, path: Directory) -> Path | None:
        """Where the volume is mounted: as it was said, or by this process."""
        return _directory(path) or registry.mount_of(self._key)

    def _published_by(self, answer: dict[str, Any]) -> ROVolume:
        """The version that a daemon says it has published."""
        registry.note_version(self._key, answer["locator"])
        return self._volume._version(published(self._volume, answer["locator"]))

    def _newest(self) -> VersionName:
        opened = registry.find(self._key)
        if opened is not None:
            if opened.session.base is None:
                raise NotCommitted(f"volume {self._volume.name!r} has no version yet", hint="commit first")
            return opened.session.base.name
        try:
            return self._root().head(self._volume.name)
        except NoSuchVolume as error:
            raise NotCommitted(f"volume {self._volume.name!r} has no version yet", hint="commit first") from error

    def _options(
        self,
        meta_dir: Directory,
        cache_dir: Directory,
        read_only: bool,
        upload_delay: str | float | None,
        max_uploads: int,
    ) -> OpenOptions:
        if read_only:
            return OpenOptions(cache_dir=_directory(cache_dir), read_only=True, max_uploads=max_uploads)
        return OpenOptions(
            meta_dir=_directory(meta_dir) or self._default_dir("meta"),
            cache_dir=_directory(cache_dir) or self._default_dir("cache"),
            upload_delay=_seconds(upload_delay),
            max_uploads=max_uploads,
        )

    def _default_dir(self, part: str) -> Path | None:
        """Below the user's cache directory, one for each volume of each root; what is in memory is kept there."""
        if part == "meta" and (preferred := registry.preferred_meta_dir(self._key)) is not None:
            return preferred
        if self._volume.storage == "mem":
            return None
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.blake2b(self._volume.bucket.encode(), digest_size=6).hexdigest()
        return cache / "stowstore" / "volumes" / f"{self._volume.name}-{digest}" / part

    def _begin(self, options: OpenOptions) -> OpenVolume:
        """Opens a volume that is not open."""
        volume = self._volume
        if options.read_only:
            name = self._newest()
            return self._open_session(options, lambda how: Session.read(self._root(), name, how))
        root = self._root(create=volume.index is None)
        head = root.load(root.head(volume.name)) if root.has_volume(volume.name) else None
        if head is not None and volume.index is None and not registry.was_open(self._key):
            raise RootInUse(
                f"there is a volume {volume.name!r} in {volume.bucket} already",
                hint=f"go on with it by Volume.at({f'{volume.bucket}#{volume.name}'!r}), or choose another name",
            )
        if head is not None and head.metadata_store_type not in (None, choose_kind(volume.metadata_store_type)):
            raise VolumeError(
                f"volume {volume.name!r} was moved to the metadata store {head.metadata_store_type!r}",
                hint=f"use what the migration returned, or Volume.at({f'{volume.bucket}#{volume.name}'!r})",
            )
        opened = self._open_session(options, lambda how: Session.write(root, volume.name, how))
        if head is None and opened.session.base is None:
            _hand_over(opened.session.files)
        return opened

    @contextmanager
    def _writing(self, meta_dir: Directory) -> Iterator[OpenVolume]:
        """The open volume; with a ``meta_dir`` and nothing open, what the journal there holds, for this once."""
        wanted = _directory(meta_dir)
        opened = registry.find(self._key)
        if opened is None and wanted is not None:
            self.open(meta_dir=wanted)
            try:
                yield registry.require(self._key)
            finally:
                self.close()
            return
        opened = registry.require(self._key)
        if wanted is not None and opened.options.meta_dir != wanted:
            raise VolumeError(
                f"volume {self._volume.name!r} is open with its journal in {opened.options.meta_dir}, not in {wanted}",
                hint="leave meta_dir out",
            )
        yield opened

    @contextmanager
    def _between_sessions(self) -> Iterator[Root]:
        """With everything committed and nobody writing, for a version that is made elsewhere; opens again after it."""
        with registry.changing(self._key):
            where = registry.mount_of(self._key)
            if where is not None:
                raise VolumeError(f"volume {self._volume.name!r} is mounted at {where}", hint="unmount it first")
            opened = registry.find(self._key)
            was_open = opened is not None
            if opened is None:
                self.open()
                opened = registry.require(self._key)
            session = opened.session
            if session.read_only:
                raise VolumeError(f"volume {self._volume.name!r} is open for reading only", hint="close it first")
            if session.files.open_handles:
                raise VolumeError(f"volume {self._volume.name!r} has open files", hint="close them first")
            if session.base is None or session.files.changed_inodes:
                session.commit(_said(None))
            registry.remove(self._key, "is between two versions", self._volume.locator)
            session.close()
            try:
                yield session.root
            finally:
                if was_open:
                    again = self._begin(opened.options)
                    # Whoever holds the files of the volume goes on with them.
                    registry.add(evolve(again, files=opened.files))
                else:
                    registry.remove(self._key, "was closed", None)


def _hand_over(files: FileSystem) -> None:
    """Gives the root directory of a new volume to the user who makes it."""
    uid, gid = os.geteuid(), os.getegid()
    found = files.getattr(ROOT_INODE)
    if (found.uid, found.gid) == (0, 0) != (uid, gid) and stat.S_ISDIR(found.mode):
        files.setattr(ROOT_INODE, AttributeChanges(uid=uid, gid=gid), ROOT)


def _fork_name(root: Root, volume: str, name: str | None) -> str:
    if name is None:
        return f"{volume[:80]}-fork-{secrets.token_hex(4)}"
    if root.has_volume(check_volume_name(name)):
        raise RootInUse(f"there is a volume {name!r} already", hint="choose another name for the fork")
    return name


def _forked(volume: RWVolume, meta_dir: Directory) -> RWVolume:
    wanted = _directory(meta_dir)
    if wanted is not None:
        registry.prefer_meta_dir(volume._key(), wanted)
    return volume


def _said(message: str | None) -> CommitOptions:
    if message is not None and not isinstance(message, str):
        raise ConfigError(f"a message is text, not {type(message).__name__}")
    return CommitOptions(message=message, produced_by=current_producer())


def _text(message: object) -> str | None:
    """A message that goes over a socket."""
    return _said(message).message  # type: ignore[arg-type]


def _directory(path: Directory) -> Path | None:
    return None if path is None else Path(path).expanduser().absolute()


def _seconds(delay: str | float | None) -> float:
    if delay is None:
        return 0.0
    seconds = parse_duration(delay) / 1e9 if isinstance(delay, str) else float(delay)
    if seconds < 0:
        raise ConfigError(f"upload_delay is {delay!r}", hint="give a duration such as '30s', or none")
    return seconds


def _within(timeout: float | None) -> Any:
    return nullcontext() if timeout is None else deadline(timeout)
