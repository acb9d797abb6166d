"""Files that are written before they have a name, so that nobody, and no version, ever sees a part of one."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress

from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.renames import RenameFlags
from stowstore.volumes.files import Files
from stowstore.volumes.paths import PathLike, about, encoded, find, locate

__all__ = ["UnnamedFile"]


class UnnamedFile:
    """A file of a volume that is made for one path and appears there when it is `publish`ed.

    Its content is staged, and uploaded early, like that of any other file.  Not thread-safe.
    """

    def __init__(self, files: Files, path: PathLike, *, permissions: int = 0o666) -> None:
        self._files = files._source
        self._caller = files._caller
        self.path = path
        here = self._files()
        with about(path):
            # A link at the end leads to the file that is meant.
            place = locate(here, encoded(path), self._caller, follow=True)
            if place.is_directory:
                raise IsADirectoryError(21, os.strerror(21), os.fspath(path))
            self._parent, self._name = place.parent, place.name
            self._replaced = place.attributes
            attributes, self._handle = here.tmpfile(self._parent, permissions, os.O_RDWR, self._caller)
        self._ino = attributes.ino
        self._size = 0
        self._open = True

    @property
    def size(self) -> int:
        """How much has been written."""
        return self._size

    def write(self, data: bytes) -> None:
        """Appends."""
        self._size += self._files().write(self._handle, self._size, data, self._caller)

    def begin_with(self, path: PathLike) -> None:
        """Begins with the content of another file of the volume; its stored bytes are shared."""
        files = self._files()
        with about(path):
            handle = files.open(find(files, encoded(path), self._caller).ino, os.O_RDONLY, self._caller)
        try:
            while done := files.copy_file_range(handle, self._size, self._handle, self._size, 1 << 40, self._caller):
                self._size += done
        finally:
            files.release(handle)

    def publish(self, *, replace: bool) -> None:
        """Gives the file its name, at once, with the permission bits of what it replaces.

        Raises:
            FileExistsError: something is there and ``replace`` is not set; the file is gone.
        """
        files = self._files()
        try:
            with about(self.path):
                if not replace:
                    files.link(self._ino, self._parent, self._name, self._caller)
                    return
                if self._replaced is not None:
                    mode = stat.S_IMODE(self._replaced.mode)
                    files.setattr(self._ino, AttributeChanges(mode=mode), self._caller)
                self._move_over(files)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Gives up what has no name yet; doing it again does nothing."""
        if self._open:
            self._open = False
            self._files().release(self._handle)

    def _move_over(self, files: FileSystem) -> None:
        try:
            files.link(self._ino, self._parent, self._name, self._caller)
            return
        except FileExistsError:
            pass
        # A name that exists is replaced by a rename alone, so the file has another one for a moment.
        passing = b".%s.new" % secrets.token_hex(12).encode()
        files.link(self._ino, self._parent, passing, self._caller)
        try:
            files.rename(self._parent, passing, self._parent, self._name, self._caller, RenameFlags.REPLACE)
        except BaseException:
            with suppress(OSError):
                files.unlink(self._parent, passing, self._caller)
            raise
