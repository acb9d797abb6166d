"""Bringing a record to the local disk: verified file by file beside its place, then moved there at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from datastore.errors import AlreadyExists, NotFound
from datastore.protocol import Store
from stowstore.records import scanning
from stowstore.records.directory import MARKER, RecordDirectory
from stowstore.records.errors import InvalidRecord, RecordDamaged
from stowstore.records.layout import Layout
from stowstore.records.model import FileKind, Manifest, RecordFile
from stowstore.records.parallel import Progress, TransferState, each
from stowstore.records.paths import check_path, check_tree
from stowstore.records.scanning import DigestCache, Stamp

__all__ = ["Fetcher", "Placed"]

_PIECE: Final = 1 << 20
_TELL_EVERY_SECONDS: Final = 0.1


class Placed(NamedTuple):
    """A record of a retrieval, and where it goes below the directory: "" for the one that was asked for."""

    manifest: Manifest
    place: str


class _Wanted(NamedTuple):
    uuid: str
    file: RecordFile
    path: str


class Fetcher:
    """Retrieves records from one store."""

    def __init__(
        self,
        store: Store,
        layout: Layout,
        *,
        parallel: int,
        cache: DigestCache | None,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._layout = layout
        self._parallel = parallel
        self._cache = cache
        self._progress = progress

    def fetch(self, records: Sequence[Placed], directory: Path) -> None:
        """Puts a record and those nested in it at ``directory``, replacing an older copy of the same record.

        What is local already is not fetched.  Run records in the older copy that the store does not know stay.  An
        interrupted retrieval leaves what was verified beside ``directory``, under a hidden name, and the next one goes
        on from there; ``directory`` itself is the old copy or the new one at every moment but that of two renames.

        Raises:
            AlreadyExists: something else lies there.
            RecordDamaged: a file is missing or not what the manifest says; nothing was put in place.
        """
        top = records[0].manifest
        _check_replaceable(directory, top.uuid)
        wanted = _wanted(records)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _staging(directory, top.uuid) as staging:
            try:
                self._stage(wanted, staging, directory, top.uuid)
            except RecordDamaged:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            _finish(wanted, staging)
            _keep_unknown_runs(records, directory, staging)
            _swap(staging, directory)
        if self._cache is not None:
            self._remember(records, wanted, directory)

    def _stage(self, wanted: Sequence[_Wanted], staging: Path, directory: Path, uuid: str) -> None:
        """Brings every file into the staging directory."""
        _clean(staging, {item.path for item in wanted})
        known = {} if self._cache is None else self._cache.load(directory)
        files = [item for item in wanted if item.file.kind is FileKind.FILE]
        for above in sorted({os.path.dirname(item.path) for item in files}):
            (staging / above).mkdir(parents=True, exist_ok=True)
        done = size = moved = moved_bytes = 0
        total = sum(item.file.size for item in files)
        told = 0.0

        def bring(item: _Wanted) -> tuple[int, int]:
            target = staging / item.path
            if _is_staged(target, item.file) or _is_local(directory / item.path, item, known, target):
                return item.file.size, 0
            self._download(item, target)
            return item.file.size, item.file.size

        for length, fetched in each(files, bring, min(self._parallel, max(1, len(files)))):
            done, size, moved_bytes = done + 1, size + length, moved_bytes + fetched
            moved += bool(fetched)
            now = time.monotonic()
            if self._progress is not None and (now - told > _TELL_EVERY_SECONDS or done == len(files)):
                told = now
                self._progress(
                    TransferState(
                        uuid=uuid,
                        files=done,
                        total_files=len(files),
                        bytes=size,
                        total_bytes=total,
                        moved_files=moved,
                        moved_bytes=moved_bytes,
                    )
                )

    def _download(self, item: _Wanted, target: Path) -> None:
        key = self._layout.check_owned(item.uuid, item.file.key)
        digest, size = hashlib.sha256(), 0
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".stow-")
        try:
            with (
                open(descriptor, "wb") as out,
                self._store.read_raw(self._layout.reference(key), max_bytes=0) as stream,
            ):
                while piece := stream.read(_PIECE):
                    size += len(piece)
                    if size > item.file.size:
                        break
                    digest.update(piece)
                    out.write(piece)
            if size != item.file.size or digest.hexdigest() != item.file.sha256:
                raise RecordDamaged(
                    f"the file {item.file.path!r} of the record {item.uuid} is not what its manifest says",
                    hint="push the record again from a good copy",
                )
            os.replace(temporary, target)
        except BaseException as error:
            os.unlink(temporary)
            if isinstance(error, NotFound):
                raise RecordDamaged(
                    f"the file {item.file.path!r} of the record {item.uuid} is missing in the store",
                    hint="push the record again from a good copy",
                ) from error
            raise

    def _remember(self, records: Sequence[Placed], wanted: Sequence[_Wanted], directory: Path) -> None:
        """Enters the digests that were just verified, so that the next upload need not read the files."""
        assert self._cache is not None
        now = scanning.now_ns()
        known: dict[str, dict[str, tuple[Stamp, str]]] = {manifest.uuid: {} for manifest, _ in records}
        for uuid, file, path in wanted:
            if file.kind is FileKind.FILE:
                stamp = Stamp.of(os.lstat(directory / path))
                if scanning.settled(stamp, now):
                    known[uuid][file.path] = stamp, file.sha256
        for manifest, place in records:
            self._cache.save(directory / place, known[manifest.uuid])


def _wanted(records: Sequence[Placed]) -> list[_Wanted]:
    """All entries below one directory.

    Where a run record lies, its files count, not what its parent has of an older copy there.

    Raises:
        RecordDamaged: two records want the same path.
    """
    places = {place: manifest.uuid for manifest, place in records if place}
    found: list[_Wanted] = []
    for manifest, place in records:
        for file in manifest.files:
            path = f"{place}/{file.path}" if place else file.path
            if not places or _owner(path, places, records[0].manifest.uuid) == manifest.uuid:
                found.append(_Wanted(manifest.uuid, file, path))
    if len(records) > 1:
        try:
            check_tree(RecordFile(path=check_path(path), kind=file.kind, target=file.target) for _, file, path in found)
        except InvalidRecord as error:
            raise RecordDamaged(f"the record and those nested in it are no directory: {error.message}") from error
    return found


def _owner(path: str, places: Mapping[str, str], top: str) -> str:
    """The record whose place is the nearest above a path."""
    above = path
    while above:
        above = above.rpartition("/")[0]
        if above in places:
            return places[above]
    return top


def _check_replaceable(directory: Path, uuid: str) -> None:
    if not os.path.lexists(directory):
        return
    if directory.is_dir() and not directory.is_symlink():
        if not any(directory.iterdir()):
            return
        marker = directory / MARKER
        if marker.is_file() and marker.read_text(encoding="utf-8", errors="replace").strip() == uuid:
            return
    raise AlreadyExists(
        f"{directory} holds something else than the record {uuid}", hint="retrieve into an empty or new directory"
    )


@contextmanager
def _staging(directory: Path, uuid: str) -> Iterator[Path]:
    """A directory beside the target, the one of an interrupted retrieval unless somebody uses it."""
    path = directory.parent / f".{directory.name[:150]}.{uuid}.stow-part"
    path.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock a moment ago may have moved the directory into place.
            same = path.is_dir() and os.path.samestat(os.fstat(descriptor), os.stat(path))
        except BlockingIOError:
            same = False
        if not same:
            path = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name[:150]}.stow-part-"))
        yield path
    finally:
        os.close(descriptor)


def _is_staged(target: Path, file: RecordFile) -> bool:
    try:
        return target.stat().st_size == file.size and scanning.digest_of(target)[1] == file.sha256
    except OSError:
        return False


def _is_local(old: Path, item: _Wanted, known: Mapping[str, tuple[Stamp, str]], target: Path) -> bool:
    """Takes a file over from the copy that is to be replaced, if it is the same."""
    try:
        status = os.lstat(old)
        if status.st_size != item.file.size:
            return False
        entry = known.get(item.path)
        if entry is None or entry[0] != Stamp.of(status):
            entry = scanning.digest_of(old)
        if entry[1] != item.file.sha256:
            return False
        # A copy, not a link: modes are set on what is staged, and the old copy stays whole until the swap.
        shutil.copyfile(old, target, follow_symlinks=False)
        return scanning.digest_of(target)[1] == item.file.sha256
    except OSError:
        return False


def _finish(wanted: Sequence[_Wanted], staging: Path) -> None:
    """Modes, empty directories, and links last, so that nothing is ever written through one."""
    for item in wanted:
        target = staging / item.path
        if item.file.kind is FileKind.FILE:
            os.chmod(target, item.file.mode)
        elif item.file.kind is FileKind.DIRECTORY:
            target.mkdir(parents=True, exist_ok=True)
            os.chmod(target, item.file.mode | 0o700)
    for item in wanted:
        if item.file.kind is FileKind.LINK:
            target = staging / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(item.file.target, target)


def _keep_unknown_runs(records: Sequence[Placed], directory: Path, staging: Path) -> None:
    """Copies run records of the old copy that the store does not know: nobody else has them."""
    if not directory.is_dir():
        return
    known = {manifest.uuid for manifest, _ in records}
    for nested in scanning.scan(directory, records[0].manifest.uuid).nested:
        try:
            uuid = RecordDirectory.open(nested).uuid
        except InvalidRecord:
            uuid = ""
        target = staging / nested.relative_to(directory)
        if uuid not in known and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(nested, target, symlinks=True)


def _swap(staging: Path, directory: Path) -> None:
    """Moves a staged directory into place."""
    if not os.path.lexists(directory):
        os.replace(staging, directory)
        return
    aside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name[:150]}.stow-old-"))
    os.replace(directory, aside / "old")
    try:
        os.replace(staging, directory)
    except BaseException:
        os.replace(aside / "old", directory)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _clean(staging: Path, paths: Collection[str]) -> None:
    """Removes what an interrupted retrieval left that is not wanted now, and every link: none may lead us away."""
    for above, directories, names in os.walk(staging, topdown=False, followlinks=False):
        for name in (*directories, *names):
            path = os.path.join(above, name)
            if os.path.islink(path) or (name in names and os.path.relpath(path, staging) not in paths):
                os.unlink(path)
            elif name in directories and not os.listdir(path):
                os.rmdir(path)
