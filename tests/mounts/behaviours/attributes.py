"""Extended attributes and special files."""

from __future__ import annotations

import os
import select
import stat
from typing import Any

from tests.mounts.behaviours.calling import about, as_user, behaviour, make, opened, said

__all__: list[str] = []


@behaviour
def attributes_are_kept_apart() -> Any:
    make("f")
    os.mkdir("d")
    os.symlink("f", "l")
    os.setxattr("f", "user.one", b"1")
    os.setxattr("f", "user.empty", b"")
    os.setxattr("d", "user.dir", b"\0\1")
    os.setxattr("f", "trusted.root", b"secret")
    found = [
        sorted(name for name in os.listxattr("f")),
        os.getxattr("f", "user.one"),
        os.getxattr("f", "user.empty"),
        said(os.getxattr, "f", "user.none"),
        said(os.setxattr, "f", "user.one", b"2", os.XATTR_CREATE),
        said(os.setxattr, "f", "user.none", b"2", os.XATTR_REPLACE),
        said(os.removexattr, "f", "user.none"),
        said(os.setxattr, "l", "user.x", b"1", follow_symlinks=False),
        said(os.setxattr, "f", "nonsense", b"1"),
        said(os.setxattr, "f", "user." + "n" * 251, b"1"),
        as_user(1234, lambda: said(os.getxattr, "f", "user.one")),
        as_user(1234, lambda: said(os.setxattr, "f", "user.one", b"x")),
        as_user(1234, lambda: said(os.getxattr, "f", "trusted.root")),
    ]
    os.removexattr("f", "user.one")
    os.rename("f", "g")
    return [*found, sorted(os.listxattr("g"))]


@behaviour
def special_files_are_kept() -> Any:
    os.mkfifo("fifo", 0o640)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(250, 70_000))
    os.mknod("plain", 0o600)
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("fifo", os.O_WRONLY)
    os.write(writer, b"through")
    found = [os.read(reader, 100), os.stat("null").st_rdev, os.stat("block").st_rdev, about("plain")]
    import socket

    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")
    found += [about("socket")[0], as_user(1234, lambda: said(os.mknod, "dev", stat.S_IFCHR, os.makedev(1, 3)))]
    return found


@behaviour
def attributes_of_every_kind() -> Any:
    """Which name spaces there are on what, for root and for others."""
    make("file", b"", 0o666)
    os.mkdir("directory")
    os.chmod("directory", 0o777)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    os.mkfifo("fifo")
    os.chmod("fifo", 0o666)
    os.symlink("file", "link")
    os.mknod("device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    names = (
        "user.a",
        "trusted.a",
        "security.a",
        "user.",
        "user",
        "other.a",
        "",
        "system.a",
        "user." + "n" * 250,
        "user." + "n" * 251,
    )

    def act() -> Any:
        return {
            (kind, name): (
                said(os.setxattr, kind, name, b"v", follow_symlinks=False),
                said(os.getxattr, kind, name, follow_symlinks=False),
                said(os.listxattr, kind, follow_symlinks=False),
                said(os.removexattr, kind, name, follow_symlinks=False),
            )
            for kind in ("file", "directory", "sticky", "fifo", "link", "device")
            for name in names
        }

    return act(), as_user(1001, act)


@behaviour
def attributes_of_every_length() -> Any:
    make("f")
    found = []
    for length in (0, 1, 100, 1000, 3000, 65_537, 1 << 20):
        found.append((length, said(os.setxattr, "f", "user.x", b"v" * length)))
        value = said(os.getxattr, "f", "user.x")
        found.append((len(value), os.listxattr("f")))
    for flags in (0, os.XATTR_CREATE, os.XATTR_REPLACE, 3, 4):
        over, new = said(os.setxattr, "f", "user.x", b"1", flags), said(os.setxattr, "f", f"user.{flags}", b"1", flags)
        found.append((flags, over, new))
    os.link("f", "g")
    os.setxattr("g", "user.shared", b"yes")
    with opened("f") as descriptor:
        found.append((os.getxattr(descriptor, "user.shared"), sorted(os.listxattr(descriptor))))
    return found


@behaviour
def opening_of_special_files() -> Any:
    """Fifos without the other end, sockets and devices that are not there."""
    os.mkfifo("fifo")
    os.mknod("socket", stat.S_IFSOCK | 0o666)
    os.mknod("nothing", stat.S_IFCHR | 0o666, os.makedev(240, 77))
    os.mknod("zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    found = {}
    for name in ("fifo", "socket", "nothing", "zero"):
        for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            descriptor = said(os.open, name, access | os.O_NONBLOCK)
            found[name, access] = descriptor if isinstance(descriptor, str) else "opened"
            if isinstance(descriptor, int):
                os.close(descriptor)
    with opened("zero") as zero:
        found["zero", -1] = os.read(zero, 3)
    with opened("fifo", os.O_RDWR | os.O_NONBLOCK) as fifo:
        found["empty", -1] = said(os.read, fifo, 1)
        os.write(fifo, b"x")
        found["full", -1] = select.select([fifo], [], [], 0)[0] == [fifo], os.fstat(fifo).st_size
    return found, {name: about(name) for name in os.listdir(".")}


@behaviour
def devices_of_every_number() -> Any:
    found = []
    for count, device in enumerate([(0, 0), (1, 3), (255, 255), (256, 256), (4095, 1048575)]):
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            name = f"{count}-{kind}"
            os.mknod(name, kind | 0o600, os.makedev(*device))
            status = os.lstat(name)
            found.append((device, oct(status.st_mode), os.major(status.st_rdev), os.minor(status.st_rdev)))
    found += [said(os.mknod, f"wrong-{kind}", kind | 0o600) for kind in (stat.S_IFDIR, stat.S_IFLNK, 0o170000)]
    found.append(
        as_user(
            1001,
            lambda: [
                said(os.mknod, f"u{kind}", kind | 0o600, 259)
                for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG)
            ],
        )
    )
    return found
