"""Mounts on top of a mount: other file systems, read-only views, and places in use."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from tests.mounts.behaviours.calling import behaviour, in_child, libc, make, number, opened, said
from tests.mounts.behaviours.names import CALLS

__all__: list[str] = []

_NEW_NAMESPACE = 0x20000
_READ_ONLY, _REMOUNT, _BIND, _PRIVATE = 1, 32, 4096, 1 << 18 | 1 << 14


def _mount(source: str, target: str, kind: str | None, flags: int) -> str | int:
    return number(
        libc.mount(os.fsencode(source), os.fsencode(target), kind and os.fsencode(kind), ctypes.c_ulong(flags), None)
    )


def _alone() -> list[str | int]:
    """Has this process see mounts that nobody else does."""
    return [number(libc.unshare(_NEW_NAMESPACE)), _mount("none", "/", None, _PRIVATE)]


@behaviour
def other_file_systems_are_other() -> Any:
    """Names do not reach over the edge of a file system, and what is mounted on cannot be removed."""

    def act() -> Any:
        found: list[Any] = _alone()
        os.makedirs("place/below")
        os.mkdir("bound")
        make("file", b"x")
        found += [_mount("none", "place", "tmpfs", 0), _mount(".", "bound", None, _BIND)]
        make("place/there", b"y")
        found += [
            said(os.rename, "file", "place/file"),
            said(os.rename, "place/there", "there"),
            said(os.link, "file", "place/file"),
            said(os.rename, "file", "bound/renamed"),
            said(os.link, "file", "bound/linked"),
            said(os.rmdir, "place"),
            said(os.rename, "place", "elsewhere"),
            said(os.rename, "bound/bound", "elsewhere"),
            said(os.unlink, "place"),
        ]
        with opened("file") as source, opened("place/copy", os.O_CREAT | os.O_WRONLY) as target:
            found.append(type(said(os.copy_file_range, source, target, 1)).__name__)
        found += [number(libc.umount2(b"place", 2)), sorted(os.listdir("place")), said(os.rename, "file", "place/file")]
        return found

    return in_child(act)


@behaviour
def read_only_views_stay_as_they_are() -> Any:
    """Every call that would change something says EROFS, and every other one works."""

    def act() -> Any:
        os.mkdir("real")
        os.mkdir("view")
        make("real/in", b"inside")
        os.setxattr("real/in", "user.x", b"x")
        os.mkdir("real/full")
        make("real/full/below", b"below")
        os.mkdir("real/empty")
        make("real/other", b"x")
        os.mkdir("real/moved")
        os.symlink("in", "real/link")
        found: dict[str, Any] = {"made": _alone()}
        found["bound"] = (
            _mount("real", "view", None, _BIND),
            _mount("none", "view", None, _BIND | _REMOUNT | _READ_ONLY),
        )
        os.chdir("view")
        for call, do in CALLS.items():
            for path in ("in", "new", "full", "empty", "link", "in/below"):
                found[f"{call} {path}"] = said(do, path)
        return found

    return in_child(act)
