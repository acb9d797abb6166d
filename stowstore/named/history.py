"""Versions, clones, backups and other hosts: what the registry hands on to the versions of chunked volumes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from attrs import evolve

from stowstore.named.backings import backing_of, choose_backing
from stowstore.named.backings.chunked import STORE, ChunkedBacking, address_of, counted
from stowstore.named.core import NamedCore, checked_type
from stowstore.named.errors import BackingUnsupported, VolumeExists
from stowstore.named.info import VolumeInfo
from stowstore.named.leases import exclusive
from stowstore.named.names import check_name
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.registry import area_of
from stowstore.named.sizes import DEFAULT_SIZE, exact_size, parse_size

if TYPE_CHECKING:
    from stowstore.named.versions import Version
    from stowstore.transfer.progress import TransferReport
    from stowstore.versions.root import Root
    from stowstore.volumes import Change, LogEntry

__all__ = ["HistoryOperations"]


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

        with self._registry.changing(name) as record:
            directory = self._registry.directory(name)
            found = resolve(directory, record, version)
            with exclusive(directory, "restored"):
                self._snapshot(record, "before restore", None)
                backing_of(record.backing).detach(directory, record)
                locator = go_back(directory, record, found.id, message or f"restored {found.id}")
            self._registry.save(evolve(self._registry.load(name), head=locator, snapshots=record.snapshots + 1))
            return locator

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
        with self._registry.changing(source) as record:
            made = VolumeRecord(
                name=name,
                type=record.type if volume_type is None else checked_type(volume_type),
                size=record.size if size is None else str(size),
                size_bytes=record.size_bytes if size is None else parse_size(str(size)),
                inodes=record.inodes,
                backing=record.backing,
                enforced=record.enforced,
                labels=record.labels,
                parent=source,
            )
            if record.backing is not BackingKind.CHUNKED and version is None:
                return self._info(self._copied(record, made))
            found = self._state(record, version)
            made = evolve(made, parent=f"{source}@{found.id}")
            directory = self._registry.directory(source)
            if record.root is not None:
                return self._info(self._forked(directory, record, made, found))
            from stowstore.named.versions import root_of

            root, _ = root_of(directory, record)
            store = area_of(directory, record) / STORE
            return self._info(self._replicated(made, root, found.locator.version_name, link_from=store))

    def push(self, name: str, target: str, *, version: str | None = None) -> str:
        """Copies a version, the present state without one, and its history to another root; returns its locator there.

        ``target`` is ``ROOT#NAME``, or a root where it gets the volume's own name.  What is there already is not copied
        again, and the head there moves on from its past only.

        Raises:
            PreconditionFailed: the volume there has versions that are not in this history.
        """
        from stowstore.named.replicating import replicate
        from stowstore.named.versions import root_of
        from stowstore.versions.address import VolumeAddress
        from stowstore.volumes.registry import registry

        with self._registry.changing(name) as record:
            found = self._state(record, version)
            url, there = _target(target, name)
            source, _ = root_of(self._registry.directory(name), record)
            replicate(source, registry.root(url, create=True), found.locator.version_name, name=there)
            return str(VolumeAddress.locator(url, found.locator.volume, found.locator.version_name))

    def pull(
        self,
        source: str,
        name: str,
        *,
        size: str | int | None = None,
        volume_type: VolumeType | str = VolumeType.FILESYSTEM,
    ) -> VolumeInfo:
        """Makes a volume of one in another root: ``ROOT#NAME``, a version or tag of it, or a locator.

        A volume of that name that holds a part of the same history moves on to it, unless jobs use it.

        Raises:
            VolumeExists: the name is taken by a volume with versions of its own.
            BelowUsed: ``size`` is less than the version holds.
        """
        from stowstore.versions.address import VolumeAddress
        from stowstore.volumes.registry import registry

        address = VolumeAddress.parse(source)
        root = registry.root(address.root)
        head = address.version_name if address.digest else root.resolve(address.volume, address.version)
        if name in self._registry.names():
            return self._moved_on(name, root, head)
        held = root.load(head).statistics.used_bytes
        room = max(held, parse_size(DEFAULT_SIZE)) if size is None else parse_size(str(size))
        made = VolumeRecord(
            name=check_name(name),
            type=checked_type(volume_type),
            size=exact_size(room) if size is None else str(size),
            size_bytes=room,
            backing=BackingKind.CHUNKED,
            parent=f"{address.root}#{head.volume}@{head.id}",
        )
        return self._info(self._replicated(made, root, head))

    def backup(self, name: str, target: str | os.PathLike[str] | IO[bytes], *, version: str | None = None) -> str:
        """Writes a version, the present state without one, as a tar file or stream, or to another root by `push`.

        A name that ends in ``.gz`` or ``.tgz`` is compressed.  A file appears whole or not at all.  Returns where.
        """
        if isinstance(target, str) and "://" in target:
            return self.push(name, target, version=version)
        with self._registry.changing(name) as record:
            if isinstance(target, (str, os.PathLike)):
                with _written(Path(target)) as stream:
                    self._export(record, stream, version)
                return os.fspath(target)
            self._export(record, target, version)
            return "-"

    def restore_backup(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        name: str,
        *,
        size: str | int | None = None,
        volume_type: VolumeType | str = VolumeType.FILESYSTEM,
    ) -> VolumeInfo:
        """Makes a volume of a tar file or stream, compressed or not, or of a volume in another root by `pull`.

        Raises:
            VolumeExists: the name is taken.
            OSError: the volume is too small (ENOSPC), or the archive cannot be read; nothing of the volume is left.
        """
        if isinstance(source, str) and "://" in source:
            self._require_free(name)
            return self.pull(source, name, size=size, volume_type=volume_type)
        self._require_free(name)
        made = VolumeRecord(
            name=name,
            type=checked_type(volume_type),
            size=str(size or DEFAULT_SIZE),
            size_bytes=parse_size(str(size or DEFAULT_SIZE)),
            backing=BackingKind.CHUNKED,
        )
        chosen, _ = choose_backing(self.base, made.type, None)
        made = evolve(made, backing=chosen.kind, enforced=chosen.enforced)
        with contextlib.ExitStack() as stack:
            stream: IO[bytes]
            if isinstance(source, (str, os.PathLike)):
                stream = stack.enter_context(open(source, "rb"))
            else:
                stream = source

            def build(directory: Path) -> VolumeRecord:
                record = chosen.create(directory, made)
                return self._imported(directory, record, stream)

            return self._info(self._registry.publish(made, build))

    # -- private -----------------------------------------------------------------------------------------------------

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

        return self._registry.publish(made, build)

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

            return self._registry.publish(made, build)
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

        return self._registry.publish(made, build)

    def _moved_on(self, name: str, root: Root, head: Any) -> VolumeInfo:
        from datastore.errors import PreconditionFailed
        from stowstore.named.replicating import replicate
        from stowstore.named.versions import require_room, require_versions, root_of
        from stowstore.versions.address import VolumeAddress

        statistics = root.load(head).statistics
        with self._registry.changing(name) as record:
            require_versions(record)
            require_room(record, statistics.used_bytes, head.id)
            directory = self._registry.directory(name)
            with exclusive(directory, "moved on"):
                self._snapshot(record, "before pull", None)
                backing_of(record.backing).detach(directory, record)
                target, stored = root_of(directory, record)
                try:
                    replicate(root, target, head, name=stored)
                except PreconditionFailed as error:
                    raise VolumeExists(
                        f"volume already exists: {name}, with versions that {head.volume} does not have",
                        hint="pull under another name",
                    ) from error
                counted(directory, record, statistics.used_bytes, statistics.inode_count)
            url, _ = address_of(directory, record)
            record = self._registry.load(name)
            locator = str(VolumeAddress.locator(url, head.volume, head))
            return self._info(self._registry.save(evolve(record, head=locator, snapshots=record.snapshots + 1)))

    def _export(self, record: VolumeRecord, stream: IO[bytes], version: str | None) -> TransferReport:
        from stowstore.named.archiving import export_directory_tar
        from stowstore.named.versions import root_of
        from stowstore.transfer import export_tar
        from stowstore.versions.session import Session, SessionOptions
        from stowstore.volumes.registry import registry

        directory = self._registry.directory(record.name)
        if record.backing is not BackingKind.CHUNKED:
            if version is not None:
                raise BackingUnsupported(f"volume {record.name} has no versions: its backing is {record.backing}")
            return export_directory_tar(backing_of(record.backing).attach(directory, record), stream)
        found = self._state(record, version)
        root, _ = root_of(directory, record)
        options = SessionOptions(key=registry.key_source(root.address))
        with Session.read(root, found.locator.version_name, options) as session:
            return export_tar(session.files, stream)

    def _imported(self, directory: Path, record: VolumeRecord, stream: IO[bytes]) -> VolumeRecord:
        from stowstore.named.archiving import import_directory_tar
        from stowstore.named.versions import opened
        from stowstore.transfer import import_tar
        from stowstore.versions.address import VolumeAddress
        from stowstore.versions.session import CommitOptions

        if record.backing is not BackingKind.CHUNKED:
            backing = backing_of(record.backing)
            import_directory_tar(backing.attach(directory, record), stream)
            backing.detach(directory, record)
            return record
        with opened(directory, record) as session:
            import_tar(session.files, stream)
            made = session.commit(CommitOptions(message="restored from a backup"))
        url, _ = address_of(directory, record)
        return evolve(record, head=str(VolumeAddress.locator(url, made.volume, made.name)), snapshots=1)


@contextlib.contextmanager
def _written(target: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all, compressed as its name says."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(draft, "wb", buffering=1 << 20) as raw:
            if target.name.endswith((".gz", ".tgz")):
                import gzip

                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _target(target: str, name: str) -> tuple[str, str]:
    """The root and the name that ``ROOT#NAME`` or ``ROOT`` mean."""
    from stowstore.versions.address import normal_root
    from stowstore.versions.root import check_volume_name

    root, _, there = target.partition("#")
    return normal_root(root), check_volume_name(there or name)
