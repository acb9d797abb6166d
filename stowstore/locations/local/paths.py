"""Opening files below a directory without ever leaving it.

Whoever may write below a root could plant a symbolic link to ``/etc``.  Nothing here follows a link or climbs by
``..`` below the root: the kernel refuses it while it resolves the path (``openat2``, Linux 5.6), so there is no moment
between a check and a use.  Elsewhere the same is done one segment at a time.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import partial

__all__ = ["DIRECTORY", "LOOK", "READ", "READABLE_DIRECTORY", "Root", "openat2_works", "split_path"]

_NO_FOLLOW = os.O_CLOEXEC | os.O_NOFOLLOW

#: Flags to read a file; a pipe somebody put there must not block the open.
READ = _NO_FOLLOW | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
#: Flags to look at whatever is there, without reading it.
LOOK = _NO_FOLLOW | os.O_PATH
#: Flags for a directory that other calls are relative to.
DIRECTORY = _NO_FOLLOW | os.O_PATH | os.O_DIRECTORY
#: Flags for a directory that is listed or synced.
READABLE_DIRECTORY = _NO_FOLLOW | os.O_RDONLY | os.O_DIRECTORY

# linux/openat2.h; the number is the same on every architecture Python runs on.
_SYS_OPENAT2 = 437
_RESOLVE = 0x02 | 0x04 | 0x08  # no magic links, no symbolic links, beneath the directory
_HOW_SIZE = 24


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOWS = {flags: _How(flags, 0, _RESOLVE) for flags in (READ, LOOK, DIRECTORY, READABLE_DIRECTORY)}
_ADDRESSES = {flags: ctypes.addressof(how) for flags, how in _HOWS.items()}

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
_syscall.restype = ctypes.c_long


class Root:
    """A directory held open; its descriptor is closed when nobody uses it any more."""

    __slots__ = ("fd", "open")

    def __init__(self, fd: int) -> None:
        #: Descriptor of the directory, owned from now on.
        self.fd = fd
        #: Opens a path below the directory, given as bytes, with one of the flags of this module; raises ``OSError``.
        self.open: Callable[[bytes, int], int] = partial(_openat2 if openat2_works() else _open_by_segment, fd)

    @classmethod
    def at(cls, path: str) -> Root:
        """The directory of a path, which may lead through links: who configures a root chooses it."""
        return cls(os.open(path, os.O_CLOEXEC | os.O_PATH | os.O_DIRECTORY))

    def __del__(self) -> None:
        os.close(self.fd)


def split_path(path: bytes) -> tuple[bytes, bytes]:
    """The directory of a path and the last segment."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def openat2_works() -> bool:
    """Whether kernel and sandbox let this process call ``openat2``; asked once."""
    global _works  # noqa: PLW0603 - a fact about the machine, found out when first needed
    if _works is None:
        try:
            fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
            try:
                os.close(_openat2(fd, b".", DIRECTORY))
            finally:
                os.close(fd)
            _works = True
        except OSError:
            # ENOSYS on old kernels, EPERM in sandboxes that do not know the call.
            _works = False
    return _works


_works: bool | None = None


def _openat2(directory: int, path: bytes, flags: int) -> int:
    fd: int = _syscall(_SYS_OPENAT2, directory, path, _ADDRESSES[flags], _HOW_SIZE)
    while fd < 0:
        code = ctypes.get_errno()
        # The kernel asks to try again when a directory on the way is renamed meanwhile.
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code))
        fd = _syscall(_SYS_OPENAT2, directory, path, _ADDRESSES[flags], _HOW_SIZE)
    return fd


def _open_by_segment(directory: int, path: bytes, flags: int) -> int:
    *parents, last = path.split(b"/")
    at = directory
    try:
        for name in (*parents, last):
            if name in (b"", b".."):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        for name in parents:
            below = os.open(name, DIRECTORY, dir_fd=at)
            if at != directory:
                os.close(at)
            at = below
        return os.open(last, flags, dir_fd=at)
    finally:
        if at != directory:
            os.close(at)
