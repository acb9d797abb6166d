"""Two trees with one interface by path: a real directory, and a file system of ours behind a thin walk.

Paths are tuples of names below the root of the tree; both sides answer with plain values or an errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import Caller
from stowstore.namespace.renames import RenameFlags

PathNames = tuple[bytes, ...]

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_MAX_FOLLOWED = 40


def outcome(action: Callable[..., Any], *arguments: Any) -> Any:
    """What an operation answers: its value, or the name of its errno."""
    try:
        return action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def shown(mode: int, nlink: int, uid: int, gid: int, size: int, rdev: int) -> tuple[int, ...]:
    """What both sides must agree on; a directory's size is its own business."""
    directory = stat.S_ISDIR(mode)
    return (mode, nlink, uid, gid, 0 if directory else size, rdev)


class RealTree:
    """A directory of the local disk, used as whoever calls."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    @contextmanager
    def acting(self, caller: Caller) -> Iterator[None]:
        """Runs as another user, if that is somebody else."""
        if caller.uid == os.geteuid():
            yield
            return
        groups = os.getgroups()
        os.setgroups(sorted(caller.groups))
        os.setegid(caller.gid)
        os.seteuid(caller.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    def mkdir(self, path: PathNames, mode: int, caller: Caller) -> None:
        with self.acting(caller):
            os.mkdir(self._at(path), mode)

    def mkfifo(self, path: PathNames, mode: int, caller: Caller) -> None:
        with self.acting(caller):
            os.mkfifo(self._at(path), mode)

    def symlink(self, path: PathNames, target: bytes, caller: Caller) -> None:
        with self.acting(caller):
            os.symlink(target, self._at(path))

    def readlink(self, path: PathNames, caller: Caller) -> bytes:
        with self.acting(caller):
            return os.readlink(self._at(path))

    def link(self, path: PathNames, new: PathNames, caller: Caller) -> None:
        with self.acting(caller):
            os.link(self._at(path), self._at(new), follow_symlinks=False)

    def unlink(self, path: PathNames, caller: Caller) -> None:
        with self.acting(caller):
            os.unlink(self._at(path))

    def rmdir(self, path: PathNames, caller: Caller) -> None:
        with self.acting(caller):
            os.rmdir(self._at(path))

    def rename(self, path: PathNames, new: PathNames, flags: int, caller: Caller) -> None:
        with self.acting(caller):
            if _libc.renameat2(_AT_FDCWD, self._at(path), _AT_FDCWD, self._at(new), ctypes.c_uint(flags)):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    def open(self, path: PathNames, flags: int, mode: int, caller: Caller) -> int:
        with self.acting(caller):
            return os.open(self._at(path), flags | os.O_NONBLOCK, mode)

    def close(self, handle: int) -> None:
        os.close(handle)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return os.pread(handle, size, offset)

    def write(self, handle: int, offset: int, data: bytes, caller: Caller) -> int:
        with self.acting(caller):
            return os.pwrite(handle, data, offset)

    def ftruncate(self, handle: int, size: int, caller: Caller) -> None:
        with self.acting(caller):
            os.ftruncate(handle, size)

    def fallocate(self, handle: int, mode: int, offset: int, length: int, caller: Caller) -> None:
        with self.acting(caller):
            if _libc.fallocate(handle, mode, ctypes.c_long(offset), ctypes.c_long(length)):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    def copy(self, handle: int, offset: int, target: int, target_offset: int, length: int, caller: Caller) -> int:
        with self.acting(caller):
            return os.copy_file_range(handle, target, length, offset, target_offset)

    def fstat(self, handle: int) -> tuple[int, ...]:
        return self._shown(os.fstat(handle))

    def truncate(self, path: PathNames, size: int, caller: Caller) -> None:
        with self.acting(caller):
            os.truncate(self._at(path), size)

    def chmod(self, path: PathNames, mode: int, caller: Caller) -> None:
        with self.acting(caller):
            os.chmod(self._at(path), mode)

    def chown(self, path: PathNames, uid: int, gid: int, caller: Caller) -> None:
        with self.acting(caller):
            os.chown(self._at(path), uid, gid, follow_symlinks=False)

    def utime(self, path: PathNames, atime: int, mtime: int, caller: Caller) -> tuple[int, int]:
        with self.acting(caller):
            os.utime(self._at(path), ns=(atime, mtime))
        found = os.stat(self._at(path))
        return found.st_atime_ns, found.st_mtime_ns

    def access(self, path: PathNames, mask: int, caller: Caller) -> bool:
        with self.acting(caller):
            return os.access(self._at(path), mask, effective_ids=True)

    def stat(self, path: PathNames, caller: Caller) -> tuple[int, ...]:
        with self.acting(caller):
            return self._shown(os.lstat(self._at(path)))

    def listdir(self, path: PathNames, caller: Caller) -> list[bytes]:
        with self.acting(caller):
            return sorted(os.listdir(self._at(path)))

    def setxattr(self, path: PathNames, name: bytes, value: bytes, flags: int, caller: Caller) -> None:
        with self.acting(caller):
            os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: PathNames, name: bytes, caller: Caller) -> bytes:
        with self.acting(caller):
            return os.getxattr(self._at(path), name, follow_symlinks=False)

    def listxattr(self, path: PathNames, caller: Caller) -> list[bytes]:
        with self.acting(caller):
            return sorted(map(os.fsencode, os.listxattr(self._at(path), follow_symlinks=False)))

    def removexattr(self, path: PathNames, name: bytes, caller: Caller) -> None:
        with self.acting(caller):
            os.removexattr(self._at(path), name, follow_symlinks=False)

    def _at(self, path: PathNames) -> bytes:
        return b"/".join((self._root, *path))

    @staticmethod
    def _shown(found: os.stat_result) -> tuple[int, ...]:
        return shown(found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_rdev)


class OurTree:
    """A file system of ours, walked by path as the kernel walks."""

    def __init__(self, files: FileSystem) -> None:
        self.files = files
        self._inos: dict[int, int] = {}

    def mkdir(self, path: PathNames, mode: int, caller: Caller) -> None:
        self.files.mkdir(*self._parent(path, caller), mode, caller)

    def mkfifo(self, path: PathNames, mode: int, caller: Caller) -> None:
        self.files.mknod(*self._parent(path, caller), stat.S_IFIFO | mode, caller)

    def symlink(self, path: PathNames, target: bytes, caller: Caller) -> None:
        self.files.symlink(*self._parent(path, caller), target, caller)

    def readlink(self, path: PathNames, caller: Caller) -> bytes:
        return self.files.readlink(self._walk(path, caller, follow=False).ino)

    def link(self, path: PathNames, new: PathNames, caller: Caller) -> None:
        source = self._walk(path, caller, follow=False)
        self.files.link(source.ino, *self._parent(new, caller), caller)

    def unlink(self, path: PathNames, caller: Caller) -> None:
        self.files.unlink(*self._parent(path, caller), caller)

    def rmdir(self, path: PathNames, caller: Caller) -> None:
        self.files.rmdir(*self._parent(path, caller), caller)

    def rename(self, path: PathNames, new: PathNames, flags: int, caller: Caller) -> None:
        source = self._parent(path, caller)
        # The kernel asks whether the one directory may be searched before it looks for the other.
        self.files.lookup(source[0], b".", caller)
        self.files.rename(*source, *self._parent(new, caller), caller, RenameFlags(flags))

    def open(self, path: PathNames, flags: int, mode: int, caller: Caller) -> int:
        if flags & os.O_CREAT:
            attributes, handle = self.files.create(*self._parent(path, caller), mode, flags, caller)
        else:
            attributes = self._walk(path, caller, follow=not flags & os.O_NOFOLLOW)
            handle = self.files.open(attributes.ino, flags, caller)
        self._inos[handle] = attributes.ino
        return handle

    def close(self, handle: int) -> None:
        del self._inos[handle]
        self.files.release(handle)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return self.files.read(handle, offset, size)

    def write(self, handle: int, offset: int, data: bytes, caller: Caller) -> int:
        return self.files.write(handle, offset, data, caller)

    def ftruncate(self, handle: int, size: int, caller: Caller) -> None:
        self.files.setattr(self._inos[handle], AttributeChanges(size=size), caller, handle)

    def fallocate(self, handle: int, mode: int, offset: int, length: int, caller: Caller) -> None:
        self.files.fallocate(handle, mode, offset, length, caller)

    def copy(self, handle: int, offset: int, target: int, target_offset: int, length: int, caller: Caller) -> int:
        return self.files.copy_file_range(handle, offset, target, target_offset, length, caller)

    def fstat(self, handle: int) -> tuple[int, ...]:
        return self._shown(self.files.getattr(self._inos[handle]))

    def truncate(self, path: PathNames, size: int, caller: Caller) -> None:
        self.files.setattr(self._walk(path, caller).ino, AttributeChanges(size=size), caller)

    def chmod(self, path: PathNames, mode: int, caller: Caller) -> None:
        self.files.setattr(self._walk(path, caller).ino, AttributeChanges(mode=mode), caller)

    def chown(self, path: PathNames, uid: int, gid: int, caller: Caller) -> None:
        changes = AttributeChanges(uid=None if uid < 0 else uid, gid=None if gid < 0 else gid)
        self.files.setattr(self._walk(path, caller, follow=False).ino, changes, caller)

    def utime(self, path: PathNames, atime: int, mtime: int, caller: Caller) -> tuple[int, int]:
        found = self.files.setattr(self._walk(path, caller).ino, AttributeChanges(atime=atime, mtime=mtime), caller)
        return found.atime_ns, found.mtime_ns

    def access(self, path: PathNames, mask: int, caller: Caller) -> bool:
        try:
            self.files.access(self._walk(path, caller).ino, mask, caller)
        except OSError:
            return False
        return True

    def stat(self, path: PathNames, caller: Caller) -> tuple[int, ...]:
        return self._shown(self._walk(path, caller, follow=False))

    def listdir(self, path: PathNames, caller: Caller) -> list[bytes]:
        return sorted(list_names(self.files, self._walk(path, caller).ino, caller))

    def setxattr(self, path: PathNames, name: bytes, value: bytes, flags: int, caller: Caller) -> None:
        self.files.setxattr(self._walk(path, caller, follow=False).ino, name, value, caller, flags)

    def getxattr(self, path: PathNames, name: bytes, caller: Caller) -> bytes:
        return self.files.getxattr(self._walk(path, caller, follow=False).ino, name, caller)

    def listxattr(self, path: PathNames, caller: Caller) -> list[bytes]:
        return self.files.listxattr(self._walk(path, caller, follow=False).ino, caller)

    def removexattr(self, path: PathNames, name: bytes, caller: Caller) -> None:
        self.files.removexattr(self._walk(path, caller, follow=False).ino, name, caller)

    def _parent(self, path: PathNames, caller: Caller) -> tuple[int, bytes]:
        return self._walk(path[:-1], caller).ino, path[-1]

    def _walk(self, path: PathNames, caller: Caller, *, follow: bool = True) -> Attributes:
        found = self.files.getattr(1)
        above = [found]
        waiting = list(path)
        followed = 0
        while waiting:
            name = waiting.pop(0)
            above.append(found)
            found = self.files.lookup(found.ino, name, caller)
            if stat.S_ISLNK(found.mode) and (waiting or follow):
                followed += 1
                if followed > _MAX_FOLLOWED:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                waiting = self.files.readlink(found.ino).split(b"/") + waiting
                found = above.pop()
        return found

    @staticmethod
    def _shown(found: Attributes) -> tuple[int, ...]:
        return shown(found.mode, found.nlink, found.uid, found.gid, found.size, found.rdev)


def list_names(files: FileSystem, ino: int, caller: Caller) -> list[bytes]:
    """The names in a directory, in the order they are listed."""
    handle = files.opendir(ino, caller)
    try:
        names: list[bytes] = []
        cookie = 0
        while entries := files.readdir(handle, cookie, 7):
            names += [entry.name for entry in entries]
            cookie = entries[-1].cookie
        return names[2:]
    finally:
        files.releasedir(handle)
