"""What programs do to a directory, and what they see: each behaviour gives back what can be compared.

A behaviour runs in a process of its own below a fresh directory, on the local disk and on a mount.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["BEHAVIOURS"]

Behaviour = Callable[[], Any]
BEHAVIOURS: dict[str, Behaviour] = {}
_libc = ctypes.CDLL(None, use_errno=True)
_NOREPLACE, _EXCHANGE = 1, 2
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


def said(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What a call returns, or the name of its error."""
    try:
        return call(*args, **more)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def make(name: str | bytes, content: bytes = b"", mode: int = 0o644) -> None:
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(descriptor, content)
    os.close(descriptor)
    os.chmod(name, mode)


def content(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def about(name: str | bytes) -> tuple[Any, ...]:
    found = os.lstat(name)
    # How large a directory is, every file system decides for itself.
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return oct(found.st_mode), found.st_nlink, found.st_uid, found.st_gid, size


def rename2(old: str, new: str, flags: int) -> str | int:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        return errno.errorcode[ctypes.get_errno()]
    return 0


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> str | int:
    if _libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        return errno.errorcode[ctypes.get_errno()]
    return 0


def as_user(uid: int, act: Callable[[], Any], groups: tuple[int, ...] = ()) -> Any:
    """What an unprivileged user gets; in a child, since there is no way back."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writing, repr(act()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read().decode()
    os.waitpid(child, 0)
    return answer


@behaviour
def errors_of_names() -> Any:
    long, path = "n" * 255, "d/" * 2100
    make("file")
    os.mkdir("dir")
    os.symlink("loop", "loop")
    return [
        said(make, long),
        said(make, long + "n"),
        said(os.stat, "n" * 256),
        said(os.mkdir, "m" * 255),
        said(os.mkdir, "m" * 256),
        said(os.symlink, "x" * 4095, "longest"),
        said(os.symlink, "x" * 4096, "too long"),
        said(os.symlink, "", "nothing"),
        said(os.stat, path),
        said(os.stat, "loop"),
        said(os.open, "loop", os.O_RDONLY),
        said(os.open, "loop", os.O_RDONLY | os.O_NOFOLLOW),
        said(os.stat, "file/below"),
        said(os.mkdir, "file/below"),
        said(os.unlink, "missing"),
        said(os.unlink, "dir"),
        said(os.rmdir, "file"),
        said(os.rmdir, "."),
        said(os.rmdir, "dir/.."),
        said(os.mkdir, "dir"),
        said(os.mkdir, "."),
        said(os.link, "dir", "other"),
        said(os.link, "missing", "other"),
        said(os.link, "file", "dir"),
        said(os.open, "dir", os.O_WRONLY),
        said(os.open, "file", os.O_RDONLY | os.O_DIRECTORY),
        said(os.open, "file", os.O_CREAT | os.O_EXCL),
        said(os.open, "loop", os.O_CREAT | os.O_EXCL),
        said(os.truncate, "dir", 0),
        said(os.readlink, "file"),
        said(os.chdir, "file"),
        sorted(os.listdir(b".")),
    ]


@behaviour
def names_are_bytes() -> Any:
    names = [b"\xff\xfe", b"a b", b"new\nline", b"tab\t", "größe".encode(), b"-rf", b"...", b"\x01"]
    for name in names:
        make(name, name)
    return sorted(os.listdir(b"."))


@behaviour
def links_are_counted() -> Any:
    make("a", b"x")
    found = [os.stat("a").st_nlink]
    os.link("a", "b")
    os.mkdir("d")
    os.mkdir("d/e")
    os.link("a", "d/c")
    found += [os.stat("a").st_nlink, os.stat("d").st_nlink, os.stat(".").st_nlink]
    os.unlink("b")
    os.rmdir("d/e")
    found += [os.stat("a").st_nlink, os.stat("d").st_nlink]
    os.rename("d/c", "c")
    os.mkdir("f")
    os.rename("f", "d/f")
    return [*found, os.stat("d").st_nlink, os.stat(".").st_nlink, os.stat("c").st_ino == os.stat("a").st_ino]


@behaviour
def renames_of_every_kind_over_every_kind() -> Any:
    kinds: dict[str, Callable[[str], None]] = {
        "absent": lambda name: None,
        "file": lambda name: make(name, b"f"),
        "link": lambda name: os.symlink("x", name),
        "empty": os.mkdir,
        "full": lambda name: os.makedirs(f"{name}/below"),
        "fifo": os.mkfifo,
    }
    found = []
    for number, (first, make_first) in enumerate(kinds.items()):
        for second, make_second in kinds.items():
            for flags in (0, _NOREPLACE, _EXCHANGE):
                place = f"{number}-{second}-{flags}"
                os.mkdir(place)
                make_first(f"{place}/a")
                make_second(f"{place}/b")
                done = rename2(f"{place}/a", f"{place}/b", flags)
                left = sorted((name, oct(os.lstat(f"{place}/{name}").st_mode)) for name in os.listdir(place))
                found.append((first, second, flags, done, left, os.stat(place).st_nlink))
    return found


@behaviour
def renames_that_cannot_be() -> Any:
    os.makedirs("a/b/c")
    make("f")
    os.link("f", "g")
    return [
        said(os.rename, "a", "a/b/d"),
        said(os.rename, "a", "a"),
        said(os.rename, "a/b", "a"),
        said(os.rename, "f", "g"),
        os.path.exists("f"),
        said(os.rename, "a/.", "x"),
        said(os.rename, "a/b/..", "x"),
        said(os.rename, "f", "n" * 256),
        said(os.rename, "f", "missing/x"),
        rename2("f", "x", _NOREPLACE | _EXCHANGE),
        rename2("a", "a/b/c", _EXCHANGE),
    ]


@behaviour
def times_change_as_they_should() -> Any:
    def moved(act: Callable[[], Any], *names: str) -> Any:
        before = [os.lstat(name) for name in names]
        time.sleep(0.02)
        act()
        after = [os.lstat(name) for name in names]
        return [
            (old.st_mtime_ns != new.st_mtime_ns, old.st_ctime_ns != new.st_ctime_ns)
            for old, new in zip(before, after, strict=True)
        ]

    make("f", b"12345")
    os.mkdir("d")
    found = [
        moved(lambda: make("d/new"), "d"),
        moved(lambda: os.chmod("f", 0o600), "f", "."),
        moved(lambda: os.truncate("f", 2), "f", "."),
        moved(lambda: os.link("f", "d/g"), "f", "d", "."),
        moved(lambda: os.rename("d/g", "d/h"), "f", "d"),
        moved(lambda: os.unlink("d/h"), "f", "d"),
        moved(lambda: os.mkdir("d/s"), "d", "."),
        moved(lambda: os.rmdir("d/s"), "d"),
        moved(lambda: os.utime("f", ns=(1, 2)), "f"),
        moved(lambda: os.symlink("x", "d/l"), "d"),
        moved(lambda: content("f"), "f"),
        moved(lambda: os.listdir("d"), "d"),
        moved(lambda: make("f", b"again"), "f", "."),
    ]
    for moment in (0, -1, -1_500_000_000, 1_234_567_890_123_456_789, 2**33 * 10**9):
        os.utime("f", ns=(moment, moment))
        found.append(os.stat("f").st_mtime_ns)
    return found


@behaviour
def permissions_of_others() -> Any:
    found = []
    for mode in (0o000, 0o444, 0o222, 0o111, 0o644, 0o666, 0o755):
        name = f"f{mode:o}"
        make(name, b"x", mode)
        for uid in (0, 1234):
            found += [
                (oct(mode), uid, flags, as_user(uid, lambda n=name, f=flags: type(said(os.open, n, f))))
                for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC)
            ]
    for mode in (0o000, 0o444, 0o222, 0o333, 0o555, 0o777):
        name = f"d{mode:o}"
        os.mkdir(name)
        make(f"{name}/in")
        os.chmod(name, mode)
        acts = (
            lambda n=name: said(os.listdir, n),
            lambda n=name: type(said(os.stat, f"{n}/in")).__name__,
            lambda n=name: said(make, f"{n}/new"),
            lambda n=name: said(os.unlink, f"{n}/in"),
        )
        found += [(oct(mode), as_user(1234, act)) for act in acts]
    return found


@behaviour
def ownership_and_its_rights() -> Any:
    make("mine", b"x", 0o644)
    os.chown("mine", 1234, 1234)
    make("roots")
    return [
        as_user(1234, lambda: said(os.chmod, "mine", 0o600)),
        as_user(1235, lambda: said(os.chmod, "mine", 0o666)),
        as_user(1234, lambda: said(os.chown, "mine", 1235, -1)),
        as_user(1234, lambda: said(os.chown, "mine", -1, 99)),
        as_user(1234, lambda: said(os.chown, "mine", -1, 99), groups=(99,)),
        as_user(1234, lambda: said(os.chown, "roots", 1234, -1)),
        as_user(1235, lambda: said(os.utime, "mine", ns=(1, 1))),
        as_user(1235, lambda: said(os.utime, "mine")),
        as_user(1234, lambda: said(os.utime, "mine", ns=(1, 1))),
        about("mine"),
    ]


@behaviour
def sticky_directories_protect() -> Any:
    os.mkdir("t")
    os.chmod("t", 0o1777)
    as_user(1234, lambda: make("t/a", b"x", 0o666))
    os.mkdir("own")
    return [
        as_user(1235, lambda: said(os.unlink, "t/a")),
        as_user(1235, lambda: said(os.rename, "t/a", "t/b")),
        as_user(1235, lambda: said(make, "t/mine")),
        as_user(1235, lambda: said(os.rename, "t/mine", "t/a")),
        as_user(1234, lambda: said(os.unlink, "t/a")),
        sorted(os.listdir("t")),
    ]


@behaviour
def set_ids_are_inherited_and_dropped() -> Any:
    os.mkdir("g")
    os.chown("g", 1234, 5678)
    os.chmod("g", 0o2777)
    as_user(1234, lambda: make("g/f"))
    as_user(1234, lambda: os.mkdir("g/d"))
    found = [about("g/f"), about("g/d")]
    for name in ("write", "truncate", "chown", "root write", "root chown", "group"):
        make(name, b"xxxx", 0o777)
        os.chown(name, 1234, 1234)
        os.chmod(name, 0o6777 if name != "group" else 0o2767)

    def write(name: str) -> None:
        descriptor = os.open(name, os.O_WRONLY)
        os.write(descriptor, b"y")
        os.close(descriptor)

    as_user(1234, lambda: write("write"))
    as_user(1234, lambda: os.truncate("truncate", 1))
    as_user(1234, lambda: os.chown("chown", 1234, 1234))
    write("root write")
    os.chown("root chown", 1, 1)
    as_user(1235, lambda: write("group"))
    names = ("write", "truncate", "chown", "root write", "root chown", "group")
    return [*found, *(about(name)[0] for name in names)]


@behaviour
def files_without_names_live_on() -> Any:
    make("f", b"still here")
    descriptor = os.open("f", os.O_RDWR)
    os.unlink("f")
    os.pwrite(descriptor, b"S", 0)
    found = [os.pread(descriptor, 100, 0), os.fstat(descriptor).st_nlink, said(os.stat, "f")]
    make("f", b"another")
    found += [os.pread(descriptor, 100, 0), content("f")]
    os.ftruncate(descriptor, 3)
    os.fchmod(descriptor, 0o600)
    found.append(os.fstat(descriptor).st_size)
    os.close(descriptor)
    os.mkdir("d")
    here = os.open(".", os.O_RDONLY)
    os.chdir("d")
    os.rmdir("../d")
    found += [said(os.listdir, "."), said(make, "x"), said(os.stat, "..") == "ENOENT", os.stat(".").st_nlink]
    os.fchdir(here)
    return found


@behaviour
def unnamed_files_get_names() -> Any:
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(descriptor, b"made in secret")
    found = [os.fstat(descriptor).st_nlink, os.listdir(".")]
    done = _libc.linkat(-100, f"/proc/self/fd/{descriptor}".encode(), -100, b"named", 0x400)
    found += [done, content("named") if not done else None, os.fstat(descriptor).st_nlink]
    exclusive = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    done = _libc.linkat(-100, f"/proc/self/fd/{exclusive}".encode(), -100, b"never", 0x400)
    return [*found, done, errno.errorcode[ctypes.get_errno()], said(os.open, ".", os.O_TMPFILE | os.O_RDONLY)]


@behaviour
def holes_cost_nothing_and_are_found() -> Any:
    descriptor = os.open("sparse", os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, b"data", 1 << 20)
    os.ftruncate(descriptor, 4 << 20)
    found = [os.fstat(descriptor).st_size, os.fstat(descriptor).st_blocks < 100]
    found += [os.pread(descriptor, 8, (1 << 20) - 4), os.pread(descriptor, 4, 3 << 20)]
    os.ftruncate(descriptor, (1 << 20) + 2)
    os.ftruncate(descriptor, 2 << 20)
    found += [os.pread(descriptor, 4, 1 << 20)]
    found += [fallocate(descriptor, 0, 0, 3 << 20), os.fstat(descriptor).st_size]
    found += [fallocate(descriptor, _KEEP_SIZE, 0, 5 << 20), os.fstat(descriptor).st_size]
    found += [fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 1 << 20, 4096), os.pread(descriptor, 4, 1 << 20)]
    found += [
        fallocate(descriptor, _PUNCH_HOLE, 0, 4096),
        fallocate(descriptor, 0, 0, 0),
        fallocate(descriptor, 0, -1, 1),
    ]
    os.pwrite(descriptor, b"zeroed", 0)
    found += [fallocate(descriptor, _ZERO_RANGE, 0, 4), os.pread(descriptor, 8, 0)]
    return [*found, said(os.lseek, descriptor, 1 << 30, os.SEEK_DATA), said(os.ftruncate, descriptor, -1)]


@behaviour
def offsets_appending_and_vectors() -> Any:
    descriptor = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, b"0123456789", 5)
    first = os.open("f", os.O_WRONLY | os.O_APPEND)
    second = os.open("f", os.O_WRONLY | os.O_APPEND)
    os.write(first, b"A")
    os.write(second, b"B")
    os.write(first, b"C")
    os.pwritev(descriptor, [b"x", b"yz"], 1)
    buffers = [bytearray(3), bytearray(4)]
    count = os.preadv(descriptor, buffers, 4)
    return [
        content("f"),
        count,
        buffers,
        said(os.read, first, 1),
        said(os.pread, descriptor, 10, 1000),
        said(os.lseek, descriptor, -1, os.SEEK_SET),
        os.lseek(descriptor, -3, os.SEEK_END),
        said(os.write, os.open("f", os.O_RDONLY), b"x"),
    ]


@behaviour
def ranges_are_copied() -> Any:
    make("a", bytes(range(256)) * 64)
    source, target = os.open("a", os.O_RDONLY), os.open("b", os.O_CREAT | os.O_RDWR)
    found = [os.copy_file_range(source, target, 10_000, 100, 50)]
    found += [os.copy_file_range(source, target, 10_000, 16_000, 0)]
    copied = content("b")
    same = os.open("a", os.O_RDWR)
    found += [said(os.copy_file_range, same, same, 5000, 0, 6000), said(os.copy_file_range, same, same, 5000, 0, 1000)]
    return [*found, len(copied), copied[:60], copied[50:56], os.stat("a").st_size]


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
def mappings_and_files_agree() -> Any:
    descriptor = os.open("m", os.O_CREAT | os.O_RDWR)
    os.ftruncate(descriptor, 16384)
    shared = mmap.mmap(descriptor, 16384)
    private = mmap.mmap(descriptor, 16384, flags=mmap.MAP_PRIVATE)
    shared[0:5] = b"hello"
    found = [os.pread(descriptor, 5, 0), private[0:5]]
    os.pwrite(descriptor, b"WORLD", 100)
    found += [shared[100:105]]
    private[200:203] = b"own"
    found += [os.pread(descriptor, 3, 200), shared[200:203]]
    child = os.fork()
    if not child:
        shared[300:305] = b"child"
        os._exit(0)
    os.waitpid(child, 0)
    found += [shared[300:305], os.pread(descriptor, 5, 300)]
    shared.flush()
    os.unlink("m")
    shared[400:404] = b"last"
    return [*found, os.pread(descriptor, 4, 400)]


@behaviour
def locks_hold_between_processes() -> Any:
    make("f", b"0123456789")
    held = os.open("f", os.O_RDWR)

    def attempt(act: Callable[[int], Any]) -> Any:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            other = os.open("f", os.O_RDWR)
            os.write(writing, str(said(act, other)).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        answer = os.read(reading, 100)
        os.close(reading)
        return answer

    def flock(kind: int) -> Callable[[int], Any]:
        return lambda other: fcntl.flock(other, kind | fcntl.LOCK_NB)

    def lock(kind: int, start: int, length: int) -> Callable[[int], Any]:
        return lambda other: fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start)

    fcntl.flock(held, fcntl.LOCK_SH)
    found = [attempt(flock(fcntl.LOCK_SH)), attempt(flock(fcntl.LOCK_EX))]
    fcntl.flock(held, fcntl.LOCK_UN)
    fcntl.lockf(held, fcntl.LOCK_EX, 5, 0)
    found += [
        attempt(lock(fcntl.LOCK_EX, 0, 5)),
        attempt(lock(fcntl.LOCK_EX, 5, 5)),
        attempt(lock(fcntl.LOCK_SH, 4, 1)),
    ]
    open_file_lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 6, 2, 0)
    found.append(said(fcntl.fcntl, held, 37, open_file_lock) == open_file_lock)
    found += [attempt(lock(fcntl.LOCK_EX, 6, 1)), attempt(lock(fcntl.LOCK_EX, 8, 1))]
    return found


@behaviour
def listings_stand_still_while_files_go() -> Any:
    os.mkdir("d")
    names = {f"file-{number:04d}" for number in range(3000)}
    for name in names:
        make(f"d/{name}")
    seen = []
    with os.scandir("d") as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(f"d/{entry.name}")
    found = [sorted(seen) == sorted(names), os.listdir("d")]
    os.rmdir("d")
    return found


@behaviour
def the_file_system_tells_of_itself() -> Any:
    found = os.statvfs(".")
    return [found.f_namemax, os.pathconf(".", "PC_NAME_MAX"), found.f_bavail > 0, found.f_favail > 0]


@behaviour
def huge_files_are_only_numbers() -> Any:
    make("f")
    # What the local disk can have, not what we can: 10^15 bytes are tried where nothing is compared.
    os.truncate("f", 10**12)
    with open("f", "r+b") as file:
        file.seek(10**12 - 1)
        found = [file.read(), file.tell()]
    os.unlink("f")
    return found


@behaviour
def opening_flags_mean_what_they_say() -> Any:
    found = []
    for flags in (
        os.O_CREAT,
        os.O_CREAT | os.O_EXCL,
        os.O_CREAT | os.O_TRUNC,
        os.O_TRUNC,
        os.O_DIRECTORY,
        os.O_NOFOLLOW,
    ):
        for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            for kind in ("absent", "file", "dir", "link", "dangling"):
                with suppress(FileNotFoundError):
                    os.unlink("x")
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.rmdir("x")
                make("target", b"content")
                with suppress(FileNotFoundError):
                    os.unlink("gone")
                if kind == "file":
                    make("x", b"content")
                elif kind == "dir":
                    with suppress(IsADirectoryError, PermissionError):
                        os.unlink("x")
                    os.mkdir("x")
                elif kind == "link":
                    os.symlink("target", "x")
                elif kind == "dangling":
                    os.symlink("gone", "x")
                descriptor = said(os.open, "x", flags | access, 0o604)
                opened = descriptor if isinstance(descriptor, str) else about("x")[0]
                if not isinstance(descriptor, str):
                    os.close(descriptor)
                found.append((flags, access, kind, opened, os.stat("target").st_size))
                if kind == "dir":
                    os.rmdir("x")
    return found


@behaviour
def direct_access_bypasses_the_page_cache() -> Any:
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = b"d" * 8192
    descriptor = os.open("direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    found = [os.pwrite(descriptor, buffer, 0)]
    os.preadv(descriptor, [buffer], 0)
    return [*found, buffer[:4], content("direct")[-4:]]


@behaviour
def umask_is_applied_once() -> Any:
    before = os.umask(0o027)
    try:
        descriptor = os.open("f", os.O_CREAT | os.O_WRONLY, 0o777)
        os.close(descriptor)
        os.mkdir("d", 0o777)
        os.mkfifo("p", 0o666)
    finally:
        os.umask(before)
    return [about(name)[0] for name in ("f", "d", "p")]
