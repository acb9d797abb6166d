"""The messages of the kernel's FUSE protocol: layouts, numbers and flags.

Source: ``include/uapi/linux/fuse.h`` of Linux, protocol 7.31 and later; little endian, as every machine we run on is.
Names are those of the header without their prefix.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

from stowstore.namespace.inodes import Attributes
from stowstore.namespace.kernel import SHOWN_BYTES

__all__ = [
    "ATTR_OUT",
    "BATCH_FORGET",
    "COPY",
    "COPY_OUT_64",
    "CREATE",
    "DIRENT",
    "ENTRY",
    "FALLOCATE",
    "FORGET",
    "FORGOTTEN",
    "FSYNC",
    "GETATTR",
    "HEADER_SIZE",
    "INIT_IN",
    "INIT_OUT",
    "INTERRUPT",
    "IN_HEADER",
    "IOCTL",
    "IOCTL_OUT",
    "LSEEK",
    "LSEEK_OUT",
    "MAX_WRITE",
    "MKDIR",
    "MKNOD",
    "NOTIFY_ENTRY",
    "NOTIFY_INODE",
    "NO_ATTR",
    "OPEN",
    "OPEN_OUT",
    "OUT_HEADER",
    "PAGE",
    "READ_WRITE",
    "RELEASE",
    "RENAME",
    "RENAME2",
    "SETATTR",
    "SETXATTR",
    "STATFS",
    "STATX_IN",
    "WRITE_OUT",
    "XATTR_SIZE",
    "InitFlag",
    "InitFlag2",
    "Notify",
    "Opcode",
    "OpenFlag",
    "SetattrValid",
    "WriteFlag",
    "entry_tail",
    "pack_statx",
    "seconds_of",
    "signed_time",
]

IN_HEADER: Final = Struct("<IIQQIIII")  # length opcode unique node uid gid pid extensions
OUT_HEADER: Final = Struct("<IiQ")  # length error unique
ENTRY: Final = Struct("<4Q2I")  # node generation entry_ttl attr_ttl entry_ttl_ns attr_ttl_ns, then attributes
ATTR_OUT: Final = Struct("<QII")  # attr_ttl attr_ttl_ns unused, then attributes
GETATTR: Final = Struct("<IIQ")  # flags - fh
SETATTR: Final = Struct("<II6Q8I")  # valid - fh size lock a m c a_ns m_ns c_ns mode - uid gid -
FORGET: Final = Struct("<Q")  # lookups
BATCH_FORGET: Final = Struct("<II")  # count -, then pairs of node and lookups
FORGOTTEN: Final = Struct("<QQ")  # node lookups
MKNOD: Final = Struct("<4I")  # mode rdev umask -, then the name
MKDIR: Final = Struct("<II")  # mode umask, then the name
RENAME: Final = Struct("<Q")  # new parent, then both names
RENAME2: Final = Struct("<QII")  # new parent flags -, then both names
OPEN: Final = Struct("<II")  # flags open_flags
CREATE: Final = Struct("<4I")  # flags mode umask open_flags, then the name
OPEN_OUT: Final = Struct("<QIi")  # fh flags backing_id
READ_WRITE: Final = Struct("<QQIIQII")  # fh offset size flags lock_owner open_flags -, then the data
IOCTL: Final = Struct("<QIIQII")  # fh flags command argument in_size out_size
IOCTL_OUT: Final = Struct("<iIII")  # result flags in_iovs out_iovs
RELEASE: Final = Struct("<QIIQ")  # fh flags release_flags lock_owner
FSYNC: Final = Struct("<QII")  # fh flags -
WRITE_OUT: Final = Struct("<II")  # size -
STATFS: Final = Struct("<5Q4I24x")  # blocks free available files files_free bsize name_max frsize -
SETXATTR: Final = Struct("<II")  # size flags, then name and value
XATTR_SIZE: Final = Struct("<II")  # size -
FALLOCATE: Final = Struct("<QQQII")  # fh offset length mode -
LSEEK: Final = Struct("<QQII")  # fh offset whence -
LSEEK_OUT: Final = Struct("<Q")
COPY: Final = Struct("<7Q")  # fh offset node_out fh_out offset_out length flags
COPY_OUT_64: Final = Struct("<Q")
INTERRUPT: Final = Struct("<Q")  # unique
DIRENT: Final = Struct("<QQII")  # ino next_offset name_length type, then the name padded to 8
INIT_IN: Final = Struct("<5I")  # major minor readahead flags flags2
INIT_OUT: Final = Struct("<4I2HII2HIIH22x")
# major minor readahead flags background congestion max_write granularity max_pages align flags2 stack_depth timeout
STATX_IN: Final = Struct("<IIQII")  # getattr_flags - fh flags mask
_STATX_OUT: Final = Struct("<QII16x")  # attr_ttl attr_ttl_ns flags
_STATX: Final = Struct("<IIQIIIHH4QqIiqIiqIiqIi4I112x")
NOTIFY_INODE: Final = Struct("<QqQ")  # node offset length
NOTIFY_ENTRY: Final = Struct("<QII")  # parent name_length flags, then the name and a NUL

HEADER_SIZE: Final = IN_HEADER.size
PAGE: Final = 4096

#: 256 pages, the kernel's limit unless ``fs.fuse.max_pages_limit`` was raised.
MAX_WRITE: Final = 1 << 20

#: The attributes of nothing, for absent names.
NO_ATTR: Final = bytes(SHOWN_BYTES)

_SECOND: Final = 10**9
_STATX_BASIC_AND_BIRTH: Final = 0x7FF | 0x800


class Opcode(IntEnum):
    """What the kernel asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class InitFlag(IntFlag):
    """What may be agreed on at the start, the first 32 bits."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30


class InitFlag2(IntFlag):
    """The bits from 32 on, shifted down."""

    PASSTHROUGH = 1 << 5


class OpenFlag(IntFlag):
    """How the kernel may treat what was opened."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


class SetattrValid(IntFlag):
    """Which fields of a SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


class WriteFlag(IntFlag):
    """What a WRITE says of itself."""

    #: From the page cache: the user of the request is not who wrote.
    CACHE = 1 << 0
    KILL_SUIDGID = 1 << 2


class Notify(IntEnum):
    """What we tell the kernel unasked."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3


def pack_statx(found: Attributes, ttl: tuple[int, int]) -> bytes:
    """The answer to STATX, which alone carries the time of birth."""
    times: list[int] = []
    for moment in (found.atime_ns, found.btime_ns, found.ctime_ns, found.mtime_ns):
        seconds, rest = divmod(moment, _SECOND)
        times += (seconds, rest, 0)
    # Devices have 12 bits of major and 20 of minor number, laid out as the kernel's new_encode_dev has them.
    major, minor = (found.rdev >> 8) & 0xFFF, (found.rdev & 0xFF) | ((found.rdev >> 12) & 0xFFF00)
    return _STATX_OUT.pack(*ttl, 0) + _STATX.pack(
        _STATX_BASIC_AND_BIRTH,
        PAGE,
        0,
        found.nlink,
        found.uid,
        found.gid,
        found.mode,
        0,
        found.ino,
        found.size,
        found.blocks,
        0,
        *times,
        major,
        minor,
        0,
        0,
    )


def entry_tail(entry_seconds: float, attr_seconds: float) -> bytes:
    """What stands between the number of an inode, which begins an entry, and its attributes."""
    entry, entry_ns = seconds_of(entry_seconds)
    attr, attr_ns = seconds_of(attr_seconds)
    return ENTRY.pack(0, 0, entry, attr, entry_ns, attr_ns)[8:]


def seconds_of(seconds: float) -> tuple[int, int]:
    """A time to live in seconds and nanoseconds."""
    whole = int(seconds)
    return whole, int((seconds - whole) * _SECOND)


def signed_time(seconds: int, nanoseconds: int) -> int:
    """Nanoseconds since 1970 of a time that arrives unsigned."""
    return (seconds - (1 << 64) if seconds >> 63 else seconds) * _SECOND + nanoseconds
