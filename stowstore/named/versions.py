"""Versions of chunked volumes: in the root of the volume, wherever that is."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from stowstore.named.backings.chunked import address_of
from stowstore.named.record import VolumeRecord
from stowstore.versions.address import VolumeAddress
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.versions.root import Root
from stowstore.volumes.registry import registry

__all__ = ["Version", "forget_volume", "resolve", "root_of"]


@frozen(kw_only=True)
class Version:
    """A version of a volume: its id and its locator."""

    id: str
    locator: VolumeAddress


def root_of(directory: Path, record: VolumeRecord) -> tuple[Root, str]:
    """The root a volume's versions lie in, and what it is called there.

    Raises:
        NoSuchVersion: there is none yet.
    """
    url, name = address_of(directory, record)
    try:
        return registry.root(url), name
    except NoSuchVolume as error:
        raise NoSuchVersion(
            f"volume {record.name} has no version yet", hint=f"make one: stowstore volume snapshot {record.name}"
        ) from error


def resolve(directory: Path, record: VolumeRecord, version: str | None = None) -> Version:
    """The version of a volume that an id, the beginning of one or a tag means; the newest for None.

    Raises:
        NoSuchVersion: there is none.
    """
    root, name = root_of(directory, record)
    url, _ = address_of(directory, record)
    try:
        found = root.resolve(name, version)
    except NoSuchVolume as error:
        raise NoSuchVersion(
            f"volume {record.name} has no version yet", hint=f"make one: stowstore volume snapshot {record.name}"
        ) from error
    return Version(id=found.id, locator=VolumeAddress.locator(url, found.volume, found))


def forget_volume(directory: Path, record: VolumeRecord) -> None:
    """Removes a volume from a store that others may use as well; what only it had becomes garbage there."""
    url, name = address_of(directory, record)
    try:
        root = registry.root(url)
    except NoSuchVolume:
        return
    root.delete_refs(name)
    for version in list(root.version_ids(name)):
        root.delete_version(name, version)
