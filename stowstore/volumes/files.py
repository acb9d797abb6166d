"""``vol.files``: the files of an open volume by path, in this process and without a mount.

Names and meanings are those of `os` and `open`.  Paths are relative to the root of the volume, with a leading slash or
without; symbolic links are resolved inside it.  Errors are `OSError` as Linux has them, with the path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal, overload

from stowstore.namespace.attributes import NOW, AttributeChanges
from stowstore.namespace.errors import posix_error
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import Caller
from stowstore.namespace.quota import FileSystemStatus
from stowstore.namespace.renames import RenameFlags
from stowstore.volumes.globbing import matching
from stowstore.volumes.listing import DirEntry, Scan, stat_result
from stowstore.volumes.paths import PathLike, about, as_text, encoded, entry_of, find, locate
from stowstore.volumes.streams import RawFile, flags_of, wrapped

__all__ = ["DirEntry", "Files", "process_caller"]


class Files:
    """The files of one open volume or version; thread-safe.

    Whoever can open a volume has all its bytes, so permissions are kept but not asked for; what is made here belongs
    to the user of the process.  What `open` buffers is in the volume once it is flushed or closed.
    """

    def __init__(self, source: Callable[[], FileSystem], caller: Caller | None = None) -> None:
        self._source = source
        self._caller = caller or process_caller()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed, as in a version."""
        return self._source().read_only

    # -- files ------------------------------------------------------------------------------------------------------

    @overload
    def open(
        self,
        path: PathLike,
        mode: Literal["rb", "wb", "ab", "xb", "r+b", "w+b", "a+b", "x+b", "rb+", "wb+", "ab+", "xb+"],
        buffering: int = ...,
        *,
        permissions: int = ...,
    ) -> IO[bytes]: ...
    @overload
    def open(
        self,
        path: PathLike,
        mode: str = ...,
        buffering: int = ...,
        encoding: str | None = ...,
        errors: str | None = ...,
        newline: str | None = ...,
        *,
        permissions: int = ...,
    ) -> IO[Any]: ...
    def open(
        self,
        path: PathLike,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        permissions: int = 0o666,
    ) -> IO[Any]:
        """Opens a file as the built-in `open` does; text is UTF-8 unless another encoding is given.

        ``permissions`` are those of a file that is made, less the umask.
        """
        flags = flags_of(mode)
        files = self._source()
        with about(path):
            ino, handle = self._opened(files, encoded(path), flags, permissions)
        raw = RawFile(self._source, ino, handle, flags, _shown(path), self._caller)
        try:
            opened: IO[Any] = wrapped(raw, mode, buffering, encoding, errors, newline)
        except BaseException:
            raw.close()
            raise
        return opened

    def read_range(self, path: PathLike, start: int, length: int) -> bytes:
        """Up to ``length`` bytes of a file from an offset; only what is asked for is fetched."""
        files = self._source()
        with about(path), self._handle(files, path, os.O_RDONLY) as (_, handle):
            parts: list[bytes] = []
            while length > 0 and (data := files.read(handle, start, length)):
                parts.append(data)
                start, length = start + len(data), length - len(data)
            return b"".join(parts)

    def read_bytes(self, path: PathLike) -> bytes:
        """The content of a file."""
        with self.open(path, "rb", 0) as file:
            return file.read()

    def write_bytes(self, path: PathLike, data: bytes | bytearray | memoryview) -> int:
        """Makes or replaces the content of a file; how many bytes that were.

        Raises:
            OSError: ENOSPC where the volume has no room for all of it; what fitted is there.
        """
        with self.open(path, "wb", 0) as file:
            written = file.write(data) if len(data) else 0
            while written < memoryview(data).nbytes:
                # There was no room for the rest, which is said when it comes alone.
                written += file.write(memoryview(data).cast("B")[written:])
            return written

    def read_text(self, path: PathLike, encoding: str = "utf-8", errors: str | None = None) -> str:
        """The content of a file of text."""
        with self.open(path, "r", encoding=encoding, errors=errors) as file:
            text: str = file.read()
            return text

    def write_text(self, path: PathLike, text: str, encoding: str = "utf-8", errors: str | None = None) -> int:
        """Makes or replaces the content of a file of text; how many characters that were."""
        with self.open(path, "w", encoding=encoding, errors=errors) as file:
            return file.write(text)

    def truncate(self, path: PathLike, length: int) -> None:
        """Sets the size of a file; what is added is a hole."""
        self._change(path, AttributeChanges(size=length), follow=True)

    def copy(self, source: PathLike, target: PathLike) -> None:
        """Copies a file with its permission bits; the copy shares the stored bytes, so none are moved.

        A target that exists is replaced in its content.
        """
        files = self._source()
        with about(source, target):
            if self._is_same(files, source, target):
                raise posix_error(errno.EINVAL, "source and target are the same file")
            with self._handle(files, source, os.O_RDONLY) as (ino, reading):
                attributes = files.getattr(ino)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                with self._handle(files, target, flags, attributes.mode & 0o777) as (made, writing):
                    position = 0
                    while done := files.copy_file_range(reading, position, writing, position, 1 << 40, self._caller):
                        position += done
                    files.setattr(made, AttributeChanges(mode=stat.S_IMODE(attributes.mode)), self._caller)

    def fsync(self) -> None:
        """Returns when everything done so far outlives this process; a commit is what outlives the machine."""
        self._source().fsync()

    # -- directories -------------------------------------------------------------------------------------------------

    def listdir(self, path: PathLike = "/") -> list[Any]:
        """The names in a directory, ascending; bytes where the path is bytes."""
        return [entry.name for entry in self.scandir(path)]

    def scandir(self, path: PathLike = "/") -> Scan:
        """The entries of a directory as it is now, ascending by name; an iterator and a context manager."""
        files = self._source()
        with about(path):
            handle = files.opendir(find(files, encoded(path), self._caller).ino, self._caller)
        return Scan(self, self._source, handle, os.fspath(path))

    def walk(
        self,
        top: PathLike = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """Directories below ``top`` with the names in them, as `os.walk`; ``dirs`` may be changed when top down."""
        root = os.fspath(top)
        # Directories to visit, and those visited whose turn comes after what lies in them.
        waiting: list[Any] = [root]
        while waiting:
            here = waiting.pop()
            if isinstance(here, tuple):
                yield here
                continue
            directories: list[Any] = []
            others: list[Any] = []
            try:
                with self.scandir(here) as entries:
                    for entry in entries:
                        (directories if _leads_to_directory(entry) else others).append(entry.name)
            except OSError as error:
                if onerror is not None:
                    onerror(error)
                continue
            if topdown:
                yield here, directories, others
            else:
                waiting.append((here, directories, others))
            below = [os.path.join(here, name) for name in reversed(directories)]
            waiting += [path for path in below if followlinks or not self.islink(path)]

    def glob(self, pattern: str, *, recursive: bool = True, include_hidden: bool = False) -> list[str]:
        """The paths that match a pattern, ascending; ``**`` stands for any number of directories, not behind links.

        Names that begin with a dot are matched by such patterns only, unless ``include_hidden``.
        """
        return sorted(matching(self, pattern, recursive=recursive, hidden=include_hidden))

    def mkdir(self, path: PathLike, mode: int = 0o777) -> None:
        """Makes a directory."""
        files = self._source()
        with about(path):
            place = entry_of(files, encoded(path), self._caller)
            files.mkdir(place.parent, place.name, mode, self._caller)

    def makedirs(self, path: PathLike, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Makes a directory and those above it that are missing."""
        raw = encoded(path).rstrip(b"/") or b"/"
        above = os.path.dirname(raw)
        if above.strip(b"/") and not self.exists(above):
            # What is in the way there shows when this one is made.
            with suppress(FileExistsError):
                self.makedirs(above)
        try:
            self.mkdir(raw if isinstance(os.fspath(path), bytes) else as_text(raw), mode)
        except FileExistsError:
            if not exist_ok or not self.isdir(path):
                raise

    def rmdir(self, path: PathLike) -> None:
        """Removes an empty directory."""
        files = self._source()
        with about(path):
            place = entry_of(files, encoded(path), self._caller)
            files.rmdir(place.parent, place.name, self._caller)

    def rmtree(self, path: PathLike) -> None:
        """Removes a directory and everything in it; links are removed, not followed."""
        if self.islink(path):
            with about(path):
                raise posix_error(errno.ENOTDIR, "a symbolic link is removed with remove")
        for here, directories, others in self.walk(path, topdown=False, onerror=_raise):
            for name in others:
                self.remove(os.path.join(here, name))
            for name in directories:
                below = os.path.join(here, name)
                if self.islink(below):
                    self.remove(below)
                else:
                    self.rmdir(below)
        if encoded(path).strip(b"/"):
            self.rmdir(path)

    # -- names -------------------------------------------------------------------------------------------------------

    def remove(self, path: PathLike) -> None:
        """Removes a name of anything but a directory; files that are open live on until they are closed."""
        files = self._source()
        with about(path):
            place = entry_of(files, encoded(path), self._caller)
            if place.slash and place.attributes is not None and not place.is_directory:
                raise posix_error(errno.ENOTDIR)
            files.unlink(place.parent, place.name, self._caller)

    unlink = remove

    def rename(self, source: PathLike, target: PathLike, *, flags: RenameFlags = RenameFlags.REPLACE) -> None:
        """Moves a name, atomically replacing what is there; with ``flags`` refusing to, or exchanging both."""
        files = self._source()
        with about(source, target):
            old = entry_of(files, encoded(source), self._caller)
            new = entry_of(files, encoded(target), self._caller)
            if (old.slash or new.slash) and old.attributes is not None and not old.is_directory:
                raise posix_error(errno.ENOTDIR)
            files.rename(old.parent, old.name, new.parent, new.name, self._caller, flags)

    def replace(self, source: PathLike, target: PathLike) -> None:
        """The same as `rename`."""
        self.rename(source, target)

    def symlink(self, target: PathLike, path: PathLike) -> None:
        """Makes a symbolic link at ``path``; its text is kept as it is."""
        files = self._source()
        with about(target, path):
            place = entry_of(files, encoded(path), self._caller)
            if place.slash and place.attributes is None:
                raise posix_error(errno.ENOENT)
            files.symlink(place.parent, place.name, encoded(target), self._caller)

    def readlink(self, path: PathLike) -> Any:
        """The text of a symbolic link; bytes where the path is bytes."""
        files = self._source()
        with about(path):
            target = files.readlink(find(files, encoded(path), self._caller, follow=False).ino)
        return target if isinstance(os.fspath(path), bytes) else as_text(target)

    def link(self, source: PathLike, target: PathLike, *, follow_symlinks: bool = False) -> None:
        """Gives a file another name."""
        files = self._source()
        with about(source, target):
            ino = find(files, encoded(source), self._caller, follow=follow_symlinks).ino
            place = entry_of(files, encoded(target), self._caller)
            if place.slash and place.attributes is None:
                raise posix_error(errno.ENOENT)
            files.link(ino, place.parent, place.name, self._caller)

    # -- attributes --------------------------------------------------------------------------------------------------

    def stat(self, path: PathLike, *, follow_symlinks: bool = True) -> os.stat_result:
        """What `os.stat` gives; the device is 0."""
        files = self._source()
        with about(path):
            return stat_result(find(files, encoded(path), self._caller, follow=follow_symlinks))

    def lstat(self, path: PathLike) -> os.stat_result:
        """The same of a link itself."""
        return self.stat(path, follow_symlinks=False)

    def exists(self, path: PathLike) -> bool:
        """Whether a path leads to something; False for a link to nowhere."""
        return self._mode(path) is not None

    def lexists(self, path: PathLike) -> bool:
        """Whether there is something, be it a link to nowhere."""
        return self._mode(path, follow=False) is not None

    def isdir(self, path: PathLike) -> bool:
        return stat.S_ISDIR(self._mode(path) or 0)

    def isfile(self, path: PathLike) -> bool:
        return stat.S_ISREG(self._mode(path) or 0)

    def islink(self, path: PathLike) -> bool:
        return stat.S_ISLNK(self._mode(path, follow=False) or 0)

    def chmod(self, path: PathLike, mode: int, *, follow_symlinks: bool = True) -> None:
        """Sets the permission bits."""
        self._change(path, AttributeChanges(mode=mode), follow=follow_symlinks)

    def chown(self, path: PathLike, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Sets owner and group; -1 leaves one as it is."""
        changes = AttributeChanges(uid=None if uid < 0 else uid, gid=None if gid < 0 else gid)
        self._change(path, changes, follow=follow_symlinks)

    def utime(
        self,
        path: PathLike,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Sets the times of access and of change of content, in seconds or nanoseconds, to now without either.

        Raises:
            ValueError: both are given.
        """
        if times is not None and ns is not None:
            raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
        if times is not None:
            ns = (round(times[0] * 1e9), round(times[1] * 1e9))
        changes = AttributeChanges(atime=NOW, mtime=NOW) if ns is None else AttributeChanges(atime=ns[0], mtime=ns[1])
        self._change(path, changes, follow=follow_symlinks)

    def getxattr(self, path: PathLike, name: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """The value of an extended attribute."""
        files = self._source()
        with about(path):
            ino = find(files, encoded(path), self._caller, follow=follow_symlinks).ino
            return files.getxattr(ino, encoded(name), self._caller)

    def setxattr(
        self, path: PathLike, name: str | bytes, value: bytes, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        """Sets an extended attribute; ``flags`` are `os.XATTR_CREATE` or `os.XATTR_REPLACE`."""
        files = self._source()
        with about(path):
            ino = find(files, encoded(path), self._caller, follow=follow_symlinks).ino
            files.setxattr(ino, encoded(name), value, self._caller, flags)

    def listxattr(self, path: PathLike = "/", *, follow_symlinks: bool = True) -> list[str]:
        """The names of the extended attributes."""
        files = self._source()
        with about(path):
            ino = find(files, encoded(path), self._caller, follow=follow_symlinks).ino
            return [as_text(name) for name in files.listxattr(ino, self._caller)]

    def removexattr(self, path: PathLike, name: str | bytes, *, follow_symlinks: bool = True) -> None:
        """Removes an extended attribute."""
        files = self._source()
        with about(path):
            ino = find(files, encoded(path), self._caller, follow=follow_symlinks).ino
            files.removexattr(ino, encoded(name), self._caller)

    def statfs(self) -> FileSystemStatus:
        """What the volume holds and may hold."""
        return self._source().statfs()

    def set_limits(self, *, limit_bytes: int | None = None, limit_inodes: int | None = None) -> None:
        """Limits what the volume may hold, as its next version will say too; 0 is no limit, None leaves it."""
        self._source().set_limits(limit_bytes=limit_bytes, limit_inodes=limit_inodes)

    # -- private -----------------------------------------------------------------------------------------------------

    def _opened(self, files: FileSystem, path: bytes, flags: int, permissions: int) -> tuple[int, int]:
        if flags & os.O_CREAT and path.endswith(b"/"):
            entry_of(files, path, self._caller)
            raise posix_error(errno.EISDIR)
        # With O_EXCL a link at the end is something that exists, wherever it leads.
        place = locate(files, path, self._caller, follow=not flags & os.O_EXCL)
        found = place.attributes
        if found is not None and not flags & os.O_EXCL:
            if stat.S_ISDIR(found.mode):
                raise posix_error(errno.EISDIR)
            return found.ino, files.open(found.ino, flags, self._caller)
        if not flags & os.O_CREAT:
            raise posix_error(errno.ENOENT)
        attributes, handle = files.create(place.parent, place.name, permissions, flags, self._caller)
        return attributes.ino, handle

    @contextmanager
    def _handle(
        self, files: FileSystem, path: PathLike, flags: int, permissions: int = 0o666
    ) -> Iterator[tuple[int, int]]:
        ino, handle = self._opened(files, encoded(path), flags, permissions)
        try:
            yield ino, handle
        finally:
            files.release(handle)

    def _is_same(self, files: FileSystem, source: PathLike, target: PathLike) -> bool:
        there = locate(files, encoded(target), self._caller, follow=True).attributes
        return there is not None and there.ino == find(files, encoded(source), self._caller).ino

    def _change(self, path: PathLike, changes: AttributeChanges, *, follow: bool) -> None:
        files = self._source()
        with about(path):
            files.setattr(find(files, encoded(path), self._caller, follow=follow).ino, changes, self._caller)

    def _mode(self, path: PathLike, *, follow: bool = True) -> int | None:
        try:
            return self.stat(path, follow_symlinks=follow).st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise


def process_caller() -> Caller:
    """The user this process runs as."""
    return Caller(uid=os.geteuid(), gid=os.getegid(), groups=os.getgroups(), umask=_umask())


def _umask() -> int:
    # os.umask can only be read by setting it, which other threads would notice.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o022


def _shown(path: PathLike) -> str | bytes:
    return os.fspath(path)


def _leads_to_directory(entry: DirEntry[Any]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that cannot be followed, such as one to itself.
        return False


def _raise(error: OSError) -> None:
    raise error
