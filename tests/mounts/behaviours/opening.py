"""Opening: what flags mean, what is made by it, and what refuses."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from tests.mounts.behaviours.calling import about, as_user, behaviour, content, make, opened, said, tree

__all__: list[str] = []


_KINDS: Mapping[str, Callable[[str], Any]] = {
    "nothing": lambda path: None,
    "file": lambda path: make(path, b"content"),
    "directory": os.mkdir,
    "link": lambda path: os.symlink("../target", path),
    "link to a directory": lambda path: os.symlink("../targets", path),
    "dangling link": lambda path: os.symlink("gone", path),
    "loop": lambda path: os.symlink("it", path),
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o644),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 3)),
}
_FLAGS = (os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_DIRECT)


@behaviour
def opening_flags_mean_what_they_say() -> Any:
    """Every kind of object by every way of access with every set of flags."""
    make("target", b"content")
    os.mkdir("targets")
    sets = [sum(some) for count in range(len(_FLAGS) + 1) for some in itertools.combinations(_FLAGS, count)]
    found = {}
    for kind, create in _KINDS.items():
        place = None
        for flags in sets:
            for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_ACCMODE):
                if place is None:
                    place = f"{kind}-{flags}-{access}"
                    os.mkdir(place)
                    create(f"{place}/it")
                    before = tree(place)
                descriptor = said(os.open, f"{place}/it", flags | access | os.O_NONBLOCK, 0o604)
                told: Any = descriptor
                if isinstance(descriptor, int):
                    told = oct(fcntl.fcntl(descriptor, fcntl.F_GETFL)), oct(os.fstat(descriptor).st_mode)
                    os.close(descriptor)
                size = os.stat("target").st_size
                if not size:
                    make("target", b"content")
                after = tree(place) if flags & (os.O_CREAT | os.O_TRUNC) else before
                found[kind, oct(flags), access] = told, size, None if after == before else sorted(after.items())
                if after != before:
                    place = None
    return {"/".join(map(str, key)): told for key, told in found.items()}


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


@behaviour
def running_programs_are_not_written() -> Any:
    """A program that runs cannot be written or cut, and one that is being written cannot run."""
    shutil.copy("/bin/sleep", "program")
    os.chmod("program", 0o755)
    with subprocess.Popen(["./program", "60"]) as running:
        try:
            found: list[Any] = [
                said(os.open, "program", os.O_WRONLY),
                said(os.open, "program", os.O_RDWR),
                said(os.open, "program", os.O_RDONLY | os.O_TRUNC),
                said(os.truncate, "program", 0),
                os.stat("program").st_size == os.stat("/bin/sleep").st_size,
                running.poll(),
                said(os.rename, "program", "renamed"),
                said(os.unlink, "renamed"),
            ]
        finally:
            running.send_signal(signal.SIGKILL)
    shutil.copy("/bin/true", "busy")
    os.chmod("busy", 0o755)
    with opened("busy", os.O_WRONLY):
        found.append(said(subprocess.call, ["./busy"]))
    found.append(said(subprocess.call, ["./busy"]))
    return found


@behaviour
def making_gives_what_it_was_not_asked_to_give() -> Any:
    """Whoever makes a file may write it, whatever mode it gets."""

    def act() -> Any:
        found = []
        for mode in (0o000, 0o200, 0o400, 0o444):
            with opened(f"f{mode:o}", os.O_CREAT | os.O_RDWR, mode) as descriptor:
                found.append((os.write(descriptor, b"x"), os.pread(descriptor, 1, 0), about(f"f{mode:o}")))
            again = said(os.open, f"f{mode:o}", os.O_RDWR)
            found.append(again if isinstance(again, str) else "opened")
        return found

    return as_user(1001, act)


@behaviour
def truncating_opens_need_permission() -> Any:
    make("f", b"x", 0o444)
    make("g", b"x", 0o222)
    return as_user(
        1001,
        lambda: [
            said(os.open, "f", os.O_RDONLY | os.O_TRUNC),
            said(os.open, "f", os.O_RDONLY | os.O_CREAT | os.O_TRUNC),
            said(os.open, "g", os.O_RDONLY | os.O_TRUNC),
            os.stat("f").st_size,
            os.stat("g").st_size,
            said(os.open, "f", os.O_CREAT | os.O_EXCL),
            said(os.open, ".", os.O_CREAT),
            said(os.open, ".", os.O_WRONLY),
        ],
    )


@behaviour
def paths_are_opened_without_their_contents() -> Any:
    """O_PATH: names things, and does nothing with them."""
    make("f", b"x", 0o000)
    os.symlink("f", "l")
    with opened("f", os.O_PATH) as path, opened("l", os.O_PATH | os.O_NOFOLLOW) as link:
        return [
            said(os.read, path, 1),
            said(os.write, path, b"x"),
            said(os.fchmod, path, 0o777),
            os.fstat(path).st_size,
            os.readlink("", dir_fd=link),
            said(os.ftruncate, path, 0),
            content(f"/proc/self/fd/{path}"),
        ]
