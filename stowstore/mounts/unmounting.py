"""Unmounting: the daemon is asked, and whatever it does not do itself is done from here."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from datastore.context import deadline, remaining
from datastore.errors import DeadlineExceeded, StoreError
from stowstore.fuse import device
from stowstore.mounts import control, table

__all__ = ["clear_dead", "unmount"]


def unmount(path: str | os.PathLike[str], *, timeout: float = 30.0, force: bool = False, lazily: bool = True) -> None:
    """Unmounts; what is not committed stays in the journal of the volume.

    The daemon is asked first and closes the volume.  One that does not answer within ``timeout`` seconds is cut off
    and killed, at once with ``force``.  Programs that work in the mount lose it, unless ``lazily`` is False.

    Raises:
        VolumeError: it is in use, and is not to be taken away lazily.
        NotServed: nothing is mounted there.
        MountFailed: the kernel keeps the mount.
    """
    where = device.mount_point(path)
    record = table.find(where)
    if record is None and device.find_mount(where) is None:
        raise control.NotServed(f"no volume is mounted at {where}", hint="see `stowstore mounts`")
    if record is not None and record.is_alive and not force:
        with contextlib.suppress(DeadlineExceeded, control.NotServed), deadline(timeout):
            try:
                control.ask(where, "unmount" if lazily else "unmount_unused")
                _await_end(record, timeout)
            except control.NotAnswering:
                _await_end(record, remaining() or 0.0)
    if record is not None and record.is_alive:
        _cut_off(where, record)
    clear_dead(where)
    if device.find_mount(where) is not None:
        # Nobody here has listed it, or its daemon has ended and left it: it is to go all the same.
        device.unmount(where, patience=timeout)


def clear_dead(path: str | os.PathLike[str]) -> None:
    """Removes what a daemon has left that is no more: a mount that answers ENOTCONN, a record, a socket."""
    where = device.mount_point(path)
    record = table.find(where)
    if record is not None and record.is_alive:
        return
    if device.find_mount(where) is not None and (record is not None or _is_dead(where)):
        device.unmount(where, patience=0.5)
    if record is not None:
        table.forget(where)


def _is_dead(where: Path) -> bool:
    """Whether a mount nobody has listed answers at all; a hung one is somebody's."""
    try:
        # Not stat(2), which the kernel answers from its cache.
        os.statvfs(where)
    except OSError:
        return True
    return False


def _await_end(record: table.MountRecord, seconds: float) -> None:
    end = time.monotonic() + seconds
    while record.is_alive and time.monotonic() < end:
        time.sleep(0.01)


def _cut_off(where: Path, record: table.MountRecord) -> None:
    """Frees whoever hangs in the mount, and ends its daemon."""
    with contextlib.suppress(OSError, StoreError):
        device.cut_off(where)
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
        _await_end(record, 2.0)
        if record.is_alive:
            os.kill(record.pid, signal.SIGKILL)
            _await_end(record, 5.0)
