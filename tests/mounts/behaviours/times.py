"""Time stamps: which call changes which, what can be set, and by whom."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from tests.mounts.behaviours.calling import (
    CLOCK_REALTIME_COARSE,
    as_user,
    behaviour,
    fallocate,
    libc,
    make,
    number,
    opened,
    rename2,
    said,
    tick,
)

__all__: list[str] = []

_NOW, _OMIT = (1 << 30) - 1, (1 << 30) - 2


def _stamps(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_mtime_ns, found.st_ctime_ns


@behaviour
def each_call_changes_its_times() -> Any:
    """Modification and change times of whatever a call touches, whether it succeeds or not."""

    def with_open(act: Callable[[int], Any], flags: int = os.O_RDWR) -> Callable[[], Any]:
        def run() -> Any:
            with opened("f", flags) as descriptor:
                return act(descriptor)

        return run

    def mapped(descriptor: int) -> None:
        with mmap.mmap(descriptor, 8) as memory:
            memory[:3] = b"map"
            memory.flush()

    calls: dict[str, Callable[[], Any]] = {
        "create": lambda: make("d/new"),
        "mkdir": lambda: os.mkdir("d/new"),
        "mkfifo": lambda: os.mkfifo("d/new"),
        "mknod": lambda: os.mknod("d/new"),
        "symlink": lambda: os.symlink("x", "d/new"),
        "link": lambda: os.link("f", "d/new"),
        "unlink": lambda: os.unlink("d/in"),
        "unlink one of two": lambda: os.unlink("g"),
        "rmdir": lambda: os.rmdir("d/sub"),
        "rename": lambda: os.rename("d/in", "d/out"),
        "rename away": lambda: os.rename("d/in", "e/in"),
        "rename over": lambda: os.rename("d/in", "g"),
        "rename a directory": lambda: os.rename("d/sub", "e/sub"),
        "exchange": lambda: rename2("d/in", "e/other", 2),
        "rename to itself": lambda: os.rename("f", "f"),
        "rename to the same file": lambda: os.rename("f", "g"),
        "chmod": lambda: os.chmod("f", 0o600),
        "chmod to the same": lambda: os.chmod("f", 0o644),
        "chown": lambda: os.chown("f", 1, 1),
        "chown to the same": lambda: os.chown("f", 0, 0),
        "chown nothing": lambda: os.chown("f", -1, -1),
        "lchown": lambda: os.lchown("l", 1, 1),
        "truncate": lambda: os.truncate("f", 2),
        "truncate longer": lambda: os.truncate("f", 200),
        "truncate to the same": lambda: os.truncate("f", 8),
        "open": with_open(lambda descriptor: None),
        "open truncated": with_open(lambda descriptor: None, os.O_WRONLY | os.O_TRUNC),
        "open and create": with_open(lambda descriptor: None, os.O_WRONLY | os.O_CREAT),
        "read": with_open(lambda descriptor: os.read(descriptor, 3)),
        "write": with_open(lambda descriptor: os.write(descriptor, b"x")),
        "write nothing": with_open(lambda descriptor: os.write(descriptor, b"")),
        "ftruncate": with_open(lambda descriptor: os.ftruncate(descriptor, 3)),
        "ftruncate to the same": with_open(lambda descriptor: os.ftruncate(descriptor, 8)),
        "fallocate": with_open(lambda descriptor: os.posix_fallocate(descriptor, 0, 100)),
        "punch": with_open(lambda descriptor: fallocate(descriptor, 3, 0, 4)),
        "map": with_open(mapped),
        "fsync": with_open(os.fsync),
        "setxattr": lambda: os.setxattr("f", "user.x", b"2"),
        "removexattr": lambda: os.removexattr("f", "user.x"),
        "getxattr": lambda: os.getxattr("f", "user.x"),
        "utime": lambda: os.utime("f", ns=(1, 2)),
        "utime of a link": lambda: os.utime("l", ns=(1, 2), follow_symlinks=False),
        "readlink": lambda: os.readlink("l"),
        "listdir": lambda: sorted(os.listdir("d")),
        "failing create": lambda: said(os.open, "d/in", os.O_CREAT | os.O_EXCL),
        "failing mkdir": lambda: said(os.mkdir, "d/in"),
        "failing link": lambda: said(os.link, "f", "g"),
        "failing symlink": lambda: said(os.symlink, "x", "d/in"),
        "failing unlink": lambda: said(os.unlink, "d/none"),
        "failing rmdir": lambda: said(os.rmdir, "d"),
        "failing rename": lambda: said(os.rename, "d/in", "e"),
        "failing truncate": lambda: said(os.truncate, "f", -1),
    }
    names = ("f", "g", "l", "d", "e", "d/in", "d/sub", "e/other", ".")
    found = {}
    for call, act in calls.items():
        os.mkdir(call)
        start = os.open(".", os.O_RDONLY)
        os.chdir(call)
        make("f", b"contents")
        os.setxattr("f", "user.x", b"1")
        os.link("f", "g")
        os.symlink("f", "l")
        for directory in ("d", "d/sub", "e"):
            os.mkdir(directory)
        make("d/in", b"in")
        make("e/other", b"other")
        # Whatever a name stands for afterwards, the times are those of the file it stood for.
        held = {name: os.open(name, os.O_PATH | os.O_NOFOLLOW) for name in names}
        tick()
        before = {name: _stamps(descriptor) for name, descriptor in held.items()}
        outcome = said(act)
        changed = {}
        for name, descriptor in held.items():
            changed[name] = tuple(new != old for new, old in zip(_stamps(descriptor), before[name], strict=True))
            os.close(descriptor)
        found[call] = outcome, changed
        os.fchdir(start)
        os.close(start)
    return found


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _utimensat(path: str, access: tuple[int, int], modified: tuple[int, int], flags: int = 0) -> str | int:
    times = (_Timespec * 2)(_Timespec(*access), _Timespec(*modified))
    return number(libc.utimensat(-100, os.fsencode(path), times, flags))


@behaviour
def times_are_set_as_asked() -> Any:
    """Each time alone, both, neither; the present; nanoseconds; what is no time at all."""
    make("f")
    os.symlink("f", "l")
    found: list[Any] = []
    for access in ((100, 1), (0, _NOW), (0, _OMIT)):
        for modified in ((200, 999_999_999), (0, _NOW), (0, _OMIT)):
            os.utime("f", ns=(5, 6))
            before = os.stat("f").st_ctime_ns
            tick()
            began = time.time_ns()
            done = _utimensat("f", access, modified)
            now = os.stat("f")
            found.append(
                (
                    done,
                    # The present is compared by being so.
                    ["now" if abs(each - began) < 60 * 10**9 else each for each in (now.st_atime_ns, now.st_mtime_ns)],
                    now.st_ctime_ns != before,
                )
            )
    wrong = ((0, -1), (0, 10**9), (0, (1 << 30) - 3))
    found += [(_utimensat("f", moment, (0, 0)), _utimensat("f", (0, 0), moment)) for moment in wrong]
    found.append(
        (_utimensat("l", (7, 7), (8, 8), 0x100), os.lstat("l").st_mtime_ns, os.stat("f").st_mtime_ns == 8 * 10**9)
    )
    found.append((_utimensat("none", (0, _OMIT), (0, _OMIT)), _utimensat("", (0, _OMIT), (0, 1))))
    for seconds in (-(2**31) + 1, -1, 0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 9_000_000_000):
        for nanoseconds in (0, 1, 999_999_999):
            found.append((_utimensat("f", (seconds, nanoseconds), (seconds, nanoseconds)), os.stat("f").st_mtime_ns))
            found.append(os.stat("f").st_atime_ns)
    return found


@behaviour
def times_are_set_by_whom_they_may() -> Any:
    """The owner sets any; whoever may write sets the present; nobody else anything."""
    moments = {
        "set": ((1, 1), (1, 1)),
        "now": ((0, _NOW), (0, _NOW)),
        "half": ((0, _NOW), (0, _OMIT)),
        "mixed": ((0, _NOW), (1, 1)),
        "nothing": ((0, _OMIT), (0, _OMIT)),
    }
    found = {}
    for mode in (0o644, 0o666, 0o444, 0o000, 0o222):
        path = f"f{mode:o}"
        make(path, b"x", mode)
        os.chown(path, 1001, 1001)
        for uid in (1001, 1002, 0):
            found[mode, uid] = as_user(
                uid, lambda path=path: {name: _utimensat(path, *both) for name, both in moments.items()}
            )
    return found


@behaviour
def clocks_run_forwards() -> Any:
    """The times of what happens later are later, and near the present."""
    began = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    moments = []
    for name in ("a", "b", "c"):
        make(name, b"x")
        moments.append(os.stat(name).st_mtime_ns)
        tick()
    os.utime("a")
    ended = time.time_ns()
    return [
        moments == sorted(moments),
        began <= moments[0] <= moments[2] <= ended,
        os.stat("a").st_mtime_ns > moments[2],
        os.stat("a").st_ctime_ns > moments[2],
        os.stat("a").st_atime_ns > moments[0],
    ]


_BIRTH_TIME = 0x800


def _birth(path: str) -> int:
    """The time of birth by statx(2), nanoseconds; 0 where it is not told."""
    answer = ctypes.create_string_buffer(256)
    if libc.statx(-100, os.fsencode(path), 0x100, _BIRTH_TIME, answer):
        raise OSError(ctypes.get_errno(), path)
    (mask,) = struct.unpack_from("=I", answer, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", answer, 80)
    return seconds * 10**9 + nanoseconds if mask & _BIRTH_TIME else 0


@behaviour
def birth_stays_what_it_was() -> Any:
    """Of every kind of object; whatever becomes of it, and not of what replaces it."""
    makers: dict[str, Callable[[], Any]] = {
        "file": lambda: make("file", b"x"),
        "directory": lambda: os.mkdir("directory"),
        "link": lambda: os.symlink("x", "link"),
        "fifo": lambda: os.mkfifo("fifo"),
    }
    found = {}
    for name, create in makers.items():
        began = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        create()
        born = _birth(name)
        tick()
        os.utime(name, ns=(1, 2), follow_symlinks=False)
        os.lchown(name, 1, 1)
        os.rename(name, f"{name}-renamed")
        kept = _birth(f"{name}-renamed") == born
        create()
        found[name] = [began <= born <= time.time_ns(), kept, _birth(name) > born]
    with opened("file", os.O_RDWR | os.O_TRUNC) as descriptor:
        os.write(descriptor, b"new")
    return found, _birth("file") > _birth("file-renamed")
