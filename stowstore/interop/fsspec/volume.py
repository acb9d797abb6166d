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

from attrs import frozen
from fsspec.utils import tokenize

from datastore.errors import ConfigError, NotFound, PermissionDenied
from stowstore.chunks.block import CorruptBlock
from stowstore.chunks.encryption import KeySource
from stowstore.config.values import option_texts
from stowstore.interop.fsspec.base import StowBase
from stowstore.interop.fsspec.listing import info_of, version_listing
from stowstore.interop.fsspec.reading import CACHE, RangedFile
from stowstore.interop.fsspec.urls import VolumePath
from stowstore.interop.fsspec.writing import AtomicFile
from stowstore.namespace.inodes import Attributes
from stowstore.versions.address import VolumeAddress, normal_root
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.volumes.files import Files
from stowstore.volumes.paths import as_text, encoded, find
from stowstore.volumes.registry import Key, registry
from stowstore.volumes.ro import ROVolume
from stowstore.volumes.rw import RWVolume
from stowstore.volumes.unnamed import UnnamedFile
from stowstore.volumes.volume import Access, Volume

__all__ = ["VolumeFileSystem"]

#: What one call reads of a file that is copied.
_STEP: Final = 8 << 20

#: How many names a listing asks for at once, and how many of versions are kept.
_NAMES: Final = 4096
_KEPT_ENTRIES: Final = 100_000


@frozen
class _Open:
    """A volume that paths lead into."""

    top: str
    volume: ROVolume | RWVolume
    key: Key

    @property
    def files(self) -> Files:
        """Its files; a version is opened again when somebody has closed it."""
        opened = registry.find(self.key)
        if opened is not None:
            return opened.files
        return self.volume.blocking.open()


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
        self._access = Access(access)
        self._key = key
        self._volumes: dict[str, _Open] = {}
        self._listings: dict[str, list[dict[str, Any]]] = {}
        #: The versions that paths without one stand for, by the path of their volume.
        self._pinned: dict[str, str] = {}

    @property
    def fsid(self) -> str:
        return f"stowvol_{self._fs_token}"

    def version(self, path: str) -> ROVolume | None:
        """The version that is read at a path; of a volume that is written the newest, None before the first."""
        opened = self._opened(self._parsed(path))
        if isinstance(opened.volume, ROVolume):
            return opened.volume
        locator = opened.volume.locator
        return None if locator is None else Volume.blocking.from_locator(locator)

    def commit(self, path: str, message: str | None = None) -> ROVolume:
        """Publishes what was written to the volume at a path as a version; see `RWVolume.commit`."""
        return self._written(path).blocking.commit(message)

    def finalize(self, path: str, message: str | None = None) -> ROVolume:
        """Publishes the volume at a path and closes it; see `RWVolume.finalize`."""
        named = self._parsed(path)
        version = self._written(path).blocking.finalize(message)
        self._volumes.pop(named.top, None)
        return version

    def release(self, path: str) -> None:
        """Closes the volume at a path in this process; what is not committed stays in its journal."""
        opened = self._volumes.pop(self._parsed(path).top, None)
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
            return _info(files, str(named), named.path, found)

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
                return [_info(files, str(named), named.path, here)] if detail else [str(named)]
            found = self._listings.get(str(named)) if files.read_only else None
            if found is None:
                found = _listed(files, here.ino, str(named), named.path.rstrip("/"))
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
        opened = self._opened(self._parsed(path))
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
        opened: _Open,
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
                with _explained(opened):
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

    def _make_room(self, opened: _Open, named: VolumePath) -> None:
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
    def _at(self, path: str) -> Iterator[tuple[_Open, VolumePath]]:
        named = self._parsed(path)
        opened = self._opened(named)
        with _explained(opened):
            yield opened, named

    def _written(self, path: str) -> RWVolume:
        volume = self._opened(self._parsed(path)).volume
        if isinstance(volume, ROVolume):
            raise ConfigError(
                f"stowvol://{path} is a version, and versions never change", hint="open its volume with access='rw'"
            )
        return volume

    def _opened(self, named: VolumePath) -> _Open:
        found = self._volumes.get(named.top)
        if found is None:
            with _with_credentials_in_mind():
                volume = self._volume(named)
                found = _Open(named.top, volume, volume._key())
                if registry.find(found.key) is None:
                    volume.blocking.open()
            found = self._volumes.setdefault(named.top, found)
        return found

    def _volume(self, named: VolumePath) -> ROVolume | RWVolume:
        address = VolumeAddress.parse(self._pinned.get(named.top) or named.address(self._query))
        self._introduce(address.root)
        if self._access is Access.RW:
            if address.version is not None:
                raise ConfigError(
                    f"stowvol://{named.top} is a version, and versions never change",
                    hint="leave the version out to write the volume, or fork the version",
                )
            try:
                written: Any = Volume.blocking.at(str(address))
            except NoSuchVolume:
                written = Volume.new(address.volume, address.root)
            found: RWVolume = written
            return found
        volume: Any = Volume.blocking.at(str(address))
        if not isinstance(volume, ROVolume):
            volume = Volume.blocking.from_locator(volume.index)
        self._pinned[named.top] = volume.index
        version: ROVolume = volume
        return version

    def _introduce(self, root: str) -> None:
        """Tells this process what the root needs that its URL must not hold."""
        if not self._options and self._key is None:
            return
        root = normal_root(root)
        options = option_texts(self._options)
        if dict(registry.options_of(root)) != dict(options) or registry.key_source(root) != self._key:
            Volume.configure(root, options=options, key=self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.storage_args, self.storage_options, dict(self._pinned))


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
    made._pinned.update(pinned)
    return made


def _listed(files: Files, ino: int, name: str, path: str) -> list[dict[str, Any]]:
    """What lies in a directory."""
    source = files._source()
    found: list[dict[str, Any]] = []
    if files.read_only:
        found = version_listing(source.snapshot, ino, name)
    else:
        handle = source.opendir(ino, files._caller)
        try:
            cookie = 0
            while entries := source.readdirplus(handle, cookie, _NAMES):
                cookie = entries[-1].cookie
                found += [
                    info_of(f"{name}/{as_text(entry.name)}", entry.ino, entry.attributes)
                    for entry in entries
                    if entry.attributes is not None and entry.name not in (b".", b"..")
                ]
        finally:
            source.releasedir(handle)
    for position, info in enumerate(found):
        if info["islink"]:
            found[position] = _link_info(files, info, f"{path}{info['name'].removeprefix(name)}")
    return found


def _info(files: Files, name: str, path: str, found: Attributes) -> dict[str, Any]:
    info = info_of(name, found.ino, found)
    return _link_info(files, info, path) if info["islink"] else info


def _link_info(files: Files, info: dict[str, Any], path: str) -> dict[str, Any]:
    """What is known of what a link leads to, or of the link where that is nowhere."""
    try:
        target = find(files._source(), encoded(path), files._caller)
    except OSError:
        info = {**info, "size": 0}
    else:
        info = info_of(info["name"], target.ino, target)
    return {**info, "islink": True, "destination": files.readlink(path)}


@contextmanager
def _with_credentials_in_mind() -> Iterator[None]:
    """Says what a worker may be missing where a store refuses it."""
    try:
        yield
    except PermissionDenied as error:
        more = "no credentials travel in a URL or locator: set them where this runs, or give them as storage_options"
        error.hint = f"{error.hint}; {more}" if error.hint else more
        raise


@contextmanager
def _explained(opened: _Open) -> Iterator[None]:
    """Tells a version that has been deleted meanwhile from one that is damaged."""
    try:
        yield
    except (CorruptBlock, NotFound) as error:
        volume = opened.volume
        if not isinstance(volume, ROVolume) or isinstance(error, NoSuchVersion):
            raise
        name = volume.blocking._newest()
        try:
            registry.root(volume.bucket, volume.region).load(name)
        except NoSuchVersion:
            raise NoSuchVersion(
                f"version {name.id} of volume {name.volume!r} was deleted while it was read",
                op="read",
                reference=volume.index,
                hint="read a version that is kept: tag it, or have it pruned when its readers are done",
            ) from error
        raise
