"""``stowvol://``: versions of volumes, and volumes that are written, as a file system of fsspec."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from fsspec.utils import tokenize

from datastore.errors import ConfigError
from stowstore.chunks.encryption import KeySource
from stowstore.interop.fsspec.base import StowBase
from stowstore.interop.fsspec.listing import listed, shown
from stowstore.interop.fsspec.opened import OpenedVolume, OpenedVolumes, explained
from stowstore.interop.fsspec.reading import CACHE, RangedFile
from stowstore.interop.fsspec.urls import VolumePath
from stowstore.interop.fsspec.writing import AtomicFile
from stowstore.volumes.files import Files
from stowstore.volumes.paths import encoded, find
from stowstore.volumes.ro import ROVolume
from stowstore.volumes.unnamed import UnnamedFile
from stowstore.volumes.volume import Access, Volume

__all__ = ["VolumeFileSystem"]

#: What one call reads of a file that is copied.
_STEP: Final = 8 << 20

#: How many entries of listings of versions are kept.
_KEPT_ENTRIES: Final = 100_000


class VolumeFileSystem(StowBase):
    """The files of volumes: ``stowvol://SCHEME/ROOT#NAME@VERSION/PATH?OPTION=VALUE``, and no mount.

    ``VERSION`` is an id, a tag, or ``ID:DIGEST`` as in a locator; left out, the newest version when the path is first
    used, also where the file system is pickled to.  With ``access="rw"`` a volume is written, by this process alone,
    and `commit` publishes a version; a volume that is open in this process already is used as it is.  Directories are
    made as files need them, unless ``auto_mkdir`` is False.  ``key`` opens an encrypted root.  Thread-safe.
    """

    protocol = "stowvol"

    def __init__(
        self,
        query: str = "",
        access: Access | str = Access.RO,
        key: KeySource | None = None,
        auto_mkdir: bool = True,
        **options: Any,
    ) -> None:
        if access not in tuple(Access):
            raise ConfigError(f"access is {access!r}", hint="'ro' reads a version, 'rw' writes a volume")
        super().__init__(query=query, **options)
        self.auto_mkdir = auto_mkdir
        self._volumes = OpenedVolumes(query=query, options=self._options, access=Access(access), key=key)
        self._listings: dict[str, list[dict[str, Any]]] = {}

    @property
    def fsid(self) -> str:
        return f"stowvol_{self._fs_token}"

    def version(self, path: str) -> ROVolume | None:
        """The version that is read at a path; of a volume that is written the newest, None before the first."""
        opened = self._volumes.opened(self._parsed(path))
        if isinstance(opened.volume, ROVolume):
            return opened.volume
        locator = opened.volume.locator
        return None if locator is None else Volume.blocking.from_locator(locator)

    def commit(self, path: str, message: str | None = None) -> ROVolume:
        """Publishes what was written to the volume at a path as a version; see `RWVolume.commit`."""
        return self._volumes.written(self._parsed(path)).blocking.commit(message)

    def finalize(self, path: str, message: str | None = None) -> ROVolume:
        """Publishes the volume at a path and closes it; see `RWVolume.finalize`."""
        named = self._parsed(path)
        version = self._volumes.written(self._parsed(path)).blocking.finalize(message)
        self._volumes.forget(named)
        return version

    def release(self, path: str) -> None:
        """Closes the volume at a path in this process; what is not committed stays in its journal."""
        opened = self._volumes.forget(self._parsed(path))
        if opened is not None:
            opened.volume.blocking.close()

    # -- looking -----------------------------------------------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What is known of a file or directory; of a link what it leads to, with ``islink`` and ``destination``.

        Raises:
            FileNotFoundError: there is none, or no such volume or version.
        """
        with self._at(path) as (opened, named):
            files = opened.files
            source = files._source()
            found = find(source, encoded(named.path), files._caller, follow=False)
            return shown(files, str(named), named.path, found)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What lies in a directory, ascending by name, or a file itself.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._at(path) as (opened, named):
            files = opened.files
            source = files._source()
            here = find(source, encoded(named.path), files._caller)
            if not stat.S_ISDIR(here.mode):
                return [shown(files, str(named), named.path, here)] if detail else [str(named)]
            found = self._listings.get(str(named)) if files.read_only else None
            if found is None:
                found = listed(files, here.ino, str(named), named.path.rstrip("/"))
                if files.read_only:
                    self._keep(str(named), found)
            return [*found] if detail else [info["name"] for info in found]

    def modified(self, path: str) -> datetime:
        """When the content of a file was last changed."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def created(self, path: str) -> datetime:
        """When a file was made or its attributes were last changed."""
        return datetime.fromtimestamp(self.info(path)["ctime"], UTC)

    def ukey(self, path: str) -> str:
        """A text that differs when the file does; of a version it is known without a look."""
        opened = self._volumes.opened(self._parsed(path))
        known = opened.volume.index if isinstance(opened.volume, ROVolume) else self.info(path)
        return str(tokenize(known, self._parsed(path).path))

    checksum = ukey

    # -- reading -----------------------------------------------------------------------------------------------------

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """A file or a range of it; negative positions count from its end."""
        with self._at(path) as (opened, named), opened.files.open(named.path, "rb", 0) as raw:
            begin, stop = start or 0, end
            if stop is None or stop < 0 or begin < 0:
                size = raw.seek(0, os.SEEK_END)
                begin = max(0, begin + size) if begin < 0 else begin
                stop = size if stop is None else stop + size if stop < 0 else stop
            found: bytes = raw.pread(max(0, stop - begin), begin)  # type: ignore[attr-defined]
            return found

    # -- writing -----------------------------------------------------------------------------------------------------

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Writes a file from memory; it appears whole.

        Raises:
            FileExistsError: ``mode`` is ``create`` and it is there.
        """
        with self._open(self._strip_protocol(path), "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, mode: str = "overwrite", **kwargs: Any) -> None:
        """Copies a file of the local disk into the volume; it appears whole."""
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        with (
            open(lpath, "rb") as source,
            self._open(self._strip_protocol(rpath), "xb" if mode == "create" else "wb") as file,
        ):
            if callback is not None:
                callback.set_size(os.path.getsize(lpath))
            while data := source.read(_STEP):
                file.write(data)
                if callback is not None:
                    callback.relative_update(len(data))

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copies a file; in one volume the copy shares the stored bytes."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        source, target = self._parsed(path1), self._parsed(path2)
        if source.top == target.top:
            with self._at(path2) as (opened, _):
                self._make_room(opened, target)
                copy = UnnamedFile(opened.files, target.path)
                copy.begin_with(source.path)
                copy.publish(replace=True)
            return
        with self.open(path1, "rb") as reading, self.open(path2, "wb") as writing:
            while data := reading.read(_STEP):
                writing.write(data)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Moves a file or directory, in one volume at once; into ``path2`` if that is a directory."""
        if isinstance(path1, list) or maxdepth is not None or self._parsed(path1).top != self._parsed(path2).top:
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        source, target = self._parsed(path1), self._parsed(path2)
        with self._at(path2) as (opened, _):
            files = opened.files
            into = target.path
            if files.isdir(into):
                into = f"{into.rstrip('/')}/{source.path.rpartition('/')[2]}"
            else:
                self._make_room(opened, target)
            files.rename(source.path, into)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Makes an empty file; of one that is there the content goes, or with ``truncate`` False the time is set."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")
            return
        with self._at(path) as (opened, named):
            opened.files.utime(named.path)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Makes a directory.

        Raises:
            FileExistsError: something is there.
        """
        with self._at(path) as (opened, named):
            if create_parents:
                opened.files.makedirs(named.path)
            else:
                opened.files.mkdir(named.path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a directory and those above it that are missing."""
        with self._at(path) as (opened, named):
            opened.files.makedirs(named.path, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Removes an empty directory."""
        with self._at(path) as (opened, named):
            opened.files.rmdir(named.path)

    def rm_file(self, path: str) -> None:
        """Removes a file."""
        with self._at(path) as (opened, named):
            opened.files.remove(named.path)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes files, and with ``recursive`` directories with all that is in them."""
        if maxdepth is not None:
            doomed = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        else:
            doomed = self.expand_path(path)
        for name in reversed(doomed):
            with self._at(name) as (opened, named):
                files = opened.files
                if files.islink(named.path) or not files.isdir(named.path):
                    files.remove(named.path)
                elif maxdepth is not None:
                    files.rmdir(named.path)
                elif recursive:
                    files.rmtree(named.path)
                else:
                    raise IsADirectoryError(errno.EISDIR, "is a directory: remove it with recursive=True", name)

    # -- private -----------------------------------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = CACHE,
        **kwargs: Any,
    ) -> Any:
        with self._at(path) as (opened, named):
            files = opened.files
            if mode == "rb":
                return self._reading(opened, named, block_size, cache_type, cache_options)
            if "+" in mode:
                return files.open(named.path, mode)
            if mode not in ("wb", "xb", "ab"):
                raise ValueError(f"invalid mode: {mode!r}: give one of rb, wb, xb, ab, r+b")
            if files.read_only:
                raise OSError(
                    errno.EROFS, "a version never changes: fork it, or open its volume with access='rw'", str(named)
                )
            if mode == "xb" and files.lexists(named.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(named))
            self._make_room(opened, named)
            sink = _VolumeSink(files, named.path, replace=mode != "xb")
            if mode == "ab" and files.exists(named.path):
                sink.file.begin_with(named.path)
            return AtomicFile(self, str(named), sink, mode=mode, autocommit=autocommit, begins_at=sink.file.size)

    def _reading(
        self,
        opened: OpenedVolume,
        named: VolumePath,
        block_size: int | None,
        cache_type: str,
        cache_options: dict[str, Any] | None,
    ) -> RangedFile:
        raw: Any = opened.files.open(named.path, "rb", 0)
        if cache_type == CACHE:
            # The blocks of a range are fetched side by side as it is.
            cache_options = {"part_bytes": 1 << 40, **(cache_options or {})}
        try:

            def fetch(start: int, end: int) -> bytes:
                with explained(opened):
                    data: bytes = raw.pread(end - start, start)
                    return data

            size = raw.seek(0, os.SEEK_END)
            return RangedFile(
                self,
                str(named),
                fetch,
                partial(self.info, str(named)),
                size=size,
                block_size=block_size,
                cache_type=cache_type,
                cache_options=cache_options,
                release=raw.close,
            )
        except BaseException:
            raw.close()
            raise

    def _pieces(self, path: str) -> tuple[int, Iterator[bytes]]:
        file = self.open(path, "rb")

        def pieces() -> Iterator[bytes]:
            with file:
                while data := file.read(_STEP):
                    yield data

        return file.size, pieces()

    def _make_room(self, opened: OpenedVolume, named: VolumePath) -> None:
        """Makes the directory a file is to lie in."""
        above = named.path.rpartition("/")[0]
        if self.auto_mkdir and above and not opened.files.isdir(above):
            opened.files.makedirs(above, exist_ok=True)

    def _keep(self, path: str, listing: list[dict[str, Any]]) -> None:
        """Keeps a listing of a version, which never changes."""
        if len(listing) + sum(map(len, self._listings.values())) > _KEPT_ENTRIES:
            self._listings.clear()
        self._listings[path] = listing

    def _parsed(self, path: str) -> VolumePath:
        return VolumePath.parse(self._strip_protocol(path))

    @contextmanager
    def _at(self, path: str) -> Iterator[tuple[OpenedVolume, VolumePath]]:
        named = self._parsed(path)
        opened = self._volumes.opened(named)
        with explained(opened):
            yield opened, named

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.storage_args, self.storage_options, dict(self._volumes.pinned))


class _VolumeSink:
    """What is written lies in the volume, without a name."""

    def __init__(self, files: Files, path: str, *, replace: bool) -> None:
        self.file = UnnamedFile(files, path)
        self.write: Callable[[bytes], None] = self.file.write
        self.abandon: Callable[[], None] = self.file.abandon
        self._replace = replace

    def publish(self) -> None:
        self.file.publish(replace=self._replace)


def _rebuilt(
    kind: type[VolumeFileSystem], args: tuple[Any, ...], options: Mapping[str, Any], pinned: Mapping[str, str]
) -> VolumeFileSystem:
    """A file system in another process, that reads the versions it has read here."""
    # An instance that is there already may have met newer ones.
    made = kind(*args, **{**options, "skip_instance_cache": True})
    made._volumes.pinned.update(pinned)
    return made
