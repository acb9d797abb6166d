"""What the daemon of a volume with limits does beside serving it: keeps them, counts, and ends when nobody needs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from datastore.errors import LimitExceeded, StoreError
from datastore.events import get_logger
from stowstore.daemon.mounted import Mounted
from stowstore.mounts.counters import Counters, write_counters
from stowstore.mounts.options import Hosting, Lifetime
from stowstore.namespace.content import FileContent
from stowstore.namespace.permissions import PermissionChecks
from stowstore.versions.options import SessionOptions
from stowstore.versions.session import Session
from stowstore.volumes import ROVolume
from stowstore.volumes.blocking_rw import hand_over
from stowstore.volumes.registry import registry

__all__ = ["Hosted", "open_session"]

#: How often the counters are written while they change, seconds.
_INTERVAL: Final = 0.5

#: What a volume in memory waits before it would upload: nothing leaves RAM but by a commit.
_NEVER: Final = 1e9

#: How much room a volume in memory has for data that were overwritten and not yet given up, as a factor of its size.
_SLACK: Final = 2

_log = get_logger(part="mount")


def open_session(volume: Any, opening: Mapping[str, Any], hosting: Hosting) -> Session:
    """Opens a volume with limits for writing, or one of its versions, which has none."""
    if isinstance(volume, ROVolume):
        volume.blocking.open(**opening)
        return registry.require(volume._key()).session
    options = SessionOptions(
        metadata_store_type=volume.metadata_store_type,
        permissions=PermissionChecks.KERNEL,
        key=registry.key_source(volume.bucket),
    )
    if hosting.in_memory:
        options = evolve(options, upload_delay=_NEVER, staging_bytes=_room_in_memory(hosting.limit_bytes))
    else:
        options = evolve(options, meta_dir=Path(opening["meta_dir"]), cache_dir=Path(opening["cache_dir"]))
    session = Session.write(registry.root(volume.bucket, volume.region, create=True), volume.name, options)
    if session.base is None:
        hand_over(session.files)
    session.files.set_limits(limit_bytes=hosting.limit_bytes, limit_inodes=hosting.limit_inodes)
    if hosting.limit_bytes and isinstance(session.files.content, FileContent):
        # Whoever writes more than fits is told so, whatever it is; a file that is only made long takes no room.
        session.files.content.keeps_zeros = True
    return session


class Hosted:
    """Keeps to a `Hosting` while a mount is served; thread-safe."""

    def __init__(self, mounted: Mounted, hosting: Hosting, lifetime: Lifetime) -> None:
        self._mounted = mounted
        self._hosting = hosting
        self._counters = None if hosting.counters_file is None else Path(hosting.counters_file)
        self._lease = None
        if lifetime is Lifetime.LEASED and hosting.lease_file is not None:
            # Opened once: when the volume is renamed away, this is still the file its jobs have locked.
            self._lease = os.open(hosting.lease_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._limit = hosting.limit_bytes
        self._stop = threading.Event()
        self._written: Counters | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to count and to watch."""
        self._count()
        threading.Thread(target=self._keep, name="hosting", daemon=True).start()

    def resize(self, limit_bytes: int, limit_inodes: int) -> dict[str, Any]:
        """Sets the limits, in force when this returns.

        Raises:
            LimitExceeded: the volume holds more.
        """
        files = self._mounted.session.files
        used, inodes = files.usage()
        if limit_bytes and used > limit_bytes:
            raise LimitExceeded(f"the volume holds {used} bytes, and {limit_bytes} are asked for")
        if limit_inodes and inodes > limit_inodes:
            raise LimitExceeded(f"the volume holds {inodes} inodes, and {limit_inodes} are asked for")
        files.set_limits(limit_bytes=limit_bytes, limit_inodes=limit_inodes)
        if self._hosting.in_memory and isinstance(files.content, FileContent):
            files.content.staging.max_bytes = _room_in_memory(limit_bytes)
        self._limit = limit_bytes
        self._count()
        return {"used_bytes": used, "inodes": inodes}

    def close(self) -> None:
        """Writes the last counters; the session must still be open."""
        self._stop.set()
        # Of a volume in memory nothing is left that they could be true of.
        self._count(is_final=not self._hosting.in_memory)
        if not self._mounted.session.read_only:
            self._mounted.session.close()

    def _keep(self) -> None:
        idle_since: float | None = None
        while not self._stop.wait(_INTERVAL):
            self._count()
            if self._lease is None:
                continue
            if not self._is_free():
                idle_since = None
                continue
            now = time.monotonic()
            if idle_since is None:
                idle_since = now
            if now - idle_since >= self._hosting.idle_seconds:
                if self._leave():
                    return
                idle_since = None

    def _count(self, *, is_final: bool = False) -> None:
        if self._counters is None:
            return
        with self._lock:
            used, inodes = self._mounted.session.files.usage()
            found = Counters(used_bytes=used, inodes=inodes, limit_bytes=self._limit, is_final=is_final)
            if found == self._written:
                return
            # The host's disk may be full, or the volume removed: the counters are not worth the mount.
            with contextlib.suppress(OSError):
                if self._counters.parent.exists():
                    write_counters(self._counters, found)
                    self._written = found

    def _is_free(self) -> bool:
        """Whether nobody has a lease; it can be had for a moment, so whoever wants one tries again."""
        assert self._lease is not None
        try:
            fcntl.flock(self._lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._lease, fcntl.LOCK_UN)
        return True

    def _leave(self) -> bool:
        """Unmounts if nobody has a lease or anything open; the lease is kept until this process has ended."""
        assert self._lease is not None
        try:
            fcntl.flock(self._lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            # What cannot be written, on a full disk, is nowhere but in this process: it stays until it can.
            self._mounted.session.files.fsync()
            left = self._mounted.unmount_if_unused()
        except (OSError, StoreError) as error:
            _log.warning("mount.not_unmounted", path=str(self._mounted.path), error=str(error))
            left = False
        if left:
            _log.info("mount.idle", path=str(self._mounted.path))
        else:
            fcntl.flock(self._lease, fcntl.LOCK_UN)
        return left


def _room_in_memory(limit_bytes: int) -> int:
    return max(limit_bytes * _SLACK, 1 << 30)
