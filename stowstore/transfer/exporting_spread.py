"""Exporting into a directory whose files are written by workers, wherever a `Runner` has them.

This process makes the directories, divides what lies in them, and at the end sets further names of files and the times
of directories.  Workers see the directory under the same path; what one has written whole is not written again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from attrs import frozen

from stowstore.namespace.filesystem import FileSystem
from stowstore.runners import Cluster, require_same_directory
from stowstore.transfer.exporting import Exporter, Item, open_destination, walk_files
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.versions.manifest import VersionName
from stowstore.versions.places import RootPlace
from stowstore.versions.session import Session

__all__ = ["export_spread"]

#: What one task holds at most; a larger file is a task of its own.
_TASK_FILES: Final = 512
_TASK_BYTES: Final = 64 << 20


def export_spread(
    files: FileSystem,
    destination: str | os.PathLike[str],
    source: str | bytes = "/",
    *,
    cluster: Cluster,
    root: RootPlace,
    version: VersionName,
    on_progress: Progress | None = None,
) -> TransferReport:
    """Writes what lies below a path of a version with the workers of a cluster, as `export_directory` does without.

    A file that is there already, of the same size, mode, owner, time and extended attributes, counts as unchanged.

    Raises:
        ConfigError: workers do not see the directory.
        OSError: the path is not in the version, or the destination cannot be written; what was written stays.
        StoreError: the store cannot be read, or the cluster is lost; another export goes on.
    """
    run = _Spread(files, os.path.abspath(destination), source)
    runner = cluster.at(VersionPlace(root=root, version=version))
    for written in runner.map(_write_items, run.tasks()):
        run.report.files += written.files
        run.report.unchanged += written.unchanged
        run.report.bytes += written.bytes
        run.report.skipped += written.skipped
        if on_progress is not None:
            on_progress(run.report)
    run.finish()
    if on_progress is not None:
        on_progress(run.report)
    return run.report


@frozen(kw_only=True)
class VersionPlace:
    """One version of a root, read."""

    root: RootPlace
    version: VersionName

    def open(self) -> Session:
        return Session.read(self.root.open_root(), self.version, self.root.session_options)


class _Task(NamedTuple):
    """Items that one worker writes below a directory, which it must see as the client does."""

    destination: bytes
    ino: int
    mtime_ns: int
    items: tuple[Item, ...]


class _Spread:
    """One export."""

    def __init__(self, files: FileSystem, destination: str, source: str | bytes) -> None:
        self.report = TransferReport()
        self._files = files
        self._root, self._top = open_destination(files, destination, source)
        self._exporter = Exporter(files, self._root, self.report)
        self._directories: list[Item] = []

    def tasks(self) -> Iterator[_Task]:
        """What workers have to do, as the directories for it are made."""
        items: list[Item] = []
        size = 0
        for item in walk_files(self._files, self._top):
            if stat.S_ISDIR(item.attributes.mode):
                self._exporter.make_directory(item)
                self._directories.append(item)
            elif item.attributes.nlink == 1 or self._exporter.is_first(item):
                items.append(item)
                size += item.attributes.size
                if size >= _TASK_BYTES or len(items) >= _TASK_FILES:
                    yield self._task(items)
                    items, size = [], 0
        if items:
            yield self._task(items)

    def finish(self) -> None:
        self._exporter.link()
        for item in reversed(self._directories):
            self._exporter.finish_directory(item)

    def _task(self, items: list[Item]) -> _Task:
        status = os.stat(self._root)
        return _Task(self._root, status.st_ino, status.st_mtime_ns, tuple(items))


def _write_items(session: Session, task: _Task) -> TransferReport:
    """What a worker does: writes items that are not there yet.

    Raises:
        ConfigError: the directory is not there, or is another one.
        OSError: it cannot be written.
        StoreError: the version cannot be read.
    """
    require_same_directory(os.fsdecode(task.destination), task.ino, task.mtime_ns)
    report = TransferReport()
    exporter = Exporter(session.files, task.destination, report)
    for item in task.items:
        if exporter.is_there(item):
            report.unchanged += 1
        else:
            exporter.write(item)
    return report
