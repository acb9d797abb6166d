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
from stowstore.named.backings.chunked import JOURNAL, ChunkedBacking, address_of, counted, opening_of
from stowstore.named.errors import BackingUnsupported, BelowUsed
from stowstore.named.record import BackingKind, VolumeRecord
from stowstore.named.registry import DATA
from stowstore.namespace.permissions import PermissionChecks
from stowstore.versions.address import VolumeAddress, normal_root
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.versions.options import CommitOptions, SessionOptions, chunk_store
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.versions.successors import restore_version
from stowstore.volumes import LogEntry, Volume
from stowstore.volumes.blocking_rw import hand_over
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.registry import registry

__all__ = [
    "Version",
    "forget_volume",
    "go_back",
    "log_of",
    "opened",
    "require_room",
    "require_versions",
    "reserve",
    "resolve",
    "root_of",
    "session_options",
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


def session_options(directory: Path, record: VolumeRecord) -> SessionOptions:
    """How the journal of a volume is opened in this process.

    Raises:
        BackingUnsupported: it has none.
    """
    require_versions(record)
    kept = opening_of(directory, record)
    return SessionOptions(
        meta_dir=Path(kept["meta_dir"]),
        cache_dir=Path(kept["cache_dir"]),
        metadata_store_type=JOURNAL,
        permissions=PermissionChecks.KERNEL,
        key=registry.key_source(address_of(directory, record)[0]),
    )


@contextmanager
def opened(directory: Path, record: VolumeRecord) -> Iterator[Session]:
    """A volume that is not mounted, open for writing in this process, with its limits; counted afterwards."""
    url, name = address_of(directory, record)
    with Session.write(registry.root(url, create=True), name, session_options(directory, record)) as session:
        if session.base is None:
            hand_over(session.files)
        session.files.set_limits(limit_bytes=record.size_bytes, limit_inodes=record.inodes or 0)
        try:
            yield session
        finally:
            counted(directory, record, *session.files.usage())


def take_snapshot(directory: Path, record: VolumeRecord, message: str | None, tag: str | None = None) -> str:
    """Publishes the present state as a version and returns its locator; equal states are one version."""
    require_versions(record)
    if ChunkedBacking().is_attached(directory):
        locator = str(control.ask(directory / DATA, "commit", message=message)["locator"])
    else:
        # Of a volume in memory that is not mounted, nothing but its last version is left.
        with opened(directory, record) as session:
            made = session.commit(CommitOptions(message=message))
        url, _ = address_of(directory, record)
        locator = str(VolumeAddress.locator(url, made.volume, made.name))
    if tag is not None:
        root, name = root_of(directory, record)
        root.set_tag(name, tag, VolumeAddress.parse(locator).version_name)
    return locator


def go_back(directory: Path, record: VolumeRecord, version: str, message: str | None) -> str:
    """Makes an earlier state of a volume that is not mounted its newest version; returns that one's locator.

    Raises:
        NoSuchVersion: there is none.
        BelowUsed: the volume has become too small for it.
        VolumeError: it has changes that are in no version.
    """
    found = resolve(directory, record, version)
    root, name = root_of(directory, record)
    statistics = root.load(found.locator.version_name).statistics
    require_room(record, statistics.used_bytes, found.id)
    with chunk_store(root, SessionOptions(key=registry.key_source(root.address))) as chunks:
        made = restore_version(
            root, chunks, name, found.locator.version_name, message=message, produced_by=current_producer()
        )
    counted(directory, record, statistics.used_bytes, statistics.inode_count)
    url, _ = address_of(directory, record)
    return str(VolumeAddress.locator(url, made.volume, made))


def require_room(record: VolumeRecord, used: int, version: str) -> None:
    """Refuses a version that a volume is too small for.

    Raises:
        BelowUsed: it is; the message has both numbers.
    """
    if used > record.size_bytes:
        raise BelowUsed(
            f"version {version} holds {used} bytes, and {record.name} has room for {record.size_bytes}",
            requested=record.size_bytes,
            used=used,
            hint=f"give it {used} bytes or more",
        )


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
