"""Publishing the volumes that a task returns."""

from __future__ import annotations

from typing import TypeVar

from stowstore.interop.tasks.walking import exchanged
from stowstore.versions.address import VolumeAddress
from stowstore.volumes.mounting import ask
from stowstore.volumes.mounting import published as published_by_daemon
from stowstore.volumes.registry import Key, registry
from stowstore.volumes.ro import ROVolume
from stowstore.volumes.rw import RWVolume
from stowstore.volumes.volume import Volume

__all__ = ["published"]

T = TypeVar("T")


def published(value: T, message: str | None = None) -> T:
    """The same value with a version in the place of every `RWVolume`, however deep; versions stay as they are.

    One that is mounted or open here is finalized: written out, published with ``message``, unmounted and closed.  One
    that was closed here is opened again, so that what its journal holds is published, too.  Where nothing has changed
    since its newest version, that one is returned; one that was open or mounted for reading only is the version that
    was read.  One that was never opened here is the version it stands on; if it stands on none, it is made, empty.  The
    same volume twice is published once.

    Thread-safe; blocks, so in a coroutine ``await asyncio.to_thread(published, value)``.

    Raises:
        ConfigError: the value contains itself; nothing was published.
        StoreError: a volume could not be published.  Those before it are, those after it are open still.
    """
    # A value that cannot be walked is refused before anything is published.
    exchanged(value, lambda volume: volume)
    versions: dict[Key, ROVolume] = {}

    def publish(volume: Volume) -> Volume:
        if not isinstance(volume, RWVolume):
            return volume
        key = volume._key()
        if key not in versions:
            versions[key] = _published(volume, key, message)
        return versions[key]

    result: T = exchanged(value, publish)
    return result


def _published(volume: RWVolume, key: Key, message: str | None) -> ROVolume:
    if registry.mount_of(key) is not None and not registry.is_mounted_to_read(key):
        return volume.blocking.finalize(message)
    read = _closed_after_reading(volume, key)
    if read is not None and not registry.may_be_uncommitted(key):
        return read
    opened = registry.find(key)
    if opened is None:
        newest = registry.last_locator(key) or volume.index
        if newest is not None and not registry.may_be_uncommitted(key):
            name = VolumeAddress.parse(newest).version_name
            return volume._version(registry.root(volume.bucket, volume.region).load(name))
        volume.blocking.open()
        opened = registry.require(key)
    session = opened.session
    if session.base is not None and not session.files.changed_inodes:
        version = volume._version(session.root.load(session.base.name))
        volume.blocking.close()
        return version
    return volume.blocking.finalize(message)


def _closed_after_reading(volume: RWVolume, key: Key) -> ROVolume | None:
    """The version that a volume open or mounted for reading only has shown, now that it is closed; None of others."""
    opened = registry.find(key)
    where = registry.mount_of(key)
    if where is not None and registry.is_mounted_to_read(key):
        version = volume._version(published_by_daemon(volume, ask(where, "stats")["base"]))
        volume.blocking.unmount()
    elif opened is not None and opened.session.read_only and opened.session.base is not None:
        version = volume._version(opened.session.root.load(opened.session.base.name))
        volume.blocking.close()
    else:
        return None
    return version
