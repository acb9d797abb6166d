"""What a version can do, for plain scripts as well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from stowstore.mounts.options import MountOptions
from stowstore.namespace.metastore import choose_kind
from stowstore.versions.migrating import migrate_version
from stowstore.versions.session import Session
from stowstore.volumes.arguments import Directory, directory, fork_name, forked_into, within
from stowstore.volumes.blocking import BlockingVolume
from stowstore.volumes.files import Files
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.mounting import default_mount_path, mount
from stowstore.volumes.registry import OpenOptions, registry
from stowstore.volumes.watching import tell

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume
    from stowstore.volumes.rw import RWVolume

__all__ = ["BlockingROVolume"]


class BlockingROVolume(BlockingVolume["ROVolume"]):
    """What a version can do."""

    @property
    def files(self) -> Files:
        """The files of the version; opens it when it is not open."""
        opened = registry.find(self._key)
        return opened.files if opened is not None else self.open()

    def open(self, *, cache_dir: Directory = None, timeout: float | None = None) -> Files:
        """See `ROVolume.open`."""
        options = OpenOptions(cache_dir=directory(cache_dir), read_only=True)
        with registry.changing(self._key), within(timeout):
            opened = registry.find(self._key) if cache_dir is None else self._again(options)
            if opened is None:
                root, name = self._root(), self._newest()
                opened = self._open_session(options, lambda how: Session.read(root, name, how))
                tell(self._volume, None)
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
        path = directory(mount_path) or default_mount_path(f"{self._volume.name}@{self._newest().id}")
        opening = {} if cache_dir is None else {"cache_dir": directory(cache_dir)}
        told = evolve(
            options or MountOptions(), attr_cache=attr_cache, entry_cache=entry_cache, dir_entry_cache=dir_entry_cache
        )
        return mount(self._volume, path, opening, told, timeout=timeout)

    def fork(self, name: str | None = None, meta_dir: Directory = None, timeout: float | None = None) -> RWVolume:
        """See `ROVolume.fork`."""
        with within(timeout):
            root = self._root()
            manifest = root.load(self._newest())
            forked = fork_name(root, self._volume.name, name)
            root.make_volume(forked, manifest.name)
            return forked_into(self._volume._working_copy(manifest, forked), meta_dir)

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
