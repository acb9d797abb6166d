"""Volumes of this project behind a mount: limits exact to the byte, resized while they are used, versions, any store.

The files lie in a root of their own below the volume's directory, or in a store somebody names.  One daemon serves a
volume to all its jobs; it ends by itself when no job has a lease.  A volume in memory is the same with everything that
is not committed in the daemon's RAM.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from datastore.context import deadline
from datastore.errors import DeadlineExceeded, LimitExceeded, StoreError
from stowstore.fuse import device
from stowstore.fuse.device import MountFailed
from stowstore.mounts import control, table
from stowstore.mounts.counters import Counters, read_counters, write_counters
from stowstore.mounts.options import Hosting, Lifetime, MountOptions, MountRequest
from stowstore.mounts.starting import start
from stowstore.mounts.unmounting import clear_dead, unmount
from stowstore.named.backings.base import Usage
from stowstore.named.backings.probing import probed
from stowstore.named.errors import BackingUnsupported, BelowUsed, VolumeInUse
from stowstore.named.leases import LOCK
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.registry import DATA, area_of
from stowstore.named.room import require_memory

__all__ = [
    "IDLE_VARIABLE",
    "JOURNAL",
    "STORE",
    "ChunkedBacking",
    "address_of",
    "counted",
    "opening_of",
    "snapshot_directory",
    "volume_of",
]

#: The root of a volume that lies on the host.
STORE: Final = "store"

#: The kind of journal of a volume that is not in memory.
JOURNAL: Final = "sqlite"

#: Seconds a daemon goes on serving a volume that no job uses.
IDLE_VARIABLE: Final = "STOWSTORE_IDLE_SECONDS"

_META: Final = "meta"
_CACHE: Final = "cache"
_COUNTERS: Final = "counters"
_SNAPSHOTS: Final = "snapshots"
_LOG: Final = "daemon.log"

#: How long a daemon may take for a question of ours, seconds.
_PATIENCE: Final = 30.0

#: How long somebody who works in a mount is waited for: files of a job that has just died may not be closed yet.
_BUSY_PATIENCE: Final = 1.0

#: How long a daemon may take to end, or to die, seconds.
_END_PATIENCE: Final = 10.0


class ChunkedBacking:
    """See `stowstore.named.backings.base.Backing`."""

    kind: ClassVar[BackingKind] = BackingKind.CHUNKED
    enforced: ClassVar[bool] = True

    def probe(self, base: Path) -> None:
        probed(base, self.kind, _try_mount)

    def create(self, directory: Path, record: VolumeRecord) -> VolumeRecord:
        if record.type is VolumeType.MEMORY:
            require_memory(record.size_bytes)
        # The root itself is made with the first mount: a volume that is never used costs a directory.
        write_counters(area_of(directory, record) / _COUNTERS, Counters(used_bytes=0, inodes=1, is_final=True))
        return record

    def attach(self, directory: Path, record: VolumeRecord) -> Path:
        path = directory / DATA
        if _is_served(path):
            return path
        in_memory = record.type is VolumeType.MEMORY
        request = MountRequest(
            path=path,
            volume=volume_of(directory, record),
            opening={} if in_memory else opening_of(directory, record),
            seen=True,
            options=MountOptions(
                lifetime=Lifetime.OWN if in_memory else Lifetime.LEASED,
                metrics_port=None,
                log_file=str(area_of(directory, record) / _LOG),
            ),
            hosting=Hosting(
                limit_bytes=record.size_bytes,
                limit_inodes=record.inodes or 0,
                lease_file=str(directory / LOCK),
                idle_seconds=_idle_seconds(),
                counters_file=str(area_of(directory, record) / _COUNTERS),
                in_memory=in_memory,
            ),
        )
        start(request)
        return path

    def attach_version(self, directory: Path, record: VolumeRecord, locator: str, version: str) -> Path:
        """Mounts a version of the volume for reading, unless it is mounted, and returns where."""
        path = snapshot_directory(directory, version)
        if _is_served(path):
            return path
        volume = volume_of(directory, record) | {"index": locator, "access": "ro"}
        request = MountRequest(
            path=path,
            volume=volume,
            opening={},
            options=MountOptions(
                lifetime=Lifetime.LEASED, metrics_port=None, log_file=str(area_of(directory, record) / f"{version}.log")
            ),
            hosting=Hosting(lease_file=str(directory / LOCK), idle_seconds=_idle_seconds()),
        )
        start(request)
        return path

    def is_attached(self, directory: Path) -> bool:
        found = table.find(directory / DATA)
        return found is not None and found.is_alive and device.find_mount(directory / DATA) is not None

    def detach(self, directory: Path, record: VolumeRecord, *, force: bool = False) -> None:
        paths = [directory / DATA, *_snapshots(directory)]
        for path in paths:
            if device.find_mount(path) is None and table.find(path) is None:
                continue
            if force:
                _detach_lazily(path)
                continue
            _detach(path, directory.name)

    def resize(self, directory: Path, record: VolumeRecord, size: int, inodes: int | None) -> None:
        if self.is_attached(directory):
            try:
                with deadline(_PATIENCE):
                    control.ask(directory / DATA, "resize", limit_bytes=size, limit_inodes=inodes or 0)
                return
            except LimitExceeded as error:
                used = self.exact_usage(directory, record).used_bytes or 0
                raise BelowUsed(error.message, requested=size, used=used, hint="delete files first") from error
            except control.NotServed:
                # It has ended meanwhile; the record is all there is to change.
                pass
        if size < record.size_bytes or inodes is not None:
            held = self.exact_usage(directory, record)
            if (held.used_bytes or 0) > size:
                raise BelowUsed(
                    f"the volume holds {held.used_bytes} bytes, and {size} are asked for",
                    requested=size,
                    used=held.used_bytes or 0,
                    hint="delete files first",
                )
            if inodes is not None and (held.inodes or 0) > inodes:
                raise BelowUsed(
                    f"the volume holds {held.inodes} inodes, and {inodes} are asked for",
                    requested=inodes,
                    used=held.inodes or 0,
                    hint="delete files first",
                )

    def usage(self, directory: Path, record: VolumeRecord) -> Usage:
        found = read_counters(f"{area_of(directory, record)}/{_COUNTERS}")
        if found is None:
            return Usage(used_bytes=None)
        if record.type is VolumeType.MEMORY and not found.is_final and not self.is_attached(directory):
            # What was in RAM went with the daemon or the boot; its last version is what is left.
            return Usage(used_bytes=0 if record.head is None else None, is_lost=True)
        return Usage(used_bytes=found.used_bytes, inodes=found.inodes)

    def exact_usage(self, directory: Path, record: VolumeRecord) -> Usage:
        if self.is_attached(directory):
            with contextlib.suppress(control.NotServed, DeadlineExceeded):
                return _asked(directory / DATA)
        found = read_counters(area_of(directory, record) / _COUNTERS)
        if found is not None and found.is_final:
            return Usage(used_bytes=found.used_bytes, inodes=found.inodes)
        told = self.usage(directory, record)
        if told.is_lost and told.used_bytes is not None:
            return told
        # Its daemon was killed: the journal knows, or the last version, and a mount reads it.
        return _asked(self.attach(directory, record))

    def recover(self, directory: Path, record: VolumeRecord) -> None:
        for path in (directory / DATA, *_snapshots(directory)):
            clear_dead(path)

    def destroy(self, directory: Path, record: VolumeRecord) -> None:
        if record.root is not None:
            from stowstore.named.versions import forget_volume

            forget_volume(directory, record)
        shutil.rmtree(area_of(directory, record), ignore_errors=True)


def address_of(directory: Path, record: VolumeRecord) -> tuple[str, str]:
    """The root of a volume and what it is called there."""
    return record.root or f"file://{quote(str(area_of(directory, record) / STORE))}", record.stored_as or record.name


def counted(directory: Path, record: VolumeRecord, used_bytes: int, inodes: int) -> None:
    """Writes the counters of a volume that was changed without a daemon, and is not mounted."""
    found = Counters(used_bytes=used_bytes, inodes=inodes, limit_bytes=record.size_bytes, is_final=True)
    write_counters(area_of(directory, record) / _COUNTERS, found)


def snapshot_directory(directory: Path, version: str) -> Path:
    """Where a version is mounted."""
    return directory / _SNAPSHOTS / version


def volume_of(directory: Path, record: VolumeRecord) -> dict[str, Any]:
    """The working copy of a volume, as `Volume.from_dict` reads it."""
    root, name = address_of(directory, record)
    return {
        "name": name,
        "bucket": root,
        "access": "rw",
        "metadata_store_type": "memory" if record.type is VolumeType.MEMORY else JOURNAL,
    }


def opening_of(directory: Path, record: VolumeRecord) -> dict[str, Any]:
    """Where the journal of a volume and what is not yet uploaded lie."""
    area = area_of(directory, record)
    return {"meta_dir": str(area / _META), "cache_dir": str(area / _CACHE)}


def _asked(path: Path) -> Usage:
    with deadline(_PATIENCE):
        told = control.ask(path, "usage")
    return Usage(used_bytes=told["used_bytes"], inodes=told["inodes"])


def _idle_seconds() -> float:
    try:
        return max(float(os.environ.get(IDLE_VARIABLE, "5")), 0.0)
    except ValueError:
        return 5.0


def _snapshots(directory: Path) -> list[Path]:
    try:
        return list((directory / _SNAPSHOTS).iterdir())
    except FileNotFoundError:
        return []


def _detach(path: Path, name: str) -> None:
    """Unmounts, and returns when the daemon has ended: what it had is in the journal then."""
    record = table.find(path)
    end = time.monotonic() + _BUSY_PATIENCE
    while not device.unmount_if_unused(path):
        if time.monotonic() >= end:
            raise VolumeInUse(
                f"volume is currently in use: somebody works in {path}, and {name} cannot be unmounted",
                hint="`fuser -m` says who; or use --force",
            )
        time.sleep(0.02)
    if record is not None and not _has_ended(record):
        # The mount is held by another namespace, or the daemon hangs: ended from here.
        with contextlib.suppress(control.NotServed, MountFailed):
            unmount(path, timeout=1.0, force=True)
    clear_dead(path)


def _is_served(path: Path) -> bool:
    """Whether a daemon answers at a path; one that was just killed is waited for, and cleaned up after."""
    record = table.find(path)
    if record is not None and record.is_alive and device.find_mount(path) is not None:
        try:
            with deadline(_PATIENCE):
                control.ask(path, "ping")
            return True
        except (control.NotServed, ConnectionError):
            _has_ended(record)
    clear_dead(path)
    return False


def _has_ended(record: table.MountRecord) -> bool:
    """Waits for the end of a daemon; whether it came."""
    end = time.monotonic() + _END_PATIENCE
    while record.is_alive:
        if time.monotonic() >= end:
            return False
        time.sleep(0.005)
    return True


def _detach_lazily(path: Path) -> None:
    """Takes the mount out of the tree; its daemon serves whoever still works in it, and ends with the last."""
    with contextlib.suppress(MountFailed):
        device.unmount(path, patience=0.0)
    record = table.find(path)
    if record is not None and not record.is_alive:
        table.forget(path)


def _try_mount(where: Path) -> None:
    try:
        descriptor = device.mount(where, source="stowstore#probe")
    except StoreError as error:
        hint = error.hint or "load the module with modprobe fuse; give a container --device /dev/fuse"
        raise BackingUnsupported(f"FUSE does not work here: {error.message}", hint=hint) from error
    try:
        device.unmount(where, patience=0.0)
    finally:
        os.close(descriptor)
