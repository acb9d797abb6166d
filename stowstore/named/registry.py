"""The registry of a host: a directory with one directory a volume, safe under concurrent commands and SIGKILL.

::

    <base>/<name>/volume.json   the record, replaced whole
    <base>/<name>/.lock         the lease of jobs, see `stowstore.named.leases`
    <base>/<name>/.change       held by whoever changes the volume
    <base>/<name>/jobs/         who holds leases, for display
    <base>/<name>/data/         the mount point, all a job ever sees
    <base>/.areas/<id>/         what a backing keeps, where it stays whatever becomes of the name
    <base>/.new/<id>/           volumes that are being made
    <base>/.gone/<id>.<name>/   volumes that are being removed

A volume is built aside and renamed to its name, which is one step and never replaces another volume, and is renamed
away before anything of it is deleted: at every moment there is a whole volume of a name or none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from attrs import evolve

from stowstore.named.errors import NotPermitted, VolumeBusy, VolumeCorrupt, VolumeExists, VolumeNotFound
from stowstore.named.leases import LOCK
from stowstore.named.locks import acquire, open_lock, try_acquire
from stowstore.named.names import check_name, is_name
from stowstore.named.record import RECORD, VolumeRecord, now_text, read_record, write_record
from stowstore.named.upstream import UPSTREAM_RECORD, read_upstream
from stowstore.versions.ulid import is_ulid, new_ulid, ulid_seconds
from stowstore.whole_files import sync_directory

__all__ = ["BASE_VARIABLES", "DATA", "Registry", "area_of", "default_base"]

#: Where the registry is read from when nothing is said, the first that is set.
BASE_VARIABLES: Final = ("STOWSTORE_ROOT", "STOWSTORE_VOLUMES_BASE_PATH")

#: The mount point in a volume's directory.
DATA: Final = "data"

_CHANGE: Final = ".change"
_NEW: Final = ".new"
_AREAS: Final = ".areas"
_GONE: Final = ".gone"

#: How long another command on the same volume is waited for, seconds.
_PATIENCE: Final = 60.0

#: How old what a dead process has left must be, seconds: younger ones may just not be locked yet.
_GRACE: Final = 10.0

#: How often a record that is missing is looked for, while others may be exchanging the volume.
_LOOKS: Final = 20


def default_base() -> Path:
    """Where the registry is: as the environment says, else system-wide for root, else in the user's data directory."""
    for variable in BASE_VARIABLES:
        if named := os.environ.get(variable):
            return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/stowstore/volumes")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data).absolute() / "stowstore" / "named"


def area_of(directory: Path, record: VolumeRecord) -> Path:
    """Where a backing keeps what belongs to a volume, given the directory the volume is in at the moment.

    A daemon that still serves a volume after its removal goes on in there, while another volume has the name.
    """
    # Listings ask for every volume: text is put together in a tenth of the time of paths.
    base, name = os.path.split(os.path.dirname(directory))
    if name not in (_NEW, _GONE):
        base = os.path.join(base, name)
    return Path(f"{base}/{_AREAS}/{record.id}")


class Registry:
    """The volumes below one directory; thread-safe, and safe beside other processes."""

    def __init__(self, base: Path | None = None) -> None:
        self.base = default_base() if base is None else Path(base).expanduser().absolute()
        self._text = str(self.base)

    def directory(self, name: str) -> Path:
        """Where a volume lies.

        Raises:
            InvalidName: it can be the name of none.
        """
        if not is_name(name):
            check_name(name)
        return Path(f"{self._text}/{name}")

    def names(self) -> list[str]:
        """The names of the volumes, ascending."""
        try:
            with os.scandir(self.base) as entries:
                return sorted(entry.name for entry in entries if is_name(entry.name) and entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def load(self, name: str) -> VolumeRecord:
        """The record of a volume.

        Raises:
            VolumeNotFound: there is none.
            VolumeCorrupt: its record cannot be read.
        """
        directory = self.directory(name)
        try:
            record = self._read(directory)
        except FileNotFoundError:
            raise VolumeNotFound(
                f"volume {name} not found in {self.base}", hint="see `stowstore volume list`"
            ) from None
        except PermissionError as error:
            raise NotPermitted(f"the record of volume {name} is not for this user: {error.strerror}") from error
        if record.name != name:
            raise VolumeCorrupt(
                f"the record of volume {name} is that of {record.name}", hint=f"look at {directory / RECORD}"
            )
        return record

    def publish(self, record: VolumeRecord, build: Callable[[Path], VolumeRecord | None]) -> VolumeRecord:
        """Makes a volume: ``build`` fills its directory, then it gets its name in one step.

        ``build`` may return a changed record.  Whatever fails, nothing of it is left, and a volume that has the name
        already is not touched.

        Raises:
            VolumeExists: the name is taken.
        """
        check_name(record.name)
        target = self.base / record.name
        if os.path.lexists(target):
            raise _exists(record.name)
        drafts = self._make(self.base / _NEW)
        self.sweep_new()
        draft = drafts / record.id
        draft.mkdir(mode=0o755)
        lock = open_lock(draft / _CHANGE)
        try:
            acquire(lock, patience=_PATIENCE)
            (draft / DATA).mkdir(mode=0o755)
            area_of(draft, record).mkdir(mode=0o700, parents=True)
            os.close(open_lock(draft / LOCK))
            record = build(draft) or record
            write_record(draft, record)
            try:
                # Never replaces a directory that has anything in it, as every volume has.
                os.rename(draft, target)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise _exists(record.name) from None
                raise
            sync_directory(self.base)
        except BaseException:
            _delete_tree(area_of(draft, record))
            _delete_tree(draft)
            raise
        finally:
            os.close(lock)
        return record

    @contextlib.contextmanager
    def changing(self, name: str, *, patience: float = _PATIENCE) -> Iterator[VolumeRecord]:
        """Keeps every other command from changing a volume; gives its record as it is then.

        Raises:
            VolumeNotFound: there is none.
            VolumeBusy: another command did not end in time.
        """
        with self.locked(name, patience=patience) as directory:
            record = self.load(name)
            area_of(directory, record).mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (directory / RECORD).exists():
                write_record(directory, record)
            yield record

    @contextlib.contextmanager
    def locked(self, name: str, *, patience: float = _PATIENCE) -> Iterator[Path]:
        """As `changing`, whatever the record is like."""
        end = time.monotonic() + patience
        directory = self.directory(name)
        while True:
            if not self._is_ours(directory):
                self.load(name)
            try:
                lock = os.open(directory / _CHANGE, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                if not self._is_ours(directory):
                    continue
                # Upstream's volumes have none yet, nor has one whose directory was damaged.
                with contextlib.suppress(FileNotFoundError):
                    os.close(open_lock(directory / _CHANGE))
                continue
            except PermissionError as error:
                raise NotPermitted(f"volume {name} is not this user's to change: {error.strerror}") from error
            try:
                if not acquire(lock, patience=max(end - time.monotonic(), 0.0)):
                    raise VolumeBusy(
                        f"volume {name} is being changed by another command", hint="try again when it has ended"
                    )
                if not _is_at(lock, directory / _CHANGE):
                    # Removed while we waited, and perhaps made anew.
                    continue
                yield directory
                return
            finally:
                os.close(lock)

    def save(self, record: VolumeRecord) -> VolumeRecord:
        """Replaces the record of a volume that is being changed; gives it with its new generation."""
        record = evolve(record, generation=record.generation + 1)
        write_record(self.base / record.name, record)
        return record

    def withdraw(self, name: str) -> Path:
        """Takes a volume that is being changed out of the registry, whole: the name is free from now on.

        What is left is to be deleted, by `sweep_gone` where whoever removes it dies before.
        """
        target = self._make(self.base / _GONE) / f"{new_ulid()}.{name}"
        os.rename(self.base / name, target)
        sync_directory(self.base)
        with contextlib.suppress(OSError, VolumeCorrupt):
            write_record(target, evolve(read_record(target), tombstone=now_text()))
        return target

    def gone(self) -> list[Path]:
        """Volumes that were withdrawn and are not yet deleted."""
        try:
            found = sorted((self.base / _GONE).iterdir())
        except FileNotFoundError:
            return []
        return [path for path in found if is_ulid(path.name.partition(".")[0])]

    def sweep_new(self, *, grace: float = _GRACE) -> None:
        """Deletes what processes that died while they made a volume have left."""
        try:
            left = list((self.base / _NEW).iterdir())
        except FileNotFoundError:
            return
        for draft in left:
            if not is_ulid(draft.name) or time.time() - ulid_seconds(draft.name) < grace:
                continue
            with contextlib.suppress(FileNotFoundError):
                lock = open_lock(draft / _CHANGE)
                try:
                    if try_acquire(lock):
                        _delete_tree(self.base / _AREAS / draft.name)
                        _delete_tree(draft)
                finally:
                    os.close(lock)

    def _read(self, directory: Path) -> VolumeRecord:
        for _ in range(_LOOKS):
            try:
                return read_record(directory)
            except FileNotFoundError:
                with contextlib.suppress(FileNotFoundError):
                    return read_upstream(directory)
                if not self._is_ours(directory):
                    raise
            # Removed and made anew between the two looks, or without a record for good.
        raise VolumeCorrupt(
            f"volume {directory.name} has no record: {directory / RECORD} is missing",
            hint="restore it from a backup, or remove the volume with --force",
        )

    def _make(self, directory: Path) -> Path:
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
                raise
            raise NotPermitted(
                f"{directory} cannot be made: {error.strerror}",
                hint="run as root, or name a directory of yours with --root or STOWSTORE_ROOT",
            ) from error
        return directory

    def _is_ours(self, directory: Path) -> bool:
        """Whether a directory is a volume, damaged or not, rather than something that lies about."""
        return any((directory / name).exists() for name in (RECORD, _CHANGE, LOCK, UPSTREAM_RECORD))


def _delete_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _exists(name: str) -> VolumeExists:
    return VolumeExists(f"volume already exists: {name}", hint="choose another name; nothing of it was changed")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        here, there = os.fstat(descriptor), os.stat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
