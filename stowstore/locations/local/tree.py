"""Names in a container's tree of directories: putting objects there and taking them away.

Directories are no objects: they come with the first object below them and go with the last.  So a writer may find the
directory it is about to use gone, and makes it again.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from datastore.errors import AlreadyExists, NoSuchContainer, TransientError
from stowstore.locations.local.area import DIRECTORY_MODE, Draft
from stowstore.locations.local.paths import DIRECTORY, READABLE_DIRECTORY, Root, split_path
from stowstore.locations.local.place import FsyncMode, Place

__all__ = ["Tree"]

#: How often a write makes directories that vanish under it.
_TRIES: Final = 100


class Tree:
    """The directories of one container; thread-safe.  Paths are those below the root.

    Everything raises ``OSError``; a path that runs through a file does so as ``NotADirectoryError``, one that ends at a
    directory with objects as ``IsADirectoryError``.
    """

    def __init__(self, place: Place, container: str) -> None:
        self._place = place
        self._name = container
        self._path = container.encode()
        self._durable = place.fsync is FsyncMode.FULL
        self._flags = READABLE_DIRECTORY if self._durable else DIRECTORY

    def missing_container(self) -> NoSuchContainer:
        """The error that says so."""
        return NoSuchContainer(f"there is no directory {self._name!r} in {self._place.path}")

    def move(self, draft: Draft, path: bytes, *, create_only: bool) -> None:
        """Makes a finished draft what lies at a path.

        Raises:
            AlreadyExists: something is there, and ``create_only``.
            NoSuchContainer: the container is not there.
        """
        directory, name = split_path(path)
        for _ in range(_TRIES):
            root = self._place.root()
            try:
                fd = root.open(directory, self._flags)
            except FileNotFoundError:
                self._make_directories(root, directory)
                continue
            try:
                if create_only:
                    # Unlike a rename, of many links to one name exactly one succeeds.
                    os.link(draft.name, name, src_dir_fd=draft.directory_fd, dst_dir_fd=fd, follow_symlinks=False)
                    draft.discard()
                else:
                    os.rename(draft.name, name, src_dir_fd=draft.directory_fd, dst_dir_fd=fd)
                if self._durable:
                    self._sync_directories(root, directory)
                return
            except FileNotFoundError:
                # The directory was empty and somebody pruned it: make it again.
                continue
            except FileExistsError as error:
                if not _is_directory(name, fd):
                    raise AlreadyExists("there is an object of this key") from error
                _remove_if_empty(name, fd)
            except IsADirectoryError:
                _remove_if_empty(name, fd)
            finally:
                os.close(fd)
        raise TransientError("the directories of the key vanish faster than they can be made")

    def remove(self, root: Root, path: bytes) -> None:
        """Removes a file; its directories stay until `prune`."""
        directory, name = split_path(path)
        fd = root.open(directory, self._flags)
        try:
            os.unlink(name, dir_fd=fd)
            if self._durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def prune(self, root: Root, directory: bytes) -> None:
        """Removes the directories a deleted object leaves empty; writers that lose one make it again."""
        while directory != self._path:
            above, name = split_path(directory)
            try:
                fd = root.open(above, DIRECTORY)
                try:
                    os.rmdir(name, dir_fd=fd)
                finally:
                    os.close(fd)
            except OSError:
                # Not empty, gone, a mount point, not ours: the object is deleted all the same.
                return
            directory = above

    def _make_directories(self, root: Root, directory: bytes) -> None:
        try:
            at = root.open(self._path, DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.missing_container() from error
        try:
            for name in directory.split(b"/")[1:]:
                try:
                    os.mkdir(name, DIRECTORY_MODE, dir_fd=at)
                except FileExistsError:
                    pass
                below = os.open(name, DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
        except FileNotFoundError:
            # Pruned between the two calls; the caller tries again.
            pass
        finally:
            os.close(at)

    def _sync_directories(self, root: Root, directory: bytes) -> None:
        """Makes the names on the way to an object last, those that other writers made included."""
        while directory:
            try:
                fd = root.open(directory, READABLE_DIRECTORY)
            except FileNotFoundError:
                # The object is deleted again already, and its directories pruned.
                return
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            directory = split_path(directory)[0]


def _is_directory(name: bytes, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_if_empty(name: bytes, parent: int) -> None:
    """Removes an empty directory that is in the way of an object, such as other programs leave behind."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise IsADirectoryError(error.errno, "there are objects below this key") from error
