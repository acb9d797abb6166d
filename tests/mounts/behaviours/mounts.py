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


def furnish(top: str) -> None:
    """Makes what `refusals` asks to be changed."""
    make(f"{top}/in", b"inside")
    os.setxattr(f"{top}/in", "user.x", b"x")
    os.mkdir(f"{top}/full")
    make(f"{top}/full/below", b"below")
    os.mkdir(f"{top}/empty")
    make(f"{top}/other", b"x")
    os.mkdir(f"{top}/moved")
    os.symlink("in", f"{top}/link")
    os.symlink("gone", f"{top}/dangling")


def refusals(view: str) -> Any:
    """What every call says on every kind of path of a read-only view."""
    with opened(".") as here:
        os.chdir(view)
        found = {
            f"{call} {path}": said(do, path)
            for call, do in CALLS.items()
            for path in ("in", "new", "full", "empty", "link", "dangling", "in/below", "none/below", ".", "")
        }
        os.fchdir(here)
    return found


def refusals_when_bound(real: str, view: str) -> Any:
    """The same of a directory that is mounted read-only at another, where only this process sees it."""

    def act() -> Any:
        bound = [*_alone(), _mount(real, view, None, _BIND), _mount("none", view, None, _BIND | _REMOUNT | _READ_ONLY)]
        return bound, refusals(view)

    bound, found = in_child(act)
    if any(bound):
        raise AssertionError(f"it could not be mounted: {bound}")
    return found


@behaviour
def read_only_views_stay_as_they_are() -> Any:
    """Every call that would change something says EROFS, and every other one works."""
    os.mkdir("real")
    os.mkdir("view")
    furnish("real")
    return refusals_when_bound("real", "view")
