"""Objects of one container: plain files in a directory, which other programs may use too."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

from datastore.driver import Container, DriverPage
from datastore.errors import (
    AlreadyExists,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from datastore.memory import resolve_range
from datastore.model import Metadata, SignedURLProperties, SignedURLResponse, WriteOptions
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations.local.area import Draft, Identity, etag_of, identity_of
from stowstore.locations.local.faults import nested, translate
from stowstore.locations.local.locking import LockMode
from stowstore.locations.local.paths import LOOK, READ, Root, split_path
from stowstore.locations.local.place import FsyncMode, Place
from stowstore.locations.local.sidecar import Description, Sidecars, describe
from stowstore.locations.local.transfer import clone
from stowstore.locations.local.tree import Tree

__all__ = ["LocalContainer"]

#: Up to this size a file is read when it is opened; larger ones while their stream is, bytes.
_SMALL = 256 << 10

#: How much of a stream is written at once.
_PIECE = 1 << 20

#: How often a read begins again because the object was replaced.
_TRIES = 100


class _Found(NamedTuple):
    """An open file and what belongs to it."""

    fd: int
    status: os.stat_result
    kept: Description | None


class LocalContainer:
    """A directory of a root; thread-safe, and safe beside other processes that use the same root."""

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._name = name
        self._path = name.encode()
        self._prefix = self._path + b"/"
        self._sidecars = Sidecars(self._path)
        self._tree = Tree(place, name)

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        fd, status, kept = self._find(key, LOOK)
        os.close(fd)
        return describe(status, kept)

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        fd, status, kept = self._find(key, READ)
        try:
            if if_match is not None and etag_of(identity_of(status)) != if_match:
                raise PreconditionFailed(f"the object has etag {etag_of(identity_of(status))}, not {if_match}")
            size = status.st_size
            if start == 0 and length is None:
                first, count = 0, size
            else:
                first, count = resolve_range(size, start, length)
            metadata = partial(describe, status, kept)
            if count > _SMALL:
                if first:
                    os.lseek(fd, first, os.SEEK_SET)
                body = _FileBody(fd)
                fd = -1
                return ReadStream(body, count, metadata)
            data = os.pread(fd, count, first) if count else b""
            if len(data) != count:
                raise TransientError(f"the file was cut while it was read: {len(data)} of {count} bytes are left")
            return ReadStream(data, count, metadata)
        except StoreError:
            raise
        except OSError as error:
            raise translate(error) from error
        finally:
            if fd >= 0:
                os.close(fd)

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        conditional = options.if_absent or options.if_match is not None
        if conditional or not source.rewindable:
            # What cannot succeed fails before the source is used up.
            self._check(key, options)
        draft = self._draft()
        try:
            parts = source.parts
            if parts is not None:
                for part in parts:
                    _write(draft, part)
            else:
                while piece := source.read(_PIECE):
                    _write(draft, piece)
            return self._publish(key, draft, options, Description.of(options) if options.changes_metadata else None)
        except BaseException:
            draft.discard()
            raise

    def delete(self, key: str) -> None:
        path = self._prefix + key.encode()
        try:
            root = self._place.root()
            try:
                fd = root.open(path, LOOK)
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return
            finally:
                os.close(fd)
            with self._lock_to_delete(path):
                self._tree.remove(root, path)
                self._sidecars.remove(root, key.encode())
            self._tree.prune(root, split_path(path)[0])
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            # Removed by somebody else meanwhile.
            return
        except StoreError:
            raise
        except OSError as error:
            if _is_link_on_the_way(error):
                return
            raise translate(error) from error

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for key in keys:
            try:
                self.delete(key)
            except StoreError as error:
                failed[key] = error
        return failed

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        try:
            root = self._place.root()
            page = self._place.lister.page(root, self._path, prefix, after, limit, delimiter)
            if not page.entries and not page.prefixes and not self._place.has_container(self._path):
                raise self._tree.missing_container()
            return page
        except StoreError:
            raise
        except OSError as error:
            if _is_link_on_the_way(error) or error.errno == errno.ENAMETOOLONG:
                # No object can have such a prefix.
                if not self._place.has_container(self._path):
                    raise self._tree.missing_container() from error
                return DriverPage()
            raise translate(error) from error

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, LocalContainer):
            raise NotSupported("only files are copied in place")
        options = options or WriteOptions()
        fd, status, kept = source._find(source_key, READ)
        try:
            self._check(key, options)
            draft = self._draft()
            try:
                _clone(fd, draft, status.st_size)
                return self._publish(key, draft, options, Description.of(options) if options.changes_metadata else kept)
            except BaseException:
                draft.discard()
                raise
        finally:
            os.close(fd)

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        raise NotSupported("local files have no URLs to sign")

    # -- looking ------------------------------------------------------------------------------------------------

    def _find(self, key: str, flags: int) -> _Found:
        """Opens an object, with what is kept of exactly this version; the caller closes it."""
        path = self._prefix + key.encode()
        for _ in range(_TRIES):
            try:
                root = self._place.root()
                fd = root.open(path, flags)
            except StoreError:
                raise
            except OSError as error:
                raise self._not_found(error) from error
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise NotFound(_WHAT.get(stat.S_IFMT(status.st_mode), "what is there is no file"))
                if not self._sidecars.any(root):
                    return _Found(fd, status, None)
                identity = identity_of(status)
                kept = self._sidecars.load(root, key.encode(), identity)
                if kept is not None or self._identity(root, path) == identity:
                    return _Found(fd, status, kept)
            except BaseException as error:
                os.close(fd)
                if isinstance(error, OSError) and not isinstance(error, StoreError):
                    raise translate(error) from error
                raise
            # Replaced, and its sidecar with it, while we looked: look at the new one.
            os.close(fd)
        raise TransientError("the object is replaced faster than it can be read")

    def _identity(self, root: Root, path: bytes) -> Identity | None:
        """What the version at a path is known by, None when no file is there."""
        try:
            fd = root.open(path, LOOK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.fstat(fd)
            return identity_of(status) if stat.S_ISREG(status.st_mode) else None
        finally:
            os.close(fd)

    def _check(self, key: str, options: WriteOptions) -> None:
        """Raises what a write would, were it to be published now."""
        try:
            if not self._place.has_container(self._path):
                raise self._tree.missing_container()
            if options.if_absent or options.if_match is not None:
                self._check_condition(self._identity(self._place.root(), self._prefix + key.encode()), options)
        except StoreError:
            raise
        except OSError as error:
            raise nested(error) from error

    def _check_condition(self, identity: Identity | None, options: WriteOptions) -> None:
        if options.if_absent and identity is not None:
            raise AlreadyExists("there is an object of this key")
        if options.if_match is not None and (identity is None or etag_of(identity) != options.if_match):
            raise PreconditionFailed(f"the object is not the one of etag {options.if_match}")

    def _not_found(self, error: OSError) -> StoreError:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        if not missing and not _is_link_on_the_way(error) and not _is_special(error):
            return translate(error)
        try:
            if not self._place.has_container(self._path):
                return self._tree.missing_container()
        except OSError as failure:
            return translate(failure)
        if missing:
            return NotFound("there is no such object")
        return NotFound("what is there is no file; links are never followed below the root")

    def _lock_to_delete(self, path: bytes) -> AbstractContextManager[None]:
        try:
            return self._place.area().lock(zlib.crc32(path), LockMode.EXCLUSIVE)
        except OSError as error:
            if isinstance(error, StoreError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # No space for the lock file, so nobody else writes either; deleting is how there will be some again.
            return nullcontext()

    # -- writing ------------------------------------------------------------------------------------------------

    def _draft(self) -> Draft:
        try:
            return self._place.area().draft()
        except NoSuchContainer:
            raise self._tree.missing_container() from None
        except OSError as error:
            raise translate(error) from error

    def _publish(self, key: str, draft: Draft, options: WriteOptions, kept: Description | None) -> str:
        """Makes a finished draft the object, at once and under its conditions."""
        path = self._prefix + key.encode()
        sync = self._place.fsync is not FsyncMode.NEVER
        mode = LockMode.SHARED if kept is None and options.if_match is None else LockMode.EXCLUSIVE
        try:
            identity = draft.finish(sync=sync)
            with self._place.area().lock(zlib.crc32(path), mode, required=options.if_match is not None):
                if mode is LockMode.EXCLUSIVE:
                    root = self._place.root()
                    known = self._identity(root, path)
                    self._check_condition(known, options)
                    if kept is not None:
                        if not self._place.has_container(self._path):
                            raise self._tree.missing_container()
                        area = self._place.area()
                        self._sidecars.save(root, area, key.encode(), (identity, kept), kept=known, sync=sync)
                self._tree.move(draft, path, create_only=options.if_absent)
        except StoreError:
            raise
        except OSError as error:
            raise self._not_written(error) from error
        return etag_of(identity)

    def _not_written(self, error: OSError) -> StoreError:
        if isinstance(error, NotADirectoryError) or _is_link_on_the_way(error):
            try:
                if not self._place.has_container(self._path):
                    return self._tree.missing_container()
            except OSError as failure:
                return translate(failure)
        return nested(error)


class _FileBody:
    """The rest of an open file."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        try:
            return os.read(self._fd, size)
        except OSError as error:
            raise translate(error) from error

    def close(self) -> None:
        os.close(self._fd)


_WHAT = {
    stat.S_IFDIR: "it is a directory: objects lie below this key, none at it",
    stat.S_IFLNK: "it is a symbolic link, which is never followed below the root",
}


def _write(draft: Draft, data: bytes | memoryview) -> None:
    try:
        draft.write(data)
    except OSError as error:
        raise translate(error) from error


def _clone(fd: int, draft: Draft, size: int) -> None:
    try:
        clone(fd, draft.fd, size)
    except OSError as error:
        raise translate(error) from error


def _is_link_on_the_way(error: OSError) -> bool:
    return error.errno == errno.ELOOP


def _is_special(error: OSError) -> bool:
    # A socket, or a pipe's other end.
    return error.errno == errno.ENXIO
