"""Records as volumes: each record a volume, each commit a version of it, each derived record a fork.

Every state of a record stays, near-identical runs share their chunks, a derived record costs one small write, and a
version can be mounted, compared and merged like any other. A volume has one writer at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from datastore.errors import AlreadyExists
from stowstore.config import ContainerPolicy
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.records.directory import RecordDirectory
from stowstore.records.errors import InvalidRecord, NoSuchRecord, RecordCollision, RecordDamaged
from stowstore.records.model import FileKind, RecordHeader, check_uuid
from stowstore.records.scanning import Found, scan
from stowstore.transfer import export_directory, import_directory
from stowstore.transfer.paths import entries, find
from stowstore.versions.address import VolumeAddress, normal_root, open_root
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.versions.history import walk_history
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.options import CommitOptions, SessionOptions
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session

__all__ = ["VolumeRecords"]

_HEADER: Final = "id.json"
#: What tells that an entry is the one it was.
_State = tuple[object, ...]


class VolumeRecords:
    """Record directories in one root of volumes, named by their uuids.

    Run records lie in the volume of their record, so a version is a record with its runs, as the directory has them.
    Where records are many and small, and nobody asks for their history, a `RecordStore` is cheaper.
    """

    def __init__(self, root: Root, address: str) -> None:
        self.root = root
        self._address = address

    @classmethod
    def open(cls, url: str, *, options: Mapping[str, str] | None = None) -> Self:
        """Opens the root at a URL, or makes one where there is nothing; the caller closes it."""
        address = normal_root(url)
        policy = ContainerPolicy.IF_MISSING if address.startswith("file:") else ContainerPolicy.NEVER
        return cls(open_root(address, options=options, containers=policy, create=RootFormat()), address)

    def contains(self, uuid: str) -> bool:
        """Whether there is a version of a record."""
        # A fork that nothing was committed to yet is a version of what it was forked from.
        return self.root.has_volume(check_uuid(uuid)) and self.root.head(uuid).volume == uuid

    def commit(self, record: RecordDirectory | str | os.PathLike[str]) -> str:
        """Brings the volume of a record to the state of its directory; returns the locator of that version.

        A directory that has not changed makes no version.

        Raises:
            InvalidRecord: it holds what a record cannot.
            RecordCollision: the uuid is that of another record.
            LeaseHeld: somebody else is writing the record.
        """
        directory = record if isinstance(record, RecordDirectory) else RecordDirectory.open(record)
        return self._commit(directory)

    def derive(self, uuid: str, record: RecordDirectory | str | os.PathLike[str]) -> str:
        """Makes a record that begins with the newest version of another one: a fork, and then what is different.

        Files that were copied with their times and modes, as ``cp -a`` does, share their chunks with it.

        One that stopped half way is ended by the next.

        Raises:
            NoSuchRecord: there is nothing to derive from.
            RootInUse: the derived record is there already.
        """
        directory = record if isinstance(record, RecordDirectory) else RecordDirectory.open(record)
        with self._reading(uuid, None) as session:
            if self.contains(directory.uuid) or not self.root.has_volume(directory.uuid):
                session.branch(directory.uuid)
        return self._commit(directory)

    def versions(self, uuid: str) -> Iterator[Manifest]:
        """The versions of a record, the newest first, those of the record it was derived from included.

        Raises:
            NoSuchRecord: there is none.
        """
        if not self.contains(uuid):
            raise NoSuchRecord(f"there is no record {uuid} in {self._address}")
        yield from walk_history(self.root, self.root.head(uuid))

    def retrieve(self, uuid: str, directory: str | os.PathLike[str], *, version: str | None = None) -> bool:
        """Puts a version of a record, the newest by default, at a directory; False if it is not there, or damaged.

        Every block is verified as it is read, and the directory appears whole or not at all.

        Raises:
            AlreadyExists: something lies there.
        """
        target = Path(directory)
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise AlreadyExists(f"{target} is not empty", hint="retrieve into an empty or new directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:150]}.stow-part-"))
        try:
            with self._reading(uuid, version) as session:
                report = export_directory(session.files, staging)
            if report.skipped:
                raise RecordDamaged(f"not all of the record {uuid} can be read: {report.skipped[0][0]}")
            os.replace(staging, target)
        except (NoSuchRecord, NoSuchVersion, RecordDamaged):
            return False
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return True

    def close(self) -> None:
        """Closes the root's store, but one in memory, which is shared within the process."""
        if self.root.base.scheme != "mem":
            self.root.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, directory: RecordDirectory) -> str:
        # Looked at first: what no record can hold is refused here as in every other home of records.
        found = {entry.path: entry for path in _directories(directory) for entry in _entries(directory.path, path)}
        model = directory.model()
        message = f"{model.get('module') or directory.header.kind} {directory.uuid}"
        with (
            tempfile.TemporaryDirectory(prefix="stow-records-") as staging,
            Session.write(self.root, directory.uuid, SessionOptions(cache_dir=Path(staging))) as session,
        ):
            if session.base is not None and session.base.volume == directory.uuid:
                _check_header(session.files, directory.header)
                if dict(_states(session.files, "")) == {path: _state(entry) for path, entry in found.items()}:
                    return self._locator(session.base.name)
            _remove_gone(session.files, "", found)
            report = import_directory(session.files, directory.path)
            if report.skipped:
                raise InvalidRecord(f"{report.skipped[0][0]!r} cannot be read: {report.skipped[0][1]}")
            made = session.commit(CommitOptions(message=message))
        return self._locator(made.name)

    def _locator(self, name: VersionName) -> str:
        return str(VolumeAddress.locator(self._address, name.volume, name))

    def _reading(self, uuid: str, version: str | None) -> Session:
        try:
            return Session.read(self.root, self.root.resolve(check_uuid(uuid), version))
        except NoSuchVolume as error:
            raise NoSuchRecord(f"there is no record {uuid} in {self._address}") from error


def _directories(record: RecordDirectory) -> list[Path]:
    """The record's own directory, and those of its runs."""
    return [record.path, *scan(record.path, record.uuid).nested]


def _entries(top: Path, path: Path) -> Iterator[Found]:
    """The entries of a record or a run in it, by their paths below the top."""
    place = path.relative_to(top).as_posix()
    for entry in scan(path, RecordDirectory.open(path).uuid).entries:
        yield entry if place == "." else entry._replace(path=f"{place}/{entry.path}")


def _check_header(files: FileSystem, expected: RecordHeader) -> None:
    found = find(files, f"/{_HEADER}")
    handle = files.open(found.ino, os.O_RDONLY, ROOT)
    try:
        kept = RecordHeader.from_data(json.loads(files.read(handle, 0, found.size)))
    finally:
        files.release(handle)
    if kept != expected:
        raise RecordCollision(
            f"the uuid {expected.uuid} is that of another record already", hint="give one of them another uuid"
        )


def _remove_gone(files: FileSystem, prefix: str, found: Mapping[str, Found]) -> None:
    """Removes from a volume what the directory does not have any more, or has as something else."""
    kept = {path[: end if end >= 0 else None] for path in found for end in _ends(path)}
    ino = find(files, f"/{prefix}").ino
    for entry in list(entries(files, ino)):
        name = os.fsdecode(entry.name)
        path = f"{prefix}/{name}" if prefix else name
        assert entry.attributes is not None
        if stat.S_ISDIR(entry.attributes.mode):
            _remove_gone(files, path, found)
            if path not in kept or (path in found and found[path].kind is not FileKind.DIRECTORY):
                files.rmdir(ino, entry.name, ROOT)
        elif path not in found or not _same_kind(found[path], entry.attributes.mode):
            files.unlink(ino, entry.name, ROOT)


def _states(files: FileSystem, prefix: str) -> Iterator[tuple[str, _State]]:
    """What lies in a volume, as `_state` says it of a directory; an import touches even what it leaves as it was."""
    count = 0
    for entry in entries(files, find(files, f"/{prefix}").ino):
        count += 1
        attributes = entry.attributes
        assert attributes is not None
        name = os.fsdecode(entry.name)
        path = f"{prefix}/{name}" if prefix else name
        if stat.S_ISDIR(attributes.mode):
            yield from _states(files, path)
        elif stat.S_ISLNK(attributes.mode):
            yield path, (FileKind.LINK, os.fsdecode(files.readlink(attributes.ino)))
        else:
            mode = stat.S_IMODE(attributes.mode) & 0o777
            yield path, (FileKind.FILE, attributes.size, attributes.mtime_ns, mode)
    if not count and prefix:
        yield prefix, (FileKind.DIRECTORY,)


def _state(entry: Found) -> _State:
    if entry.kind is FileKind.FILE:
        return entry.kind, entry.stamp.size, entry.stamp.mtime_ns, entry.mode
    return (entry.kind, entry.target) if entry.kind is FileKind.LINK else (entry.kind,)


def _ends(path: str) -> Iterator[int]:
    """Where a path and each directory above it end."""
    yield -1
    end = path.rfind("/")
    while end > 0:
        yield end
        end = path.rfind("/", 0, end)


def _same_kind(entry: Found, mode: int) -> bool:
    return entry.kind is not FileKind.DIRECTORY and (entry.kind is FileKind.LINK) == stat.S_ISLNK(mode)
