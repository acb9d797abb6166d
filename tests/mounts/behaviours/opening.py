"""Opening: what flags mean, what is made by it, and what refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import Any

from tests.mounts.behaviours.calling import about, as_user, behaviour, content, make, opened, said

__all__: list[str] = []


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
