"""The answers: each method takes the inode, the body, and the caller's ids, and returns the payload of the reply.

None is no reply.  Errors are `OSError`; one that is answered all the time may be returned as its number, since raising
it would be most of the work.  `WouldWait` has the request done by another thread.  Bodies are views of a buffer that is
used again: whatever outlives the call is copied.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from errno import EINVAL, ENODATA, EOPNOTSUPP, ERANGE, ETXTBSY
from typing import Any, Final

from stowstore.chunks.patience import WouldWait, must_not_wait
from stowstore.fuse import wire
from stowstore.fuse.barriers import Barriers
from stowstore.fuse.listings import Listings
from stowstore.fuse.options import FuseOptions, KernelCache
from stowstore.fuse.passthrough import Passthrough
from stowstore.fuse.wire import InitFlag, InitFlag2, Opcode, OpenFlag, SetattrValid, WriteFlag
from stowstore.namespace.attributes import NOW, AttributeChanges, Moment
from stowstore.namespace.errors import posix_error
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT, Caller, without_privileges

__all__ = ["BACKGROUND", "Body", "Handler", "Operations", "Payload"]

Body = memoryview
Payload = bytes | memoryview | int | None
Handler = Callable[[int, Body, int, int], Payload]

#: The superuser where the kernel says that even from him a write takes setuid and setgid away: he lacks CAP_FSETID.
_STRANGER: Final = Caller(uid=2**32 - 1, gid=2**32 - 1)

#: Requests under way in the kernel's background, and from when on it slows writers down.
BACKGROUND: Final = 128
_CONGESTED: Final = 96

_OPEN_KILL_SUIDGID: Final = 1
_OPEN_TO_EXECUTE: Final = 0x20  # FMODE_EXEC, include/linux/fs.h
_WRITE_CACHE: Final = int(WriteFlag.CACHE)
_WRITE_KILL_SUIDGID: Final = int(WriteFlag.KILL_SUIDGID)

# Plain numbers: asking a flag of an enumeration costs more than the rest of a small request.
_SET_ANYTHING: Final = 0x1BF  # all that a call asks for: the kernel adds CTIME and how it goes about it
_SET_ATIME: Final = int(SetattrValid.ATIME)
_SET_ATIME_NOW: Final = int(SetattrValid.ATIME_NOW)
_SET_CTIME: Final = int(SetattrValid.CTIME)
_SET_GID: Final = int(SetattrValid.GID)
_SET_KILL_SUIDGID: Final = int(SetattrValid.KILL_SUIDGID)
_SET_MODE: Final = int(SetattrValid.MODE)
_SET_MTIME: Final = int(SetattrValid.MTIME)
_SET_MTIME_NOW: Final = int(SetattrValid.MTIME_NOW)
_SET_SIZE: Final = int(SetattrValid.SIZE)
_SET_UID: Final = int(SetattrValid.UID)

_CAPABILITY: Final = b"security.capability"

_HANDLES_OF_ONE: Final = 1 << 40


class Operations:
    """Answers requests from a file system; its methods run on the serving thread and on workers."""

    def __init__(
        self,
        files: FileSystem,
        options: FuseOptions,
        *,
        on_flush: Callable[[int], None] | None = None,
        passthrough: Passthrough | None = None,
    ) -> None:
        self.files = files
        self._passthrough = passthrough
        self.options = options
        self._on_flush = on_flush
        self._generations: list[tuple[int, FileSystem]] = [(0, files)]
        self._first_handle = 0
        self._listings = Listings(options)
        self.barriers = Barriers()
        self._callers: dict[tuple[int, int], Caller] = {(0, 0): ROOT}
        self._writes_back = options.kernel_cache is KernelCache.WRITE_BACK
        # The handles by which programs run, and what they are of.
        self._executed: dict[int, int] = {}
        self.read_bytes = 0
        self.written_bytes = 0
        attr, attr_ns = self._attr_ttl = wire.seconds_of(options.attr_seconds)
        entry, entry_ns = wire.seconds_of(options.entry_seconds)
        self._entry_tail = wire.entry_tail(options.entry_seconds, options.attr_seconds)
        self._attr_prefix = wire.ATTR_OUT.pack(attr, attr_ns, 0)
        self._absent = wire.ENTRY.pack(0, 0, entry, 0, entry_ns, 0) + wire.NO_ATTR
        # We are the only writer, so what the kernel has stays right; it need not ask when a file is closed either.
        needs_flush = self._writes_back or on_flush is not None
        self._open_flags = int(OpenFlag.KEEP_CACHE | (OpenFlag(0) if needs_flush else OpenFlag.NOFLUSH))
        self._directory_flags = int(OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR if options.directory_seconds else 0)

    def handlers(self) -> list[Handler | None]:
        """The answers by opcode; None is ENOSYS, after which the kernel does not ask again."""
        found: list[Handler | None] = [None] * 64
        for opcode in Opcode:
            found[opcode] = getattr(self, opcode.name.lower(), None)
        if not self.options.xattrs:
            for opcode in (Opcode.GETXATTR, Opcode.SETXATTR, Opcode.LISTXATTR, Opcode.REMOVEXATTR):
                found[opcode] = None
        if self._writes_back:
            # The kernel holds the true size; it then answers that all is data up to it.
            found[Opcode.LSEEK] = None
        if self._on_flush is None:
            found[Opcode.FLUSH] = None
        return found

    def replace(self, files: FileSystem) -> None:
        """Goes on with another file system; handles of the former stay what they are."""
        self._first_handle += _HANDLES_OF_ONE
        files.number_handles_from(self._first_handle)
        self._generations.append((self._first_handle, files))
        self.files = files
        if self._passthrough is not None:
            self._passthrough.forget()

    def init(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        major, minor, _, flags, more = _padded(wire.INIT_IN, body)
        if major != 7 or minor < 31:
            raise posix_error(EOPNOTSUPP, f"the kernel speaks FUSE {major}.{minor}, and 7.31 is needed")
        # DONT_MASK stays off: the kernel applies the umask.  AUTO_INVAL_DATA stays off: nobody else writes.
        # HANDLE_KILLPRIV_V2 saves a GETXATTR a write, and makes setuid and setgid our business.
        wanted = (
            InitFlag.ASYNC_READ
            | InitFlag.ATOMIC_O_TRUNC
            | InitFlag.EXPORT_SUPPORT
            | InitFlag.BIG_WRITES
            | InitFlag.DO_READDIRPLUS
            | InitFlag.ASYNC_DIO
            | InitFlag.PARALLEL_DIROPS
            | InitFlag.MAX_PAGES
            | InitFlag.CACHE_SYMLINKS
            | InitFlag.EXPLICIT_INVAL_DATA
            | InitFlag.HANDLE_KILLPRIV_V2
        )
        if self._writes_back:
            wanted |= InitFlag.WRITEBACK_CACHE
        passes = 0
        if self._passthrough is not None:
            if flags & InitFlag.INIT_EXT:
                wanted |= InitFlag.INIT_EXT
                passes = more & int(InitFlag2.PASSTHROUGH)
            self._passthrough.agree(bool(passes))
        max_write = self.options.max_write
        return wire.INIT_OUT.pack(
            7,
            min(minor, 40),
            wire.MAX_WRITE,
            int(wanted) & flags,
            BACKGROUND,
            _CONGESTED,
            max_write,
            1,
            max_write // wire.PAGE,
            0,
            passes,
            # How deep file systems may be stacked: the plain files lie on one that is not.
            1 if passes else 0,
            0,
        )

    # -- inodes ------------------------------------------------------------------------------------------------------

    def lookup(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        found = self.files.look_up(node, bytes(body[:-1]))
        return self._absent if found is None else found[:8] + self._entry_tail + found

    def forget(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        self.files.forget(node, wire.FORGET.unpack_from(body)[0])
        return None

    def batch_forget(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        count, _ = wire.BATCH_FORGET.unpack_from(body)
        forget = self.files.forget
        for ino, lookups in wire.FORGOTTEN.iter_unpack(body[8 : 8 + 16 * count]):
            forget(ino, lookups)
        return None

    def getattr(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return self._attr_prefix + self.files.show(node)

    def setattr(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        (valid, _, _, size, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, new_uid, new_gid, _) = (
            wire.SETATTR.unpack_from(body)
        )
        access: int | Moment | None = None
        if valid & _SET_ATIME_NOW:
            access = NOW
        elif valid & _SET_ATIME:
            access = wire.signed_time(atime, atime_ns)
        modified: int | Moment | None = None
        if valid & _SET_MTIME_NOW:
            modified = NOW
        elif valid & _SET_MTIME:
            modified = wire.signed_time(mtime, mtime_ns)
        changes = AttributeChanges(
            mode=mode if valid & _SET_MODE else None,
            uid=new_uid if valid & _SET_UID else None,
            gid=new_gid if valid & _SET_GID else None,
            size=size if valid & _SET_SIZE else None,
            atime=access,
            mtime=modified,
            ctime=wire.signed_time(ctime, ctime_ns) if valid & _SET_CTIME else None,
        )
        if not valid & _SET_ANYTHING:
            # The chown(2) that changes neither owner nor group: it takes setuid and setgid all the same, but not at
            # the wish of strangers, whom the kernel lets pass.  It asks the same before a write, which says so itself.
            found = self.files.getattr(node)
            stranger = uid not in (0, found.uid) and not stat.S_ISDIR(found.mode)
            if stranger and without_privileges(found, self._caller(uid, gid)) != found.mode:
                return self._attr_prefix + self.files.show(node)
            changes = AttributeChanges(uid=found.uid)
        if valid & _SET_SIZE:
            caller = self._toucher(uid, gid) if valid & _SET_KILL_SUIDGID else ROOT
        else:
            # Of a chown the kernel says that it takes setuid and setgid whoever calls; from root it does not take
            # setgid without group execution.
            caller = self._caller(uid, gid)
        return self._attr_prefix + self.files.change(node, changes, caller)

    def statx(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return wire.pack_statx(self.files.getattr(node), self._attr_ttl)

    def readlink(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return self.files.readlink(node)

    def statfs(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        found = self.files.statfs()
        return wire.STATFS.pack(
            found.blocks,
            found.blocks_free,
            found.blocks_free,
            found.files,
            found.files_free,
            found.block_size,
            found.name_max,
            found.block_size,
            0,
        )

    # -- names -------------------------------------------------------------------------------------------------------

    def mknod(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        mode, rdev, _, _ = wire.MKNOD.unpack_from(body)
        return self._made(self.files.mknod(node, bytes(body[16:-1]), mode, self._caller(uid, gid), rdev))

    def mkdir(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        mode, _ = wire.MKDIR.unpack_from(body)
        return self._made(self.files.mkdir(node, bytes(body[8:-1]), mode, self._caller(uid, gid)))

    def symlink(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        name, target, _ = bytes(body).split(b"\0")
        return self._made(self.files.symlink(node, name, target, self._caller(uid, gid)))

    def link(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        (ino,) = wire.RENAME.unpack_from(body)
        return self._made(self.files.link(ino, node, bytes(body[8:-1]), self._caller(uid, gid)))

    def unlink(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        self.files.unlink(node, bytes(body[:-1]), self._caller(uid, gid))
        return b""

    def rmdir(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        self.files.rmdir(node, bytes(body[:-1]), self._caller(uid, gid))
        return b""

    def rename(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        (to,) = wire.RENAME.unpack_from(body)
        name, new_name, _ = bytes(body[8:]).split(b"\0")
        self.files.rename(node, name, to, new_name, self._caller(uid, gid))
        return b""

    def rename2(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        to, flags, _ = wire.RENAME2.unpack_from(body)
        name, new_name, _ = bytes(body[16:]).split(b"\0")
        self.files.rename(node, name, to, new_name, self._caller(uid, gid), flags)
        return b""

    # -- files -------------------------------------------------------------------------------------------------------

    def create(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        flags, mode, _, _ = wire.CREATE.unpack_from(body)
        name = bytes(body[16:-1])
        shown, handle = self.files.make_file(node, name, mode, self._adapted(flags), self._caller(uid, gid))
        return shown[:8] + self._entry_tail + shown + wire.OPEN_OUT.pack(handle, self._open_flags, 0)

    def tmpfile(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        flags, mode, _, _ = wire.CREATE.unpack_from(body)
        found, handle = self.files.tmpfile(node, mode, self._adapted(flags), self._caller(uid, gid))
        return self._made(found) + wire.OPEN_OUT.pack(handle, self._open_flags, 0)

    def open(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        flags, how = wire.OPEN.unpack_from(body)
        # The kernel refuses to write to a running program; this truncation it would refuse only after it was done.
        if flags & os.O_TRUNC and flags & os.O_ACCMODE == os.O_RDONLY and node in self._executed.values():
            raise posix_error(ETXTBSY)
        caller = self._toucher(uid, gid) if how & _OPEN_KILL_SUIDGID else ROOT
        handle = self.files.open(node, self._adapted(flags), caller)
        if flags & _OPEN_TO_EXECUTE:
            self._executed[handle] = node
        return wire.OPEN_OUT.pack(handle, self._open_flags, 0)

    def release(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle = wire.RELEASE.unpack_from(body)[0]
        if self._executed:
            self._executed.pop(handle, None)
        self._owner(handle).release(handle)
        return b""

    def read(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle, offset, size, _, _, _, _ = wire.READ_WRITE.unpack_from(body)
        files = self._owner(handle)
        plan = files.plan_read(handle, offset, size)
        if plan is None:
            return b""
        content = files.content
        if must_not_wait() and not content.is_near(plan):
            raise WouldWait(lambda: self._read(content.fetch(plan)))
        return self._read(content.fetch(plan))

    def write(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle, offset, size, how, _, flags, _ = wire.READ_WRITE.unpack_from(body)
        payload = body[wire.READ_WRITE.size :]
        if len(payload) != size:
            raise posix_error(EINVAL, f"a write of {size} bytes came with {len(payload)}")
        caller = self._toucher(uid, gid) if how & _WRITE_KILL_SUIDGID else ROOT
        files = self._owner(handle)
        if flags & os.O_DIRECT:
            # The kernel sends the parts of such a write side by side, and makes EIO of one that is cut short.
            written = files.write(handle, offset, payload, caller)
        else:
            written = files.write_fitting(handle, offset, payload, caller)
            if written < size and how & _WRITE_CACHE:
                # Of cached pages the kernel looks for an error only, and tells it to whoever syncs or closes.
                written += files.write(handle, offset + written, payload[written:], caller)
        self.written_bytes += written
        return wire.WRITE_OUT.pack(written, 0)

    def fallocate(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle, offset, length, mode, _ = wire.FALLOCATE.unpack_from(body)
        # Of this and of copies the kernel does not say whether they take setuid and setgid away.
        self._owner(handle).fallocate(handle, mode, offset, length, self._caller(uid, gid))
        return b""

    def lseek(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle, offset, whence, _ = wire.LSEEK.unpack_from(body)
        return wire.LSEEK_OUT.pack(self._owner(handle).lseek(handle, offset, whence))

    def copy_file_range(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return wire.WRITE_OUT.pack(self._copied(body, wire.MAX_WRITE << 10, self._caller(uid, gid)), 0)

    def copy_file_range_64(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return wire.COPY_OUT_64.pack(self._copied(body, 1 << 62, self._caller(uid, gid)))

    def flush(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        _off_the_serving_thread()
        if self._on_flush is not None:
            self._on_flush(node)
        return b""

    def fsync(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        _off_the_serving_thread()
        self.files.fsync()
        if self._on_flush is not None:
            self._on_flush(node)
        return b""

    def fsyncdir(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        _off_the_serving_thread()
        self.files.fsync()
        return b""

    def syncfs(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return self.fsyncdir(node, body, uid, gid)

    def ioctl(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return self.barriers.ioctl(body)

    # -- directories -------------------------------------------------------------------------------------------------

    def opendir(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        return wire.OPEN_OUT.pack(self.files.opendir(node, ROOT), self._directory_flags, 0)

    def releasedir(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle = wire.RELEASE.unpack_from(body)[0]
        self._listings.forget(handle)
        self._owner(handle).releasedir(handle)
        self.barriers.released(handle)
        return b""

    def readdir(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle, offset, size, _, _, _, _ = wire.READ_WRITE.unpack_from(body)
        return self._listings.plain(self._owner(handle), handle, offset, size)

    def readdirplus(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        handle, offset, size, _, _, _, _ = wire.READ_WRITE.unpack_from(body)
        return self._listings.plus(self._owner(handle), node, handle, offset, size)

    # -- extended attributes -----------------------------------------------------------------------------------------

    def setxattr(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        size, flags = wire.SETXATTR.unpack_from(body)
        name, end, value = bytes(body[wire.SETXATTR.size :]).partition(b"\0")
        if not end or len(value) != size:
            raise posix_error(EINVAL)
        self.files.setxattr(node, name, value, self._caller(uid, gid), flags)
        return b""

    def getxattr(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        room, _ = wire.XATTR_SIZE.unpack_from(body)
        name = bytes(body[wire.XATTR_SIZE.size : -1])
        if name == _CAPABILITY and not self.files.may_have_xattrs(node):
            # The kernel asks for it before the first write to every file.
            return ENODATA
        return _sized(room, self.files.getxattr(node, name, self._caller(uid, gid)))

    def listxattr(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        room, _ = wire.XATTR_SIZE.unpack_from(body)
        names = self.files.listxattr(node, self._caller(uid, gid))
        return _sized(room, b"".join(name + b"\0" for name in names))

    def removexattr(self, node: int, body: Body, uid: int, gid: int) -> Payload:
        self.files.removexattr(node, bytes(body[:-1]), self._caller(uid, gid))
        return b""

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _adapted(self, flags: int) -> int:
        """How a file is opened for the kernel's sake: it may use any handle of a file for what it has cached of it."""
        if self._writes_back and flags & os.O_ACCMODE == os.O_WRONLY:
            # To fill up a page it reads it first.
            flags = flags & ~os.O_ACCMODE | os.O_RDWR
        # It places what is appended itself; what else comes by this handle has a place of its own.
        return flags & ~os.O_APPEND

    def _toucher(self, uid: int, gid: int) -> Caller:
        """Whoever the kernel says must not leave setuid and setgid on what he touches."""
        return self._caller(uid, gid) if uid else _STRANGER

    def _caller(self, uid: int, gid: int) -> Caller:
        found = self._callers.get((uid, gid))
        if found is None:
            if len(self._callers) > 1024:
                self._callers = {(0, 0): ROOT}
            found = self._callers[uid, gid] = Caller(uid=uid, gid=gid, umask=0)
        return found

    def _made(self, found: Attributes) -> bytes:
        shown = self.files.introduce(found.ino)
        return shown[:8] + self._entry_tail + shown

    def _owner(self, handle: int) -> FileSystem:
        """The file system that gave out a handle."""
        if handle >= self._first_handle:
            return self.files
        for first, files in reversed(self._generations):
            if handle >= first:
                return files
        return self.files

    def _read(self, data: bytes) -> bytes:
        self.read_bytes += len(data)
        return data

    def _copied(self, body: Body, at_most: int, caller: Caller) -> int:
        handle, offset, _, target, target_offset, length, flags = wire.COPY.unpack_from(body)
        if flags:
            raise posix_error(EINVAL)
        return self._owner(handle).copy_file_range(handle, offset, target, target_offset, min(length, at_most), caller)


def _off_the_serving_thread() -> None:
    if must_not_wait():
        raise WouldWait


def _sized(room: int, value: bytes) -> bytes:
    """The answer to who asks for a size with no room, or for a value that has to fit."""
    if not room:
        return wire.XATTR_SIZE.pack(len(value), 0)
    if room < len(value):
        raise posix_error(ERANGE)
    return value


def _padded(layout: Any, body: Body) -> tuple[int, ...]:
    """The fields of a message that older kernels send shorter."""
    found: tuple[int, ...] = layout.unpack_from(bytes(body[: layout.size]).ljust(layout.size, b"\0"))
    return found
