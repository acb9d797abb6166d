"""A root directory whose subdirectories are containers."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator

from datastore.driver import Container
from datastore.errors import ContainerNotEmpty, ContainerTaken, InvalidReference, NoSuchContainer, StoreError
from datastore.model import Capabilities, Feature
from stowstore.locations.local.area import AREA, DIRECTORY_MODE
from stowstore.locations.local.container import LocalContainer
from stowstore.locations.local.faults import translate
from stowstore.locations.local.locking import Lock, LockMode
from stowstore.locations.local.paths import READABLE_DIRECTORY
from stowstore.locations.local.place import FsyncMode, Place
from stowstore.locations.local.sidecar import Sidecars

__all__ = ["LOCAL_CAPABILITIES", "LocalLocation"]

LOCAL_CAPABILITIES = Capabilities(
    features={
        Feature.CREATE_IF_ABSENT,
        Feature.ATOMIC_CREATE,
        Feature.REPLACE_IF_MATCH,
        Feature.SERVER_SIDE_COPY,
        Feature.USER_METADATA,
        Feature.CONTENT_HEADERS,
        Feature.CONTAINERS,
        Feature.PERSISTENT,
    }
)

#: Locks of containers lie beyond those of keys, whose numbers have 32 bits.
_CONTAINER_LOCKS = 1 << 32


class LocalLocation:
    """Containers as directories, objects as plain files in them.

    Symbolic links below the root are never followed, read or written: they are no objects.  The root itself may be one,
    or lie behind some.  Writers in any number of threads and processes may share a root; other programs may read it,
    and write files whole (write elsewhere, then rename).
    """

    kind = "file"
    scheme = "file"
    capabilities = LOCAL_CAPABILITIES

    def __init__(self, path: str, *, fsync: FsyncMode = FsyncMode.NEVER) -> None:
        # Made absolute now: the working directory may change before the first use.
        self._place = Place(os.path.abspath(os.path.expanduser(path)), fsync)

    def __reduce__(self) -> tuple[object, ...]:
        return _dial_again, (self._place.path, self._place.fsync.value)

    @property
    def path(self) -> str:
        """The root directory."""
        return self._place.path

    def container(self, name: str) -> Container:
        _check_name(name)
        return LocalContainer(self._place, name)

    def has_container(self, name: str) -> bool:
        _check_name(name)
        try:
            return self._place.has_container(name.encode())
        except OSError as error:
            raise translate(error) from error

    def create_container(self, name: str) -> None:
        _check_name(name)
        path = name.encode()
        try:
            os.makedirs(self._place.path, DIRECTORY_MODE, exist_ok=True)
            # Notices a root that was removed and made again.
            if self._place.has_container(path):
                return
            with self._lock(path):
                root = self._place.root()
                try:
                    os.mkdir(path, DIRECTORY_MODE, dir_fd=root.fd)
                except FileExistsError as error:
                    if not self._place.has_container(path):
                        raise ContainerTaken(
                            f"{name!r} in {self._place.path} is no directory", hint="move it away, or use another name"
                        ) from error
                if self._place.fsync is FsyncMode.FULL:
                    fd = root.open(b".", READABLE_DIRECTORY)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
        except StoreError:
            raise
        except OSError as error:
            raise translate(error) from error

    def delete_container(self, name: str) -> None:
        _check_name(name)
        path = name.encode()
        missing = NoSuchContainer(f"there is no directory {name!r} in {self._place.path}")
        try:
            if not self._place.has_container(path):
                raise missing
            # The lock keeps a container of the same name from being made before what was kept of this one is gone.
            with self._lock(path):
                root = self._place.root()
                try:
                    _remove_tree_of_directories(root.fd, path)
                except FileNotFoundError:
                    raise missing from None
                Sidecars(path).remove_all(root)
        except StoreError:
            raise
        except OSError as error:
            raise translate(error) from error

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        try:
            fd = self._place.root().open(b".", READABLE_DIRECTORY)
            try:
                with os.scandir(fd) as found:
                    names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
            finally:
                os.close(fd)
        except NoSuchContainer:
            return iter(())
        except OSError as error:
            raise translate(error) from error
        return iter(sorted(name for name in names if name.startswith(prefix) and _flaw_of(name) is None))

    def close(self) -> None:
        """Lets go of the root directory; streams that are open stay readable."""
        self._place.close()

    def _lock(self, container: bytes) -> Lock:
        return self._place.area().lock(_CONTAINER_LOCKS + zlib.crc32(container), LockMode.EXCLUSIVE)


def _dial_again(path: str, fsync: str) -> LocalLocation:
    return LocalLocation(path, fsync=FsyncMode(fsync))


def _check_name(name: str) -> None:
    flaw = _flaw_of(name)
    if flaw is not None:
        raise InvalidReference(
            f"no directory can be the container {name!r}: {flaw}",
            reason="bad_container",
            hint="a container is one path segment, of at most 255 bytes",
        )


def _flaw_of(name: str) -> str | None:
    if name in ("", ".", ".."):
        return "it names no directory of its own"
    if name == AREA.decode():
        return "the name is reserved"
    if "/" in name or "\0" in name:
        return "it has a slash or NUL"
    try:
        return "it is too long" if len(name.encode()) > 255 else None
    except UnicodeEncodeError:
        return "it is not UTF-8"


def _remove_tree_of_directories(parent: int, name: bytes) -> None:
    """Removes a directory and the empty ones below it, which hold no objects; nothing when there is any file."""
    not_empty = ContainerNotEmpty("the container holds objects, or other files", hint="delete them first")
    try:
        os.rmdir(name, dir_fd=parent)
        return
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError)):
            raise
    fd = os.open(name, READABLE_DIRECTORY, dir_fd=parent)
    try:
        for _, directories, files, at in os.fwalk(b".", dir_fd=fd):
            if files or any(stat.S_ISLNK(os.stat(d, dir_fd=at, follow_symlinks=False).st_mode) for d in directories):
                raise not_empty
        for _, directories, _, at in os.fwalk(b".", topdown=False, dir_fd=fd):
            for directory in directories:
                os.rmdir(directory, dir_fd=at)
        os.rmdir(name, dir_fd=parent)
    except StoreError:
        raise
    except OSError as error:
        # Somebody writes to it at this moment.
        raise not_empty from error
    finally:
        os.close(fd)
