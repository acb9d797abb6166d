"""What a daemon serves: a volume, its session, the server, and the mount itself."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from datastore.errors import StoreError, TransientError
from datastore.events import get_logger
from stowstore.fuse import device
from stowstore.fuse.passthrough import PassthroughStatistics
from stowstore.fuse.server import FuseServer
from stowstore.versions.session import Session

__all__ = ["Mounted"]

#: How long a commit waits for what the kernel still writes, seconds.
_PATIENCE: Final = 60.0

#: What the kernel reads ahead of a sequential reader, bytes: one request of the largest size.
_READ_AHEAD: Final = 1 << 20

_log = get_logger(part="mount")
_libc = ctypes.CDLL(None, use_errno=True)


class Mounted:
    """A mounted volume; thread-safe."""

    def __init__(
        self, volume: Any, path: Path, session: Session, server: FuseServer, *, no_passthrough: str = ""
    ) -> None:
        self.volume = volume
        self.path = path
        self.session = session
        self.server = server
        self.since = time.time()
        self._connection = device.Connection(device.connection_of(path))
        #: What the kernel reads ahead, where it is known.
        self.read_ahead = device.read_ahead(self.connection, _READ_AHEAD)
        self._no_passthrough = no_passthrough
        self._former: list[Session] = []
        #: Ends the process in good order; the last way to cut a detached mount off.
        self.leave: Callable[[], object] = lambda: None
        self._unmounting = threading.Lock()
        self._gone = threading.Event()

    @property
    def connection(self) -> int:
        """The number of the kernel's connection, which another mount gets as soon as this one is gone."""
        return self._connection.number

    @property
    def passthrough(self) -> PassthroughStatistics:
        """The files that the kernel reads without this process, or why there are none."""
        passing = self.server.passthrough
        if passing is None:
            return PassthroughStatistics(refusal=self._no_passthrough, files=0, bytes=0, opens=0)
        return passing.statistics

    def settle(self) -> None:
        """Brings what the kernel still keeps into the file system: dirty pages of mappings and of its write cache.

        The file system is opened for it from a thread that does not serve, for no longer than the call.

        Raises:
            TransientError: the kernel did not hand everything over in time.
        """
        if self.session.read_only or self._gone.is_set():
            return
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            if device.find_mount(self.path) is None:
                return
            raise
        try:
            if os.fstat(descriptor).st_dev != self.connection:
                # Unmounted, which has written everything; what lies here is not ours.
                return
            if _libc.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(self.path))
            barrier = self.server.barrier(descriptor)
        finally:
            os.close(descriptor)
        self._await_writes(barrier)

    def _await_writes(self, barrier: threading.Event) -> None:
        """Waits for the writes that syncfs(2) has begun: it does not wait for those of FUSE."""
        end = time.monotonic() + _PATIENCE
        if barrier.wait(_PATIENCE):
            left = self.server.in_hand()
            while left & self.server.in_hand():
                if time.monotonic() >= end:
                    break
                time.sleep(0.001)
            else:
                return
        if not self._gone.is_set():
            raise TransientError(
                f"the kernel's dirty pages of {self.path} were not written within {_PATIENCE:g} s",
                hint="nothing was published and nothing is lost: try again",
            )

    def replace(self, session: Session) -> None:
        """Goes on with another version; the former stays open for the handles it gave out."""
        self._former.append(self.session)
        self.session = session
        self.server.replace(session.files)

    def await_quiet(self) -> None:
        """Waits until nothing new can be opened: the mount is gone, or at least its name."""
        while not self._gone.is_set() and device.find_mount(self.path) is not None:
            time.sleep(0.005)

    def close(self) -> None:
        """Closes the versions that a reader has moved away from, and to."""
        if self._former:
            for session in (*self._former[1:], self.session):
                session.close()

    def unmount(self, patience: float = 5.0) -> None:
        """Takes the mount away while it is served on: asked first, then lazily, then by cutting it off."""
        with self._unmounting:
            if self._gone.is_set():
                return
            try:
                if self._is_here():
                    device.unmount(self.path, patience=patience)
            except (OSError, StoreError) as error:
                _log.warning("mount.not_unmounted", path=str(self.path), error=str(error))
            if not self._gone.wait(5.0):
                # Detached, and somebody still works in it: they get an error instead of what they asked for.
                self.cut_off()

    def unmount_if_unused(self) -> bool:
        """Takes the mount away unless somebody works in it; whether it has."""
        with self._unmounting:
            if self._gone.is_set():
                return True
            if self._is_here():
                return device.unmount_if_unused(self.path)
            # Detached by somebody, and what still has it open does not count as use.
            self.cut_off()
            return True

    def _is_here(self) -> bool:
        """Whether it is this mount that its path leads to: it may have been detached, and another one be there."""
        found = device.find_mount(self.path)
        return found is not None and found.connection == self.connection

    def cut_off(self) -> None:
        """Ends the connection whatever is open in it; with the process, where the kernel gives no other way."""
        try:
            self._connection.abort()
        except OSError as error:
            _log.info("mount.not_aborted", path=str(self.path), error=str(error))
        else:
            if self._gone.wait(2.0):
                return
        self.leave()

    def ended(self) -> None:
        """Says that the server has ended."""
        self._gone.set()
