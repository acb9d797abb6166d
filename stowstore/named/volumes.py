"""`NamedVolumes`: the volumes of a host, by name."""

from __future__ import annotations

import builtins
import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from datastore.errors import StoreError
from stowstore.mounts.control import ask
from stowstore.named.attachments import Attachment
from stowstore.named.backings import Usage, backing_of, choose_backing
from stowstore.named.backings.chunked import ChunkedBacking, address_of
from stowstore.named.backings.mounting import mount_points
from stowstore.named.core import checked_backing, checked_inodes, checked_labels, checked_type
from stowstore.named.errors import (
    BackingUnsupported,
    VolumeCorrupt,
    VolumeExists,
    VolumeInUse,
    VolumeNotFound,
)
from stowstore.named.info import VolumeInfo
from stowstore.named.leases import Access, Holder, exclusive, forget_dead, holders, take
from stowstore.named.moving import MovingOperations
from stowstore.named.names import check_name
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.registry import DATA
from stowstore.named.settings import Settings
from stowstore.named.sizes import exact_size, parse_size, resized

__all__ = ["Attachment", "NamedVolumes"]


class NamedVolumes(MovingOperations):
    """The volumes of a host; thread-safe, and safe beside other processes that use the same registry.

    ``base`` is the registry's directory: where ``$STOWSTORE_ROOT`` says, else ``/var/lib/stowstore/volumes`` for root,
    and below the user's data directory for others.  Methods block.
    """

    # -- what there is -----------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        size: str | int | None = None,
        volume_type: VolumeType | str = VolumeType.FILESYSTEM,
        inodes: int | None = None,
        backing: BackingKind | str | None = None,
        require_enforced: bool = False,
        preallocate: bool = False,
        store: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        """Makes an empty volume; a volume that has the name already is not touched.

        ``size`` is bytes or text such as ``1GB``, which is the default, ``inodes`` how many files and directories there
        may be.  ``backing`` None takes the best this host can provide; the ``problem`` of what is returned says why
        better ones were passed over.  With ``require_enforced`` a backing that does not enforce the size is refused,
        ``preallocate`` takes the room on the host's disk at once.  ``store`` is the URL of a root where a chunked
        volume keeps its versions.

        Raises:
            InvalidName, InvalidSize, InvalidType: an argument cannot be.
            VolumeExists: the name is taken.
            NoSpace: the host has not the room, on disk or in memory.
            BackingUnsupported: the host cannot provide it.
        """
        check_name(name)
        size = Settings.from_environment().default_size if size is None else size
        record = VolumeRecord(
            name=name,
            type=checked_type(volume_type),
            size=exact_size(size) if type(size) is int else str(size),
            size_bytes=parse_size(str(size)),
            inodes=checked_inodes(inodes),
            backing=BackingKind.CHUNKED,
            labels=checked_labels(labels),
            preallocated=preallocate,
        )
        wanted = None if backing is None else checked_backing(backing)
        if os.path.lexists(self.base / name):
            raise VolumeExists(f"volume already exists: {name}", hint="choose another name; nothing of it was changed")
        chosen, passed = choose_backing(self.base, record.type, wanted)
        if require_enforced and not chosen.enforced:
            raise BackingUnsupported(
                f"the size of {name} would not be enforced: {'; '.join(passed) or chosen.kind}",
                hint="make FUSE available, or leave --require-enforced out",
            )
        if store is not None:
            record = self._in_store(record, chosen.kind, store)
        record = evolve(record, backing=chosen.kind, enforced=chosen.enforced)
        made = self._publish(record, lambda directory: chosen.create(directory, record))
        self._sweep()
        return evolve(self._info(made), problem="; ".join(passed) or None)

    def names(self) -> list[str]:
        """The names of the volumes, ascending."""
        return self._registry.names()

    def list(
        self,
        *,
        name: str | None = None,
        volume_type: VolumeType | str | None = None,
        labels: Mapping[str, str | None] | None = None,
        in_use: bool | None = None,
    ) -> builtins.list[VolumeInfo]:
        """The volumes, ascending by name: those whose name contains ``name`` and that have all of ``labels``.

        A label of None may have any value.  Reads two small files a volume; asks no daemon and walks nothing.
        """
        mounted = mount_points()
        wanted = None if volume_type is None else checked_type(volume_type)
        found = []
        for one in self._registry.names():
            if name is not None and name not in one:
                continue
            try:
                info = self._info(self._registry.load(one), mounted)
            except VolumeNotFound:
                # Removed since its name was read, or a directory of somebody else's.
                continue
            except StoreError as error:
                info = VolumeInfo(name=one, path=self.base / one / DATA, record=None, problem=error.message)
            if _matches(info, wanted, labels or {}, in_use):
                found.append(info)
        return found

    def inspect(self, name: str) -> VolumeInfo:
        """Everything about a volume, as exact as it is without mounting it.

        Raises:
            VolumeNotFound: there is none.
            VolumeCorrupt: its record cannot be read.
        """
        record = self._registry.load(name)
        directory = self._registry.directory(name)
        info = self._info(record)
        backing = backing_of(record.backing)
        if backing.is_attached(directory):
            with contextlib.suppress(StoreError, OSError):
                info = evolve(info, usage=backing.exact_usage(directory, record))
        return info

    def usage(self, name: str) -> Usage:
        """What a volume holds at this moment; one whose daemon was killed is mounted to find out.

        Raises:
            VolumeNotFound: there is none.
        """
        with self._registry.changing(name) as record:
            return backing_of(record.backing).exact_usage(self._registry.directory(name), record)

    def largest(self, name: str, count: int = 10) -> builtins.list[dict[str, Any]]:
        """The directories of a volume that hold most: ``path``, ``bytes`` and ``files``, from its index.

        Raises:
            BackingUnsupported: its backing has no index.
        """
        with self._registry.changing(name) as record:
            directory = self._registry.directory(name)
            if record.backing is not BackingKind.CHUNKED:
                raise BackingUnsupported(
                    f"volume {name} has no index: its backing is {record.backing}", hint="use du in a job"
                )
            ChunkedBacking().attach(directory, record)
            found: builtins.list[dict[str, Any]] = ask(directory / DATA, "largest", count=count)["directories"]
            return found

    def address(self, name: str) -> str:
        """The address of a volume, ``ROOT#NAME``, by which all that works on volumes in stores looks at its versions.

        Raises:
            VolumeNotFound: there is none.
            BackingUnsupported: its backing has no versions.
            NoSuchVersion: it has none yet.
        """
        from stowstore.named.versions import require_versions, root_of

        record, directory = self._registry.load(name), self._registry.directory(name)
        require_versions(record)
        if record.head is None:
            root_of(directory, record)
        root, stored = address_of(directory, record)
        return f"{root}#{stored}"

    def jobs(self, name: str | None = None) -> dict[str, builtins.list[Holder]]:
        """Who uses a volume, or all that are used, by name.

        Raises:
            VolumeNotFound: there is none of that name.
        """
        if name is not None:
            self._registry.load(name)
            return {name: holders(self._registry.directory(name))}
        found = {one: holders(self.base / one) for one in self._registry.names()}
        return {one: jobs for one, jobs in found.items() if jobs}

    # -- changing ----------------------------------------------------------------------------------------------------

    def resize(self, name: str, size: str | int | None, *, inodes: int | None = None) -> VolumeInfo:
        """Changes the size, also of a volume that is used: ``2GB``, ``+1GB``, ``-512MB``; at once, at any size.

        A size of None stays what it is, while ``inodes`` change.

        Raises:
            InvalidSize: that is no size.
            BelowUsed: the volume holds more; the message has both numbers.
        """
        with self._registry.changing(name) as record:
            text = exact_size(record.size_bytes) if size is None else str(size)
            directory = self._registry.directory(name)
            backing = backing_of(record.backing)
            wanted = resized(text, current=record.size_bytes, used=0)
            used = 0
            if wanted < record.size_bytes:
                used = backing.exact_usage(directory, record).used_bytes or 0
            wanted = resized(text, current=record.size_bytes, used=used)
            if wanted > record.size_bytes:
                self._require_allowed(evolve(record, size_bytes=wanted))
            limit = record.inodes if inodes is None else checked_inodes(inodes)
            if record.type is VolumeType.MEMORY and wanted > record.size_bytes:
                from stowstore.named.room import require_memory

                require_memory(wanted - record.size_bytes)
            backing.resize(directory, record, wanted, limit)
            shown = (
                record.size
                if size is None
                else text.strip()
                if text.strip()[:1] not in ("+", "-")
                else exact_size(wanted)
            )
            record = self._registry.save(evolve(record, size=shown, size_bytes=wanted, inodes=limit))
        return self._info(record)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Removes a volume and what it holds; the name is free when this returns.

        With ``force`` also one that jobs use: it is detached, they go on, and what it holds is deleted when the last of
        them has ended.

        Raises:
            VolumeNotFound: there is none.
            VolumeInUse: jobs use it, or somebody works in it; the message names them.
        """
        self._remove(name, force=force)

    def prunable(
        self, *, labels: Mapping[str, str | None] | None = None, everything: bool = False
    ) -> builtins.list[VolumeInfo]:
        """The volumes that no job uses and that hold nothing; with labels, or ``everything``, whatever they hold.

        Without either only empty volumes are found: a forgotten filter must not cost data.
        """
        found = [info for info in self.list(labels=labels, in_use=False) if info.record is not None]
        if labels or everything:
            return found
        return [info for info in found if _is_empty(info) and self._is_still_empty(info.name)]

    def prune(self, names: Iterable[str], *, only_empty: bool = False) -> builtins.list[str]:
        """Removes those of the volumes, as `prunable` has found them, that are still unused; returns their names.

        With ``only_empty`` one that holds something by now stays as well.
        """
        self.recover()
        removed = []
        for name in names:
            with contextlib.suppress(VolumeInUse, VolumeNotFound):
                if self._remove(name, only_empty=only_empty):
                    removed.append(name)
        return removed

    def stop_jobs(self, name: str, *, patience: float = 10.0) -> builtins.list[str]:
        """Asks the jobs that use a volume to end, and waits; returns the ids of those that were asked.

        Raises:
            VolumeInUse: some have not ended in time.
        """
        directory = self._registry.directory(name)
        self._registry.load(name)
        asked = holders(directory)
        for holder in asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.pid, signal.SIGTERM)
        end = time.monotonic() + patience
        while left := holders(directory):
            if time.monotonic() >= end:
                raise VolumeInUse(
                    f"volume is currently in use by {len(left)} job(s): {', '.join(one.job for one in left)};"
                    f" they did not end within {patience:g} s",
                    jobs=tuple(one.job for one in left),
                    hint="use --force: it is deleted after them",
                )
            time.sleep(0.05)
        return [holder.job for holder in asked]

    def label(self, name: str, labels: Mapping[str, str | None]) -> VolumeInfo:
        """Sets labels of a volume, and takes away those that are None."""
        given = checked_labels({key: value for key, value in labels.items() if value is not None})
        with self._registry.changing(name) as record:
            kept = {key: value for key, value in record.labels.items() if key not in labels}
            return self._info(self._registry.save(evolve(record, labels={**kept, **given})))

    def recover(self) -> None:
        """Finishes what crashes and reboots have left: half-made and half-removed volumes, dead mounts and leases."""
        self._registry.sweep_new()
        self._sweep()
        for name in self._registry.names():
            with contextlib.suppress(VolumeNotFound, VolumeCorrupt), self._registry.changing(name) as record:
                directory = self._registry.directory(name)
                forget_dead(directory)
                backing_of(record.backing).recover(directory, record)

    # -- using -------------------------------------------------------------------------------------------------------

    def attach(
        self, name: str, *, access: Access = Access.RW, holder: Holder, snapshot: str | None = None
    ) -> Attachment:
        """Leases a volume for a job and mounts it on the host, unless it is mounted.

        ``snapshot`` is a version, the beginning of its id, or a tag: that state is attached, for reading.

        Raises:
            VolumeNotFound: there is no such volume; nothing was mounted.
            NoSuchVersion: it has no such version.
            StoreError, OSError: it cannot be mounted; no lease is left.
        """
        with self._registry.changing(name) as record:
            directory = self._registry.directory(name)
            forget_dead(directory)
            lease = take(directory, evolve(holder, access=Access.RO if snapshot is not None else access))
            try:
                backing = backing_of(record.backing)
                if snapshot is None:
                    path = backing.attach(directory, record)
                else:
                    from stowstore.named.versions import resolve

                    found = resolve(directory, record, snapshot)
                    path = ChunkedBacking().attach_version(directory, record, str(found.locator), found.id)
            except BaseException:
                lease.release()
                raise
        return Attachment(name, path, read_only=snapshot is not None or access is Access.RO, lease=lease)

    def _remove(self, name: str, *, force: bool = False, only_empty: bool = False) -> bool:
        from stowstore.named.removing import delete, delete_when_free, note_server

        with self._registry.locked(name) as directory:
            try:
                record: VolumeRecord | None = self._registry.load(name)
            except VolumeCorrupt:
                if not force:
                    raise
                record = None
            try:
                with exclusive(directory, "removed", hint="wait for them, or use --force"):
                    if only_empty and (record is None or not _holds_nothing(directory, record)):
                        return False
                    if record is not None:
                        backing_of(record.backing).detach(directory, record)
                    gone = self._registry.withdraw(name)
            except VolumeInUse:
                if not force:
                    raise
                note_server(directory)
                if record is not None:
                    backing_of(record.backing).detach(directory, record, force=True)
                gone = self._registry.withdraw(name)
        if not delete(gone):
            delete_when_free(gone)
        self._sweep()
        return True

    def _is_still_empty(self, name: str) -> bool:
        """Whether a volume that is empty by its counters is; they may be from before a crash, or never written."""
        with contextlib.suppress(StoreError, OSError), self._registry.changing(name) as record:
            return _holds_nothing(self._registry.directory(name), record)
        return False

    def _in_store(self, record: VolumeRecord, kind: BackingKind, store: str) -> VolumeRecord:
        """A record of a volume whose versions go to a store; its name is taken there."""
        if kind is not BackingKind.CHUNKED:
            raise BackingUnsupported(
                f"a volume with the backing {kind} has no store", hint="only chunked volumes keep versions in one"
            )
        from stowstore.named.versions import reserve

        return reserve(record, store)


def _matches(
    info: VolumeInfo, wanted: VolumeType | None, labels: Mapping[str, str | None], in_use: bool | None
) -> bool:
    if in_use is not None and info.is_in_use is not in_use:
        return False
    if info.record is None:
        return wanted is None and not labels
    if wanted is not None and info.record.type is not wanted:
        return False
    has = info.record.labels
    return all(key in has and (value is None or has[key] == value) for key, value in labels.items())


def _is_empty(info: VolumeInfo) -> bool:
    assert info.record is not None
    return not info.usage.used_bytes and (info.usage.inodes or 0) <= 1 and info.record.head is None


def _holds_nothing(directory: Path, record: VolumeRecord) -> bool:
    used = backing_of(record.backing).exact_usage(directory, record)
    return record.head is None and used.used_bytes == 0 and (used.inodes or 0) <= 1
