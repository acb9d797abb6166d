"""Versions, clones, backups and other hosts: what the registry hands on to the versions of chunked volumes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from datastore.errors import StoreError
from stowstore.named.backings import backing_of
from stowstore.named.backings.chunked import STORE, ChunkedBacking, address_of, counted
from stowstore.named.core import NamedCore, checked_type
from stowstore.named.errors import BackingUnsupported, VolumeExists
from stowstore.named.info import VolumeInfo
from stowstore.named.leases import Access, Holder, exclusive, take
from stowstore.named.names import check_name
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.registry import area_of
from stowstore.named.sizes import parse_size

if TYPE_CHECKING:
    from stowstore.named.versions import Version
    from stowstore.versions.address import VolumeAddress
    from stowstore.versions.merging import Conflicts
    from stowstore.versions.root import Root
    from stowstore.versions.successors import Merged
    from stowstore.volumes import Change, LogEntry

__all__ = ["HistoryOperations", "reader"]


class HistoryOperations(NamedCore):
    """What volumes with versions can do; of others most of it is refused, and says why."""

    def snapshot(self, name: str, message: str | None = None, *, tag: str | None = None) -> str:
        """Publishes the present state of a volume as a version, while jobs write on; returns its locator.

        Of a volume in memory this is what makes it outlive a reboot.  Equal states are one version.

        Raises:
            BackingUnsupported: its backing has no versions.
        """
        with self._registry.changing(name) as record:
            return self._snapshot(record, message, tag)

    def log(self, name: str, limit: int | None = None) -> list[LogEntry]:
        """The versions of a volume and those it came from, newest first."""
        from stowstore.named.versions import log_of, require_versions

        record = self._registry.load(name)
        require_versions(record)
        return log_of(self._registry.directory(name), record, limit)

    def diff(self, name: str, old: str | None = None, new: str | None = None) -> list[Change]:
        """What differs between two versions, ascending by path: the newest and the one before where none are given."""
        from stowstore.named.versions import resolve
        from stowstore.volumes import Volume

        record = self._registry.load(name)
        directory = self._registry.directory(name)
        volume: Any = Volume.blocking.from_locator(str(resolve(directory, record, new).locator))
        changes: list[Change] = volume.blocking.diff(
            None if old is None else str(resolve(directory, record, old).locator)
        )
        return changes

    def restore(self, name: str, version: str, *, message: str | None = None) -> str:
        """Makes an earlier state the present one; what came in between stays in the log.  Returns the locator.

        What is in no version yet is made one first, so nothing is lost.

        Raises:
            NoSuchVersion: there is none.
            VolumeInUse: jobs use the volume.
            BelowUsed: it has become too small for that state.
        """
        from stowstore.named.versions import go_back, resolve

        found = resolve(self._registry.directory(name), self._registry.load(name), version)
        with self.republished(name, "restored"):
            record = self._registry.load(name)
            return go_back(self._registry.directory(name), record, found.id, message or f"restored {found.id}")

    def clone(
        self,
        source: str,
        name: str,
        *,
        version: str | None = None,
        size: str | int | None = None,
        volume_type: VolumeType | str | None = None,
    ) -> VolumeInfo:
        """Makes another volume of the present state of one, or of one of its versions; both go on by themselves.

        Bytes are shared on the host's disk, so that it costs little whatever the size.

        Raises:
            VolumeExists: the name is taken.
            BelowUsed: ``size`` is less than the state holds.
        """
        self._require_free(name)
        record = self._registry.load(source)
        if record.backing is not BackingKind.CHUNKED and version is None:
            with self._registry.changing(source):
                return self._info(self._copied(record, self._like(record, name, size, volume_type)))
        with self._held(source, version, "clone") as (record, found):
            made = evolve(self._like(record, name, size, volume_type), parent=f"{source}@{found.id}")
            directory = self._registry.directory(source)
            if record.root is not None:
                return self._info(self._forked(directory, record, made, found))
            from stowstore.named.versions import root_of

            root, _ = root_of(directory, record)
            store = area_of(directory, record) / STORE
            return self._info(self._replicated(made, root, found.locator.version_name, link_from=store))

    def merge(
        self, name: str, other: str, *, version: str | None = None, conflicts: Conflicts, message: str | None = None
    ) -> Merged:
        """Takes into a volume what another one has changed since one of them was cloned from the other.

        Of ``other`` the present state is meant, or one of its versions.

        Raises:
            MergeConflict: with ``Conflicts.FAIL``, naming the paths both have changed; nothing was merged.
            Unrelated: neither was cloned from the other.
            VolumeInUse: jobs use the volume that is to be changed.
        """
        from stowstore.named.replicating import bring, link_file
        from stowstore.named.versions import root_of
        from stowstore.versions.options import SessionOptions, chunk_store
        from stowstore.versions.successors import merge_version
        from stowstore.volumes.lineage import current_producer
        from stowstore.volumes.registry import registry

        with self._held(other, version, "merge") as (record, found), self.republished(name, "merged into") as address:
            source, _ = root_of(self._registry.directory(other), record)
            theirs, root = found.locator.version_name, registry.root(address.root)
            mine = self._registry.load(name)
            if root.address != source.address:
                directories = [area_of(self._registry.directory(one.name), one) / STORE for one in (record, mine)]
                bring(source, root, theirs, transfer=None if record.root or mine.root else link_file(*directories))
            with chunk_store(root, SessionOptions(key=registry.key_source(root.address))) as chunks:
                return merge_version(
                    root,
                    chunks,
                    address.volume,
                    theirs,
                    conflicts=conflicts,
                    message=message,
                    produced_by=current_producer(),
                )

    def rescue(self, name: str, rescued: str, *, message: str | None = None) -> str:
        """Makes what a stranded journal of a volume holds another volume of its root, and returns that one's locator.

        A journal is stranded when a version was published past the registry, in the volume's root.

        Raises:
            VolumeInUse: jobs use the volume.
            VolumeError: its journal holds no changes.
            RootInUse: there is a volume called ``rescued`` in its root.
        """
        from stowstore.named.versions import session_options
        from stowstore.versions.address import VolumeAddress
        from stowstore.versions.recovering import recover_journal
        from stowstore.volumes.lineage import current_producer
        from stowstore.volumes.registry import registry

        with self._registry.changing(name) as record:
            options = session_options(self._registry.directory(name), record)
            directory = self._registry.directory(name)
            with exclusive(directory, "recovered"):
                backing_of(record.backing).detach(directory, record)
                url, stored = address_of(directory, record)
                made = recover_journal(
                    registry.root(url), stored, rescued, options, message=message, produced_by=current_producer()
                )
        return str(VolumeAddress.locator(url, made.volume, made.name))

    @contextlib.contextmanager
    def republished(self, name: str, doing: str, *, even_damaged: bool = False) -> Iterator[VolumeAddress]:
        """Has a volume alone while something publishes versions of it in its root; ``doing`` tells jobs' owners what.

        What is in no version yet is made one first: a version made beside uncommitted changes would strand them.  Of a
        volume that is too damaged for that they are left, for ``even_damaged``; `rescue` has them.

        Raises:
            BackingUnsupported: its backing has no versions.
            VolumeInUse: jobs use the volume.
        """
        from stowstore.named.versions import require_versions, resolve, root_of
        from stowstore.versions.address import VolumeAddress

        with self._registry.changing(name) as record:
            require_versions(record)
            directory = self._registry.directory(name)
            with exclusive(directory, doing):
                before = record.head
                try:
                    before = self._snapshot(record, f"before it was {doing}", None)
                except StoreError:
                    if not even_damaged:
                        raise
                backing_of(record.backing).detach(directory, record)
                try:
                    yield VolumeAddress(*address_of(directory, record))
                finally:
                    found = resolve(directory, record).locator
                    if str(found) != before:
                        record = self._registry.load(name)
                        statistics = root_of(directory, record)[0].load(found.version_name).statistics
                        counted(directory, record, statistics.used_bytes, statistics.inode_count)
                        self._registry.save(evolve(record, head=str(found), snapshots=record.snapshots + 1))

    # -- private -----------------------------------------------------------------------------------------------------

    def _like(
        self, record: VolumeRecord, name: str, size: str | int | None, volume_type: VolumeType | str | None
    ) -> VolumeRecord:
        """The record of a clone, as far as it is not said otherwise that of its source."""
        return VolumeRecord(
            name=name,
            type=record.type if volume_type is None else checked_type(volume_type),
            size=record.size if size is None else str(size),
            size_bytes=record.size_bytes if size is None else parse_size(str(size)),
            inodes=record.inodes,
            backing=record.backing,
            enforced=record.enforced,
            labels=record.labels,
            parent=record.name,
        )

    def _require_free(self, name: str) -> None:
        check_name(name)
        if os.path.lexists(self.base / name):
            raise VolumeExists(f"volume already exists: {name}", hint="choose another name; nothing of it was changed")

    def _snapshot(self, record: VolumeRecord, message: str | None, tag: str | None) -> str:
        """Makes a version of a volume that is being changed, and notes it in its record."""
        from stowstore.named.versions import take_snapshot

        locator = take_snapshot(self._registry.directory(record.name), record, message, tag)
        if locator != record.head:
            self._registry.save(evolve(record, head=locator, snapshots=record.snapshots + 1))
        return locator

    def _state(self, record: VolumeRecord, version: str | None) -> Version:
        """The version that is asked for; of the present state one is made."""
        from stowstore.named.versions import Version, resolve
        from stowstore.versions.address import VolumeAddress

        directory = self._registry.directory(record.name)
        if version is not None:
            return resolve(directory, record, version)
        address = VolumeAddress.parse(self._snapshot(record, None, None))
        return Version(id=address.version_name.id, locator=address)

    @contextlib.contextmanager
    def _held(self, name: str, version: str | None, doing: str) -> Iterator[tuple[VolumeRecord, Version]]:
        """A version to read from for long: a lease keeps the volume there, and every other command may go on."""
        with self._registry.changing(name) as record:
            found = self._state(record, version)
            lease = take(self._registry.directory(name), reader(doing))
        try:
            yield record, found
        finally:
            lease.release()

    def _copied(self, record: VolumeRecord, made: VolumeRecord) -> VolumeRecord:
        """A clone of a volume without versions: every byte is copied."""
        from stowstore.named.archiving import copy_directory

        if made.type is not record.type:
            raise BackingUnsupported(f"a clone of {record.name} has its type: its backing is {record.backing}")
        backing = backing_of(record.backing)
        source = backing.attach(self._registry.directory(record.name), record)

        def build(draft: Path) -> VolumeRecord:
            backing.create(draft, made)
            try:
                copy_directory(source, backing.attach(draft, made))
            except BaseException:
                backing.detach(draft, made, force=True)
                raise
            if made.type is not VolumeType.MEMORY:
                backing.detach(draft, made)
            return made

        return self._publish(made, build)

    def _forked(self, directory: Path, record: VolumeRecord, made: VolumeRecord, found: Version) -> VolumeRecord:
        """A clone of a volume whose root others share: one small write there."""
        from stowstore.named.versions import require_room, root_of

        root, _ = root_of(directory, record)
        statistics = root.load(found.locator.version_name).statistics
        require_room(made, statistics.used_bytes, found.id)
        root.make_volume(made.name, found.locator.version_name)
        try:
            made = evolve(made, root=record.root, stored_as=made.name, head=str(found.locator))

            def build(draft: Path) -> VolumeRecord:
                counted(draft, made, statistics.used_bytes, statistics.inode_count)
                return made

            return self._publish(made, build)
        except BaseException:
            root.delete_refs(made.name)
            raise

    def _replicated(
        self, made: VolumeRecord, source: Root, head: Any, *, link_from: Path | None = None
    ) -> VolumeRecord:
        """A new volume on this host that begins with a version of another root."""
        from stowstore.named.replicating import link_file, replicate
        from stowstore.named.versions import require_room
        from stowstore.versions.address import VolumeAddress
        from stowstore.volumes.registry import registry

        ChunkedBacking().probe(self.base)
        statistics = source.load(head).statistics
        require_room(made, statistics.used_bytes, head.id)

        def build(draft: Path) -> VolumeRecord:
            ChunkedBacking().create(draft, made)
            url, name = address_of(draft, made)
            target = registry.root(url, create=True)
            link = None if link_from is None else link_file(link_from, area_of(draft, made) / STORE)
            replicate(source, target, head, name=name, new=True, transfer=link)
            counted(draft, made, statistics.used_bytes, statistics.inode_count)
            return evolve(made, head=str(VolumeAddress.locator(url, head.volume, head)), snapshots=1)

        return self._publish(made, build)


def reader(doing: str) -> Holder:
    """Who this process is while it reads a volume for long."""
    return Holder(job=f"{doing}-{os.getpid()}", command=f"stowstore volume {doing}", access=Access.RO)
