"""Deleting what was withdrawn from the registry: at once, or when the last job that uses it has ended.

``python -m stowstore.named.removing DIRECTORY`` waits for that; a forced removal of a volume in use starts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from datastore.errors import StoreError
from datastore.events import get_logger
from stowstore.mounts import table
from stowstore.named.backings import backing_of
from stowstore.named.backings.mounting import mount_points, run
from stowstore.named.errors import VolumeCorrupt
from stowstore.named.leases import LOCK
from stowstore.named.locks import open_lock, try_acquire
from stowstore.named.record import VolumeRecord, read_record

__all__ = ["delete", "delete_when_free", "note_server", "sweep"]

#: Which process serves a volume that was detached: its path means another volume by now.
_SERVER: Final = ".server"

#: How long a server that nobody uses any more may take to end, seconds.
_PATIENCE: Final = 10.0

_log = get_logger(part="named")


def note_server(directory: Path) -> None:
    """Writes down which process serves a volume, before it is taken from its path."""
    found = table.find(directory / "data")
    if found is not None and found.is_alive:
        (directory / _SERVER).write_text(json.dumps({"pid": found.pid, "started": found.started}))


def delete(gone: Path) -> bool:
    """Deletes a withdrawn volume if no job uses it; whether it is gone.

    Raises:
        StoreError: what of it lies in another store cannot be deleted now; everything is kept for another try.
    """
    try:
        lock = open_lock(gone / LOCK)
    except FileNotFoundError:
        return not gone.exists()
    try:
        if not try_acquire(lock):
            return False
        _delete(gone)
        return True
    finally:
        os.close(lock)


def delete_when_free(gone: Path) -> None:
    """Has a process of its own delete a withdrawn volume when the last job that uses it has ended."""
    subprocess.Popen(
        [sys.executable, "-m", "stowstore.named.removing", str(gone)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), _path()]).rstrip(os.pathsep)},
    ).returncode = 0


def sweep(withdrawn: list[Path]) -> None:
    """Deletes what is free of what others have withdrawn and not deleted, because they died or jobs used it."""
    for gone in withdrawn:
        try:
            delete(gone)
        except StoreError as error:
            _log.warning("volume.not_deleted", path=str(gone), error=str(error))


def _delete(gone: Path) -> None:
    _end_server(gone)
    _unmount_below(gone)
    record: VolumeRecord | None = None
    # Without a record nothing is known of it beyond this directory.
    with contextlib.suppress(FileNotFoundError, VolumeCorrupt):
        record = read_record(gone)
    if record is not None:
        backing_of(record.backing).destroy(gone, record)
    shutil.rmtree(gone, ignore_errors=True)
    if gone.exists():
        # Something was still being written.
        shutil.rmtree(gone)


def _end_server(gone: Path) -> None:
    """Ends the process that serves a detached volume: only files opened on the host can still keep it."""
    try:
        found = json.loads((gone / _SERVER).read_bytes())
        pid, started = int(found["pid"]), int(found["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + _PATIENCE
        if table.started_at(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while table.started_at(pid) == started and time.monotonic() < end:
            time.sleep(0.005)


def _unmount_below(gone: Path) -> None:
    """A mount that is left would have its files deleted through it."""
    for one in mount_points():
        if gone in Path(one).parents:
            run("umount", "-l", one)


def _path() -> str:
    return os.environ.get("PYTHONPATH", "")


def _main(gone: Path) -> None:
    try:
        lock = os.open(gone / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _delete(gone)
    finally:
        os.close(lock)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
