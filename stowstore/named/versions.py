"""Versions of chunked volumes: made, listed and gone back to, in the root of the volume, wherever that is.

A volume that is mounted is asked through its daemon; one that is not is opened here for as long as it takes.  Whoever
calls keeps everybody else from changing the volume meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from stowstore.mounts import control
from stowstore.named.backings.chunked import ChunkedBacking, address_of, counted, opening_of, volume_of
from stowstore.named.errors import BackingUnsupported, BelowUsed
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.versions.address import VolumeAddress, normal_root
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.versions.root import Root
from stowstore.versions.session import CommitOptions, Session
from stowstore.volumes import LogEntry, RWVolume, Volume
from stowstore.volumes.blocking_rw import hand_over
from stowstore.volumes.registry import registry

__all__ = [
    "Version",
    "forget_volume",
    "log_of",
    "opened",
    "require_versions",
    "reserve",
    "resolve",
    "restore_version",
    "root_of",
    "take_snapshot",
]


@frozen(kw_only=True)
class Version:
    """A version of a volume: its id and its locator."""

    id: str
    locator: VolumeAddress


def require_versions(record: VolumeRecord) -> None:
    """Refuses a volume whose backing has no versions.

    Raises:
        BackingUnsupported: it has none.
    """
    if record.backing is not BackingKind.CHUNKED:
        raise BackingUnsupported(
            f"volume {record.name} has no versions: its backing is {record.backing}",
            hint="back it up into a tar file, or make it anew where FUSE is available",
        )


def root_of(directory: Path, record: VolumeRecord) -> tuple[Root, str]:
    """The root a volume's versions lie in, and what it is called there.

    Raises:
        NoSuchVersion: there is none yet.
    """
    require_versions(record)
    url, name = address_of(directory, record)
    try:
        return registry.root(url), name
    except NoSuchVolume as error:
        raise _none_yet(record) from error


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
        raise _none_yet(record) from error
    return Version(id=found.id, locator=VolumeAddress.locator(url, found.volume, found))


@contextmanager
def opened(directory: Path, record: VolumeRecord) -> Iterator[RWVolume]:
    """A volume that is not mounted, open in this process, with its limits; its counters are written afterwards."""
    volume = RWVolume.from_dict(volume_of(directory, record))
    # The registry says that it exists, so it is not held to be new.
    registry.remove(volume._key(), "is not open yet", None)
    volume.blocking.open(**opening_of(directory, record))
    try:
        files = registry.require(volume._key()).session.files
        files.set_limits(limit_bytes=record.size_bytes, limit_inodes=record.inodes or 0)
        yield volume
    finally:
        found = registry.find(volume._key())
        if found is not None:
            counted(directory, record, *found.session.files.usage())
        volume.blocking.close()


def take_snapshot(directory: Path, record: VolumeRecord, message: str | None, tag: str | None = None) -> str:
    """Publishes the present state as a version and returns its locator; equal states are one version."""
    require_versions(record)
    backing = ChunkedBacking()
    if record.type is VolumeType.MEMORY and not backing.is_attached(directory):
        # Nothing is in RAM: an empty volume, or what was committed last.
        backing.attach(directory, record)
    if backing.is_attached(directory):
        locator = str(control.ask(directory / "data", "commit", message=message)["locator"])
    else:
        with opened(directory, record) as volume:
            locator = str(volume.blocking.commit(message).locator)
    if tag is not None:
        root, name = root_of(directory, record)
        root.set_tag(name, tag, VolumeAddress.parse(locator).version_name)
    return locator


def restore_version(directory: Path, record: VolumeRecord, version: str, message: str | None) -> str:
    """Makes an earlier state of a volume that is not mounted its newest version; returns that one's locator.

    Raises:
        NoSuchVersion: there is none.
        BelowUsed: the volume has become too small for it.
    """
    found = resolve(directory, record, version)
    root, _ = root_of(directory, record)
    used = root.load(found.locator.version_name).statistics.used_bytes
    if used > record.size_bytes:
        raise BelowUsed(
            f"version {found.id} holds {used} bytes, and the volume has room for {record.size_bytes}",
            requested=record.size_bytes,
            used=used,
            hint=f"stowstore volume resize {record.name} {used}",
        )
    with opened(directory, record) as volume:
        return str(volume.blocking.restore(str(found.locator), message=message).locator)


def log_of(directory: Path, record: VolumeRecord, limit: int | None = None) -> list[LogEntry]:
    """The versions of a volume and those it came from, newest first."""
    root, name = root_of(directory, record)
    if not root.has_volume(name):
        return []
    url, _ = address_of(directory, record)
    volume: Any = Volume.blocking.at(f"{url}#{name}")
    entries: list[LogEntry] = volume.blocking.log(limit)
    return entries


def reserve(record: VolumeRecord, store: str) -> VolumeRecord:
    """Takes the name of a new volume in a root that others use too, by a first version that holds nothing.

    Raises:
        RootInUse: there is a volume of that name, or something else lies at the root's prefix.
    """
    url = normal_root(store)
    root = registry.root(url, create=True)
    root.require_free(record.name)
    with Session.write(root, record.name) as session:
        hand_over(session.files)
        made = session.commit(CommitOptions(message="created"))
    return evolve(record, root=url, stored_as=record.name, head=str(VolumeAddress.locator(url, record.name, made.name)))


def forget_volume(directory: Path, record: VolumeRecord) -> None:
    """Removes a volume from a store that others may use as well; what only it had becomes garbage there."""
    url, name = address_of(directory, record)
    try:
        root = registry.root(url)
    except NoSuchVolume:
        return
    root.delete_refs(name)
    pinned = {found.id for found in root.pinned()}
    for version in list(root.version_ids(name)):
        # Another volume, a clone of this one, may stand on it.
        if version not in pinned:
            root.delete_version(name, version)


def _none_yet(record: VolumeRecord) -> NoSuchVersion:
    return NoSuchVersion(
        f"volume {record.name} has no version yet", hint=f"make one: stowstore volume snapshot {record.name}"
    )
