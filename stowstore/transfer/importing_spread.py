"""Importing a directory whose files are read by workers, wherever a `Runner` has them.

This process walks the directory, makes what is no file, and sees what has not changed; workers read files, put their
blocks and say where these lie; then this process, the one writer of the volume, gives them their names.  Workers see
the directory under the same path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from blake3 import blake3

from stowstore.index.records import Extent, unpack_extents
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.loading import LoadedFile
from stowstore.namespace.permissions import ROOT
from stowstore.runners import Cluster
from stowstore.transfer.import_notes import ImportNotes
from stowstore.transfer.import_pieces import (
    FilePiece,
    ImportPlace,
    ImportTask,
    StoredPiece,
    store_pieces,
    unpack_note,
)
from stowstore.transfer.importing import Importer
from stowstore.transfer.paths import attributes_or_none, make_directories
from stowstore.transfer.progress import Progress, TransferReport
from stowstore.transfer.reading import Found, walk_directory
from stowstore.transfer.xattrs import SourceXattrs, Xattrs
from stowstore.versions.places import RootPlace

__all__ = ["import_spread"]

#: What one task holds at most; a larger file is cut into parts of so many bytes, at borders of blocks.
_TASK_FILES: Final = 1024
_TASK_BYTES: Final = 32 << 20
_PART_BYTES: Final = 64 << 20

_LOOKERS: Final = 8
_LOOK_BATCH: Final = 256


def import_spread(
    files: FileSystem,
    source: str | os.PathLike[str],
    target: str | bytes = "/",
    *,
    cluster: Cluster,
    root: RootPlace,
    notes: ImportNotes,
    on_progress: Progress | None = None,
) -> TransferReport:
    """Imports what lies in a directory with the workers of a cluster, as `import_directory` does without.

    What an import before has put and noted is not read again, as long as the files look as they did.

    Raises:
        NotADirectoryError: the source is no directory.
        ConfigError: workers do not see it.
        OSError: the volume cannot take it (ENOSPC, EROFS, ENOTDIR where a file is in the way).
        StoreError: packs cannot be put, or the cluster is lost; nothing is committed, and another import goes on.
    """
    path = os.path.abspath(source)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, "only directories are imported", path)
    runner = cluster.at(ImportPlace(root=root, notes=notes.base))
    run = _Spread(files, path, make_directories(files, target), notes)
    for stored in runner.map(store_pieces, run.tasks()):
        run.take(stored)
        notes.keep()
        if on_progress is not None:
            on_progress(run.report)
    run.finish()
    if on_progress is not None:
        on_progress(run.report)
    return run.report


class _File(NamedTuple):
    """A file on its way into the volume."""

    path: str
    parent: int
    name: bytes
    status: os.stat_result
    xattrs: Xattrs


class _Part(NamedTuple):
    """A piece that was asked for: of which file, where it begins, and how many the file has."""

    file: _File
    start: int
    total: int


class _Spread:
    """One import: tasks go out, and what comes back gets its names."""

    def __init__(self, files: FileSystem, source: str, target: int, notes: ImportNotes) -> None:
        self.report = TransferReport()
        self._files = files
        self._source = source
        self._status = os.stat(source)
        self._importer = Importer(files, target, self.report)
        self._noted = notes.read()
        #: The parts of each task that is under way, in the order of the tasks.
        self._asked: deque[list[_Part]] = deque()
        #: What has come so far of files that have several parts.
        self._gathered: dict[str, list[tuple[int, StoredPiece]]] = {}
        #: Where a file with several names was found first, and its further names.
        self._firsts: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._links: list[tuple[tuple[int, bytes], int, bytes]] = []

    def tasks(self) -> Iterator[ImportTask]:
        """What workers have to do; everything else is done here, between them."""
        pieces: list[FilePiece] = []
        parts: list[_Part] = []
        size = 0
        for file in self._changed():
            for piece, part in _pieces(file):
                noted = self._noted.pop(piece.key, None)
                if noted is not None:
                    self._take_part(part, unpack_note(noted))
                    continue
                pieces.append(piece)
                parts.append(part)
                size += (file.status.st_size if piece.stop is None else piece.stop) - piece.start
                if size >= _TASK_BYTES or len(pieces) >= _TASK_FILES:
                    yield self._task(pieces, parts)
                    pieces, parts, size = [], [], 0
        if pieces:
            yield self._task(pieces, parts)

    def take(self, stored: list[StoredPiece]) -> None:
        """Gives names to what has come of the first task that is under way."""
        for part, piece in zip(self._asked.popleft(), stored, strict=True):
            self._take_part(part, piece)

    def finish(self) -> None:
        """Makes further names of files, and sets what directories are to look like."""
        self._importer.loader.flush()
        for (first, first_name), parent, name in self._links:
            linked = attributes_or_none(self._files, first, first_name)
            if linked is None:
                # Its content could not be read, which was told.
                continue
            if attributes_or_none(self._files, parent, name) is not None:
                self._files.unlink(parent, name, ROOT)
            self._files.link(linked.ino, parent, name, ROOT)
            self.report.files += 1
        self._importer.finish()

    def _task(self, pieces: list[FilePiece], parts: list[_Part]) -> ImportTask:
        self._asked.append(parts)
        return ImportTask(self._source, self._status.st_ino, self._status.st_mtime_ns, tuple(pieces))

    def _changed(self) -> Iterator[_File]:
        """The files whose content has to be brought in; what else there is, is in when this goes on."""
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="stow-import") as pool:
            for found, status, xattrs in _looked_at(pool, walk_directory(self._source, self.report), self.report):
                if isinstance(status, OSError):
                    self.report.skipped.append((found.path, status.strerror or str(status)))
                elif not stat.S_ISREG(status.st_mode):
                    self._importer.take(found, status, xattrs, None)
                elif wanted := self._importer.settle(found, status, xattrs):
                    parent, name, _ = wanted
                    if status.st_nlink > 1:
                        place = (parent, name)
                        first = self._firsts.setdefault((status.st_dev, status.st_ino), place)
                        if first != place:
                            self._links.append((first, parent, name))
                            continue
                    yield _File(found.path, parent, name, status, xattrs or {})

    def _take_part(self, part: _Part, piece: StoredPiece) -> None:
        if part.total == 1:
            self._take_file(part.file, [piece])
            return
        gathered = self._gathered.setdefault(part.file.path, [])
        gathered.append((part.start, piece))
        if len(gathered) == part.total:
            del self._gathered[part.file.path]
            self._take_file(part.file, [piece for _, piece in sorted(gathered)])

    def _take_file(self, file: _File, pieces: list[StoredPiece]) -> None:
        failure = next((piece.failure for piece in pieces if piece.failure is not None), None)
        if failure is not None:
            self.report.skipped.append((file.path, failure))
            return
        extents: list[Extent] = []
        for piece in pieces:
            extents += unpack_extents(piece.extents)
        status = file.status
        self._importer.loader.add_stored(
            file.parent,
            LoadedFile(
                file.name,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_atime_ns,
                status.st_mtime_ns,
                pieces[0].size if len(pieces) == 1 else status.st_size,
                None,
                tuple(extents),
                file.xattrs,
            ),
        )
        self.report.files += 1
        self.report.bytes += sum(piece.read for piece in pieces)


_Looked: TypeAlias = tuple[Found, os.stat_result | OSError, Xattrs | None]


def _looked_at(pool: ThreadPoolExecutor, walk: Iterator[Found], report: TransferReport) -> Iterator[_Looked]:
    """What was found with what it is and its attributes, looked at by threads a batch at a time, in order."""
    source = SourceXattrs(report)
    waiting: deque[Future[list[_Looked]]] = deque()
    while batch := list(islice(walk, _LOOK_BATCH)):
        waiting.append(pool.submit(_look, batch, source))
        if len(waiting) >= 2 * _LOOKERS:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _look(batch: list[Found], source: SourceXattrs) -> list[_Looked]:
    done: list[_Looked] = []
    for found in batch:
        try:
            status = os.lstat(found.path)
            done.append((found, status, source.read(found.path, status)))
        except OSError as error:
            done.append((found, error, None))
    return done


def _pieces(file: _File) -> Iterator[tuple[FilePiece, _Part]]:
    """The parts of a file that are stored each for itself, with keys that change when the file does."""
    status = file.status
    identity = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} ".encode() + os.fsencode(
        file.path
    )
    if status.st_size <= _PART_BYTES:
        yield FilePiece(file.path, blake3(identity).digest(16)), _Part(file, 0, 1)
        return
    starts = range(0, status.st_size, _PART_BYTES)
    for start in starts:
        stop = min(start + _PART_BYTES, status.st_size)
        key = blake3(b"%d-%d " % (start, stop) + identity).digest(16)
        yield FilePiece(file.path, key, start, stop), _Part(file, start, len(starts))
