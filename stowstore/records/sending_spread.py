"""Sending the files of a record from workers, wherever a `Runner` has them.

Workers see the directory of the record under the same path, and the store with credentials of their own.  What they
need to know of earlier commits and uploads they read from the store themselves; the manifest is committed by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from attrs import field, frozen

from stowstore.config import ContainerPolicy
from stowstore.records.condemned import read_condemned
from stowstore.records.directory import RecordDirectory
from stowstore.records.model import FileKind
from stowstore.records.scanning import Found
from stowstore.records.send_notes import read_notes
from stowstore.records.sending_files import Content, FileSender, Sent, Terms
from stowstore.runners import Cluster, require_same_directory
from stowstore.versions.address import normal_root
from stowstore.versions.places import public_options
from stowstore.versions.ulid import new_ulid

if TYPE_CHECKING:
    from stowstore.records.store import RecordStore

__all__ = ["RecordsPlace", "Spread"]

#: What one task holds at most; a larger file is a task of its own.
_TASK_FILES: Final = 256
_TASK_BYTES: Final = 64 << 20


@frozen(kw_only=True)
class RecordsPlace:
    """The records below a URL, for one run of a job; holds no secret."""

    url: str
    options: tuple[tuple[str, str], ...] = ()
    run: str = field(factory=new_ulid)

    @classmethod
    def of(cls, url: str, options: Mapping[str, str] | None = None) -> Self:
        """The place of records; secret options are left out, each process has its own."""
        url = normal_root(url)
        return cls(url=url, options=public_options(url, options or {}))

    def open(self) -> RecordStore:
        from stowstore.records.opening import open_records

        return open_records(self.url, options=dict(self.options), containers=ContainerPolicy.NEVER)


class Spread:
    """Sends files of records with the workers of a cluster."""

    def __init__(self, cluster: Cluster, place: RecordsPlace) -> None:
        self._runner = cluster.at(place)

    def send(self, record: RecordDirectory, files: Sequence[Found], terms: Terms) -> Iterator[Sent | None]:
        """What comes of each file, None of one that is gone.

        Raises:
            ConfigError: workers do not see the directory.
            FileChanged: a file would not keep still.
            StoreError: the store failed, or the cluster is lost.
        """
        path = os.path.abspath(record.path)
        status = os.stat(path)
        tasks = (_Task(path, status.st_ino, status.st_mtime_ns, record.uuid, terms, part) for part in _parts(files))
        for sent in self._runner.map(_send_files, tasks):
            yield from sent


class _Task(NamedTuple):
    """Files that one worker sends, of a directory that it must see as the client does."""

    directory: str
    ino: int
    mtime_ns: int
    uuid: str
    terms: Terms
    files: tuple[Found, ...]


def _send_files(records: RecordStore, task: _Task) -> list[Sent | None]:
    """What a worker does: sends some files; those that are there already, from whomever, are found."""
    require_same_directory(task.directory, task.ino, task.mtime_ns)
    store, layout = records.store, records.layout
    condemned = read_condemned(store, layout)
    keys: dict[Content, str] = {}
    previous = None if task.terms.fresh else records.manifests.read(task.uuid)
    before = (
        {} if previous is None else {file.path: file for file in records.manifests.complete(previous.manifest).files}
    )
    for file in before.values():
        if file.kind is FileKind.FILE:
            keys.setdefault((file.sha256, file.size), file.key)
    noted, _ = read_notes(store, layout, task.uuid, condemned, own="")
    sender = FileSender(
        store,
        layout,
        task.directory,
        task.uuid,
        task.terms,
        before=before,
        condemned=condemned,
        keys={**noted, **keys},
    )
    return [sender.send(file) for file in task.files]


def _parts(files: Sequence[Found]) -> Iterator[tuple[Found, ...]]:
    part: list[Found] = []
    size = 0
    for file in files:
        part.append(file)
        size += file.stamp.size
        if size >= _TASK_BYTES or len(part) >= _TASK_FILES:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)
