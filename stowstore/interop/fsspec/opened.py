"""The volumes that paths of ``stowvol://`` lead into, opened when they are first needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from datastore.errors import ConfigError, NotFound, PermissionDenied
from stowstore.chunks.block import CorruptBlock
from stowstore.chunks.encryption import KeySource
from stowstore.config.values import option_texts
from stowstore.interop.fsspec.urls import VolumePath
from stowstore.versions.address import VolumeAddress, normal_root
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.volumes.files import Files
from stowstore.volumes.registry import Key, registry
from stowstore.volumes.ro import ROVolume
from stowstore.volumes.rw import RWVolume
from stowstore.volumes.volume import Access, Volume

__all__ = ["OpenedVolume", "OpenedVolumes", "explained"]


@frozen
class OpenedVolume:
    """A volume that paths lead into."""

    top: str
    volume: ROVolume | RWVolume
    key: Key

    @property
    def files(self) -> Files:
        """Its files; a version is opened again when somebody has closed it."""
        opened = registry.find(self.key)
        if opened is not None:
            return opened.files
        return self.volume.blocking.open()


class OpenedVolumes:
    """The volumes of one file system, by the first part of their paths; thread-safe.

    ``pinned`` are the versions that paths without one stand for: the newest when such a path was first used.
    """

    def __init__(self, *, query: str, options: Mapping[str, Any], access: Access, key: KeySource | None) -> None:
        self.pinned: dict[str, str] = {}
        self._query = query
        self._options = options
        self._access = access
        self._key = key
        self._volumes: dict[str, OpenedVolume] = {}

    def written(self, named: VolumePath) -> RWVolume:
        """The volume a path leads into, to publish it.

        Raises:
            ConfigError: the path names a version.
        """
        volume = self.opened(named).volume
        if isinstance(volume, ROVolume):
            raise ConfigError(
                f"stowvol://{named} is a version, and versions never change", hint="open its volume with access='rw'"
            )
        return volume

    def forget(self, named: VolumePath) -> OpenedVolume | None:
        """Takes out a volume that is to be closed, or was."""
        return self._volumes.pop(named.top, None)

    def opened(self, named: VolumePath) -> OpenedVolume:
        """The volume a path leads into.

        Raises:
            ConfigError: the path names a version, and is to be written.
            NoSuchVersion, NoSuchVolume: there is none.
        """
        found = self._volumes.get(named.top)
        if found is None:
            with _with_credentials_in_mind():
                volume = self._volume(named)
                found = OpenedVolume(named.top, volume, volume._key())
                if registry.find(found.key) is None:
                    volume.blocking.open()
            found = self._volumes.setdefault(named.top, found)
        return found

    def _volume(self, named: VolumePath) -> ROVolume | RWVolume:
        address = VolumeAddress.parse(self.pinned.get(named.top) or named.address(self._query))
        self._introduce(address.root)
        if self._access is Access.RW:
            if address.version is not None:
                raise ConfigError(
                    f"stowvol://{named.top} is a version, and versions never change",
                    hint="leave the version out to write the volume, or fork the version",
                )
            try:
                written: Any = Volume.blocking.at(str(address))
            except NoSuchVolume:
                written = Volume.new(address.volume, address.root)
            found: RWVolume = written
            return found
        volume: Any = Volume.blocking.at(str(address))
        if not isinstance(volume, ROVolume):
            volume = Volume.blocking.from_locator(volume.index)
        self.pinned[named.top] = volume.index
        version: ROVolume = volume
        return version

    def _introduce(self, root: str) -> None:
        """Tells this process what the root needs that its URL must not hold."""
        if not self._options and self._key is None:
            return
        root = normal_root(root)
        options = option_texts(self._options)
        if dict(registry.options_of(root)) != dict(options) or registry.key_source(root) != self._key:
            Volume.configure(root, options=options, key=self._key)


@contextmanager
def explained(opened: OpenedVolume) -> Iterator[None]:
    """Tells a version that has been deleted meanwhile from one that is damaged."""
    try:
        yield
    except (CorruptBlock, NotFound) as error:
        volume = opened.volume
        if not isinstance(volume, ROVolume) or isinstance(error, NoSuchVersion):
            raise
        name = volume.blocking._newest()
        try:
            registry.root(volume.bucket, volume.region).load(name)
        except NoSuchVersion:
            raise NoSuchVersion(
                f"version {name.id} of volume {name.volume!r} was deleted while it was read",
                op="read",
                reference=volume.index,
                hint="read a version that is kept: tag it, or have it pruned when its readers are done",
            ) from error
        raise


@contextmanager
def _with_credentials_in_mind() -> Iterator[None]:
    """Says what a worker may be missing where a store refuses it."""
    try:
        yield
    except PermissionDenied as error:
        more = "no credentials travel in a URL or locator: set them where this runs, or give them as storage_options"
        error.hint = f"{error.hint}; {more}" if error.hint else more
        raise
