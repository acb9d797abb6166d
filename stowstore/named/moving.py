"""Volumes from host to host and into tar files: what outlives this host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attrs import evolve

from datastore.errors import PreconditionFailed
from stowstore.named.backings import backing_of, choose_backing
from stowstore.named.backings.chunked import address_of
from stowstore.named.core import checked_type
from stowstore.named.errors import VolumeExists
from stowstore.named.history import HistoryOperations, reader
from stowstore.named.info import VolumeInfo
from stowstore.named.leases import take
from stowstore.named.names import check_name
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.settings import Settings
from stowstore.named.sizes import exact_size, parse_size

if TYPE_CHECKING:
    from stowstore.versions.root import Root

__all__ = ["MovingOperations"]


class MovingOperations(HistoryOperations):
    """Backups, and copies in other roots; while they are written, jobs go on and the volume cannot be removed."""

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

        with self._held(name, version, "push") as (record, found):
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
        room = (
            max(held, parse_size(Settings.from_environment().default_size)) if size is None else parse_size(str(size))
        )
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
        if isinstance(target, (str, os.PathLike)):
            from stowstore.named.archiving import tar_file

            with tar_file(Path(target)) as stream:
                self._export(name, stream, version)
            return os.fspath(target)
        self._export(name, target, version)
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
        size = Settings.from_environment().default_size if size is None else size
        made = VolumeRecord(
            name=name,
            type=checked_type(volume_type),
            size=str(size),
            size_bytes=parse_size(str(size)),
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

            return self._info(self._publish(made, build))

    # -- private -----------------------------------------------------------------------------------------------------

    def _moved_on(self, name: str, root: Root, head: Any) -> VolumeInfo:
        from stowstore.named.replicating import replicate
        from stowstore.named.versions import require_room, require_versions
        from stowstore.volumes.registry import registry

        record = self._registry.load(name)
        require_versions(record)
        require_room(record, root.load(head).statistics.used_bytes, head.id)
        with self.republished(name, "moved on") as address:
            try:
                replicate(root, registry.root(address.root), head, name=address.volume)
            except PreconditionFailed as error:
                raise VolumeExists(
                    f"volume already exists: {name}, with versions that {head.volume} does not have",
                    hint="pull under another name",
                ) from error
        return self._info(self._registry.load(name))

    def _export(self, name: str, stream: IO[bytes], version: str | None) -> None:
        from stowstore.named.archiving import export_directory_tar
        from stowstore.named.versions import root_of
        from stowstore.transfer import export_tar
        from stowstore.versions.options import SessionOptions
        from stowstore.versions.session import Session
        from stowstore.volumes.registry import registry

        if self._registry.load(name).backing is not BackingKind.CHUNKED and version is None:
            with self._plainly(name) as path:
                export_directory_tar(path, stream)
            return
        with self._held(name, version, "backup") as (record, found):
            root, _ = root_of(self._registry.directory(name), record)
            options = SessionOptions(key=registry.key_source(root.address))
            with Session.read(root, found.locator.version_name, options) as session:
                export_tar(session.files, stream)

    @contextlib.contextmanager
    def _plainly(self, name: str) -> Iterator[Path]:
        """The files of a volume without versions, leased and mounted."""
        with self._registry.changing(name) as record:
            directory = self._registry.directory(name)
            lease = take(directory, reader("backup"))
            try:
                path = backing_of(record.backing).attach(directory, record)
            except BaseException:
                lease.release()
                raise
        try:
            yield path
        finally:
            lease.release()

    def _imported(self, directory: Path, record: VolumeRecord, stream: IO[bytes]) -> VolumeRecord:
        from stowstore.named.archiving import import_directory_tar
        from stowstore.named.versions import opened
        from stowstore.transfer import import_tar
        from stowstore.versions.address import VolumeAddress
        from stowstore.versions.options import CommitOptions

        if record.backing is not BackingKind.CHUNKED:
            backing = backing_of(record.backing)
            try:
                import_directory_tar(backing.attach(directory, record), stream)
            except BaseException:
                backing.detach(directory, record, force=True)
                raise
            if record.type is not VolumeType.MEMORY:
                backing.detach(directory, record)
            return record
        with opened(directory, record) as session:
            import_tar(session.files, stream)
            made = session.commit(CommitOptions(message="restored from a backup"))
        url, _ = address_of(directory, record)
        return evolve(record, head=str(VolumeAddress.locator(url, made.volume, made.name)), snapshots=1)


def _target(target: str, name: str) -> tuple[str, str]:
    """The root and the name that ``ROOT#NAME`` or ``ROOT`` mean."""
    from stowstore.versions.address import normal_root
    from stowstore.versions.root import check_volume_name

    root, _, there = target.partition("#")
    return normal_root(root), check_volume_name(there or name)
