"""Mounting and unmounting: the descriptor of ``/dev/fuse``, and getting rid of a mount whatever state it is in.

The superuser mounts by mount(2), inside a user namespace as well; everybody else by the setuid helper ``fusermount3``,
which hands the descriptor over through a socket.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
import time
from enum import IntFlag
from pathlib import Path
from typing import Final

from attrs import frozen

from datastore.errors import PermissionDenied, StoreError, Unsupported

__all__ = [
    "FUSE_DEVICE",
    "MountFailed",
    "MountFlags",
    "MountPoint",
    "connection_of",
    "cut_off",
    "find_mount",
    "mount",
    "mount_point",
    "mounts",
    "read_ahead",
    "unmount",
    "unmount_if_unused",
]

FUSE_DEVICE: Final = "/dev/fuse"
_HELPER: Final = "fusermount3"
_TYPE: Final = "fuse.stowstore"
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_DEVICES: Final = Path("/sys/class/bdi")

#: As many symbolic links as Linux follows.
_MAX_LINKS: Final = 40

_libc = ctypes.CDLL(None, use_errno=True)


class MountFailed(StoreError):
    """A file system could not be mounted, or not be unmounted."""


class MountFlags(IntFlag):
    """Flags of mount(2)."""

    READ_ONLY = 1
    NO_SUID = 2
    NO_DEV = 4


class _UnmountFlags(IntFlag):
    FORCE = 1
    DETACH = 2


@frozen(kw_only=True)
class MountPoint:
    """A line of ``/proc/self/mountinfo``.  ``connection`` numbers the FUSE connection, ``owner`` is who mounted."""

    path: Path
    source: str
    kind: str
    connection: int
    read_only: bool
    owner: int


def mount(
    path: str | os.PathLike[str], *, source: str = "stowstore", read_only: bool = False, allow_other: bool | None = None
) -> int:
    """Mounts and returns the descriptor to serve; nothing at ``path`` answers until it is served.

    ``allow_other`` lets other users in, whom the mode bits then judge; None is what the user may do: the superuser
    always, others if ``/etc/fuse.conf`` says so.

    Raises:
        MountFailed: the path cannot be mounted on.
        Unsupported: this machine has no FUSE; the message says what is missing.
        PermissionDenied: it has, but not for this user.
    """
    where = os.path.realpath(path)
    _require_device()
    if os.geteuid() == 0:
        return _mount_directly(where, source, read_only, allow_other is not False)
    return _mount_by_helper(where, source, read_only, allow_other)


def unmount(path: str | os.PathLike[str], *, patience: float = 5.0) -> None:
    """Unmounts whatever the state of the server: asked first, then lazily, and a server that hangs is cut off.

    Raises:
        MountFailed: nothing is mounted there, or the kernel keeps it.
        PermissionDenied: another user has mounted it.
    """
    where = mount_point(path)
    found = find_mount(where)
    if found is None:
        raise MountFailed(f"nothing of stowstore is mounted at {where}", hint="see `stowstore mounts`")
    if os.geteuid() not in (0, found.owner):
        raise PermissionDenied(f"{where} was mounted by the user {found.owner}", hint="they unmount it, or root does")
    end = time.monotonic() + patience
    while _try_unmount(where, _UnmountFlags(0)):
        # Somebody has something open there, or the kernel is still writing.
        if time.monotonic() >= end:
            break
        time.sleep(0.05)
    else:
        return
    number = _try_unmount(where, _UnmountFlags.DETACH)
    if number:
        raise MountFailed(f"{where} cannot be unmounted: {os.strerror(number)}")


def unmount_if_unused(path: str | os.PathLike[str]) -> bool:
    """Unmounts if nobody has anything open there, and never lazily; whether nothing is mounted there afterwards."""
    found = find_mount(path)
    return found is None or _try_unmount(found.path, _UnmountFlags(0)) == 0


def cut_off(path: str | os.PathLike[str]) -> None:
    """Cuts the kernel off from the server of a mount: every request fails at once, and whoever hung in one is free.

    The mount may be gone afterwards, or answer ENOTCONN until it is unmounted.

    Raises:
        MountFailed: nothing of ours is mounted there.
        OSError: see `Connection.abort`; the superuser is spared it.
    """
    found = find_mount(path)
    if found is None:
        raise MountFailed(f"nothing of stowstore is mounted at {os.fspath(path)}")
    if os.geteuid() == 0:
        # Aborts the connection before it looks whether anything is open: that it then says EBUSY does not matter.
        _try_unmount(found.path, _UnmountFlags.FORCE)
        return
    connection = Connection(found.connection)
    try:
        if find_mount(path) == found:
            connection.abort()
    finally:
        connection.close()


class Connection:
    """The kernel's end of a mount that is there now, held so that no other is ever taken for it.

    The kernel gives the number of a connection to another mount as soon as it is free: whoever cuts a mount off by
    number may hit a stranger's that was made meanwhile.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._refusal: OSError | None = None
        try:
            self._switch = os.open(_CONNECTIONS / str(number) / "abort", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            self._switch = -1
            self._refusal = error

    def abort(self) -> None:
        """Cuts the kernel off from the server, though the mount be detached; does nothing once the connection is gone.

        Raises:
            OSError: this user may not, or /sys/fs/fuse/connections is not mounted, as in most containers.
        """
        if self._refusal is not None:
            raise self._refusal
        os.write(self._switch, b"1")

    def close(self) -> None:
        """Lets go of it; it cannot be cut off by this any more."""
        switch, self._switch = self._switch, -1
        if switch >= 0:
            self._refusal = OSError(errno.EBADF, "the connection was let go of")
            os.close(switch)


def mounts() -> list[MountPoint]:
    """Every FUSE mount this process can see."""
    found: list[MountPoint] = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if not more[0].startswith("fuse"):
            continue
        major, _, minor = fields[2].partition(":")
        found.append(
            MountPoint(
                path=Path(_unescaped(fields[4])),
                source=_unescaped(more[1]),
                kind=more[0],
                connection=os.makedev(int(major), int(minor)),
                read_only="ro" in fields[5].split(","),
                owner=next((int(option[8:]) for option in more[2].split(",") if option.startswith("user_id=")), 0),
            )
        )
    return found


def mount_point(path: str | os.PathLike[str]) -> Path:
    """A path as the kernel calls it, through symbolic links; never asks the server of a mount there, which may hang."""
    where = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        where = os.path.join(os.path.realpath(os.path.dirname(where)), os.path.basename(where))
        try:
            target = os.readlink(where)
        except OSError:
            break
        where = os.path.abspath(os.path.join(os.path.dirname(where), target))
    return Path(where)


def find_mount(path: str | os.PathLike[str]) -> MountPoint | None:
    """The topmost mount of ours at a path; never touches the path itself, which may hang."""
    wanted = mount_point(path)
    found = None
    for one in mounts():
        if one.path == wanted and one.kind == _TYPE:
            found = one
    return found


def connection_of(path: str | os.PathLike[str]) -> int:
    """The number of the FUSE connection of a mount.

    Raises:
        MountFailed: none of ours is mounted there.
    """
    found = find_mount(path)
    if found is None:
        raise MountFailed(f"nothing of stowstore is mounted at {os.fspath(path)}")
    return found.connection


def read_ahead(connection: int, size: int | None = None) -> int | None:
    """How many bytes the kernel reads ahead in a mount, after setting it where this user may; None where it is unknown.

    Linux begins with 128 KiB, whatever a server says: reading ahead in larger requests takes it half the time.
    """
    setting = _DEVICES / f"{os.major(connection)}:{os.minor(connection)}" / "read_ahead_kb"
    if size is not None:
        with contextlib.suppress(OSError):
            setting.write_text(str(size >> 10))
    try:
        return int(setting.read_text()) << 10
    except (OSError, ValueError):
        return None


def _require_device() -> None:
    try:
        mode = os.stat(FUSE_DEVICE).st_mode
    except FileNotFoundError:
        raise Unsupported(
            f"{FUSE_DEVICE} is missing, so nothing can be mounted here",
            hint="load the module (`modprobe fuse`), or start the container with `--device /dev/fuse` and SYS_ADMIN",
        ) from None
    if not stat.S_ISCHR(mode):
        raise Unsupported(f"{FUSE_DEVICE} is no device", hint="make it with `mknod /dev/fuse c 10 229`")
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise PermissionDenied(
            f"{FUSE_DEVICE} is not open to this user (mode {stat.S_IMODE(mode):o})",
            hint="as root: `chmod 666 /dev/fuse`",
        )


def _mount_directly(where: str, source: str, read_only: bool, allow_other: bool) -> int:
    try:
        device = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unsupported(
            f"{FUSE_DEVICE} cannot be opened: {error.strerror}",
            hint="give the container `--device /dev/fuse` and the capability SYS_ADMIN",
        ) from error
    try:
        mode = os.stat(where).st_mode
        if not stat.S_ISDIR(mode):
            raise MountFailed(f"{where} is no directory", hint="mount on an empty directory")
        options = [
            f"fd={device}",
            f"rootmode={stat.S_IFDIR:o}",
            f"user_id={os.geteuid()}",
            f"group_id={os.getegid()}",
            "default_permissions",
        ]
        if allow_other:
            options.append("allow_other")
        flags = MountFlags.NO_SUID | MountFlags.NO_DEV if os.getuid() else MountFlags(0)
        if read_only:
            flags |= MountFlags.READ_ONLY
        made = _libc.mount(
            os.fsencode(source), os.fsencode(where), _TYPE.encode(), int(flags), ",".join(options).encode()
        )
        if made != 0:
            number = ctypes.get_errno()
            text = f"{where} cannot be mounted on: {os.strerror(number)}"
            if number == errno.EPERM:
                raise PermissionDenied(text, hint="mounting needs the capability SYS_ADMIN (docs/mounting.md)")
            if number == errno.ENODEV:
                raise Unsupported(text, hint="this kernel has no FUSE: `modprobe fuse`")
            raise MountFailed(text)
    except OSError as error:
        os.close(device)
        if isinstance(error, StoreError):
            raise
        raise MountFailed(f"{where} cannot be mounted on: {error.strerror}", hint=_hint_of(error)) from error
    except BaseException:
        os.close(device)
        raise
    return device


def _hint_of(error: OSError) -> str | None:
    if error.errno == errno.ENOENT:
        return "make the directory first"
    if error.errno == errno.ENOTCONN:
        return "a server has died there: `stowstore umount` it first"
    return None


def _mount_by_helper(where: str, source: str, read_only: bool, allow_other: bool | None) -> int:
    helper = shutil.which(_HELPER)
    if helper is None:
        raise Unsupported(
            f"only root mounts without {_HELPER}, which is not installed", hint="as root: `apt-get install fuse3`"
        )
    if allow_other is None:
        allow_other = _others_allowed()
    options = ["default_permissions", f"fsname={source.replace(',', '_')}", "subtype=stowstore"]
    if allow_other:
        options.append("allow_other")
    if read_only:
        options.append("ro")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", ",".join(options), "--", where],
            env=dict(os.environ, _FUSE_COMMFD=str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip() or f"{_HELPER} failed with {done.returncode}"
            raise MountFailed(f"{where} cannot be mounted on: {said}")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    if not ancillary:
        raise MountFailed(f"{_HELPER} handed no descriptor over for {where}")
    device = array.array("i", ancillary[0][2])[0]
    os.set_inheritable(device, False)
    return device


def _others_allowed() -> bool:
    with contextlib.suppress(OSError):
        lines = Path("/etc/fuse.conf").read_text().splitlines()
        return any(line.strip() == "user_allow_other" for line in lines)
    return False


def _try_unmount(where: Path, flags: _UnmountFlags) -> int:
    """0 when it is gone, else the error number."""
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(where), int(flags)) == 0:
            return 0
        number = ctypes.get_errno()
        return 0 if number in (errno.EINVAL, errno.ENOENT) else number
    helper = shutil.which(_HELPER)
    if helper is None:
        raise Unsupported(f"only root unmounts without {_HELPER}", hint="as root: `apt-get install fuse3`")
    lazily = ["-z"] if flags & _UnmountFlags.DETACH else []
    done = subprocess.run([helper, "-u", "-q", *lazily, "--", where], capture_output=True, check=False)
    return 0 if done.returncode == 0 or find_mount(where) is None else errno.EBUSY


def _unescaped(text: str) -> str:
    """The kernel writes blanks and backslashes of paths in octal."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
