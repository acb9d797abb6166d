"""Permissions: who may do what, by the mode bits of files, of directories, and of sticky directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from tests.mounts.behaviours.calling import EXCHANGE, as_user, behaviour, libc, make, number, opened, rename2, said
from tests.mounts.behaviours.names import CALLS

__all__ = ["CALLERS"]

#: Whoever calls, to a file of user 1001 and group 2001: user, group, further groups.
CALLERS: Mapping[str, tuple[int, int, tuple[int, ...]]] = {
    "owner": (1001, 3001, ()),
    "owner in the group": (1001, 2001, ()),
    "group": (1002, 2001, ()),
    "further group": (1002, 3001, (4001, 2001)),
    "other": (1003, 3001, (4001,)),
    "root": (0, 0, ()),
}


def _class(caller: str, bits: int) -> int:
    """A mode that gives bits to the class of a caller and their complement to the others."""
    shift = 6 if caller.startswith("owner") else 3 if "group" in caller else 0
    mode = (0o777 & ~(0o7 << shift)) & ~(0o111 * bits)
    return mode | bits << shift


def _by(caller: str, act: Callable[[], Any]) -> Any:
    uid, gid, groups = CALLERS[caller]
    return as_user(uid, act, groups, gid)


@behaviour
def permissions_of_directories() -> Any:
    """Every call below a directory, by everybody, with every mode."""
    below = {
        "create",
        "create exclusively",
        "create unnamed",
        "mkdir",
        "mkfifo",
        "mknod",
        "mknod of a device",
        "mknod of a socket",
        "symlink",
        "link to",
        "rename to",
    }
    found = {}
    for caller in ("owner", "group", "further group", "other", "root"):
        for bits in (0, 7) if caller == "root" else range(8):
            mode = _class(caller, bits)
            place = f"{caller}-{bits}"
            os.mkdir(place)
            acts: dict[str, Callable[[], Any]] = {}
            for call, act in CALLS.items():
                here = f"{place}/{call}"
                os.mkdir(here)
                if call in ("link to", "rename to", "rename a directory to"):
                    path = f"{place}/{call}'s other"
                    os.mkdir(path) if "directory" in call else make(path, b"x", 0o666)
                    os.chown(path, 1001, 2001)
                path = here if call == "create unnamed" else f"{here}/new" if call in below else f"{here}/in"
                if call in ("listdir", "chdir", "open a directory", "rmdir"):
                    os.mkdir(path)
                elif call == "readlink":
                    os.symlink("x", path)
                elif call not in below:
                    make(path, b"inside", 0o666)
                if "xattr" in call:
                    os.setxattr(path, "user.x", b"x")
                if call not in below:
                    os.lchown(path, 1001, 2001)
                os.chown(here, 1001, 2001)
                os.chmod(here, mode)
                acts[call] = _in(place, call, act, path)
            os.chmod(place, 0o777)

            def all_of_them(acts: dict[str, Callable[[], Any]] = acts) -> Any:
                return {call: said(act) for call, act in acts.items()}

            found[caller, oct(mode)] = _by(caller, all_of_them)
    return found


def _in(place: str, call: str, act: Callable[[str], Any], path: str) -> Callable[[], Any]:
    """A call on a path, whose second path, where it has one, is another."""
    if call in ("link to", "rename to", "rename a directory to"):
        other = f"{place}/{call}'s other"
        return lambda: (os.link if call == "link to" else os.rename)(other, path)
    if call in ("link from", "link from what it leads to"):
        return lambda: os.link(path, f"{place}/linked {call}")
    if call == "rename from":
        return lambda: os.rename(path, f"{place}/renamed")
    return lambda: act(path)


@behaviour
def permissions_of_files() -> Any:
    """Every call on a file, by everybody, with every mode."""
    calls: dict[str, Callable[[str], Any]] = {
        "read": lambda path: _opened(path, os.O_RDONLY),
        "write": lambda path: _opened(path, os.O_WRONLY),
        "both": lambda path: _opened(path, os.O_RDWR),
        "append": lambda path: _opened(path, os.O_WRONLY | os.O_APPEND),
        "open truncated": lambda path: _opened(path, os.O_RDONLY | os.O_TRUNC),
        "create": lambda path: _opened(path, os.O_RDONLY | os.O_CREAT),
        "path": lambda path: _opened(path, os.O_PATH),
        "noatime": lambda path: _opened(path, os.O_RDONLY | os.O_NOATIME),
        "truncate": lambda path: os.truncate(path, 1),
        "access": lambda path: [number(libc.access(os.fsencode(path), mode)) for mode in range(8)],
        "utime now": os.utime,
        "utime set": lambda path: os.utime(path, ns=(1, 1)),
        "getxattr": lambda path: os.getxattr(path, "user.x"),
        "setxattr": lambda path: os.setxattr(path, "user.y", b"y"),
        "removexattr": lambda path: os.removexattr(path, "user.x"),
        "execute": _executed,
        "link": lambda path: os.link(path, f"{path}-linked"),
        "chown": lambda path: os.chown(path, -1, 4001),
        "chown to oneself": lambda path: os.chown(path, os.geteuid(), -1),
        "chown nothing": lambda path: os.chown(path, -1, -1),
        "give away": lambda path: os.chown(path, 1002, -1),
        "chmod": lambda path: os.chmod(path, 0o640),
        "chmod with ids": lambda path: os.chmod(path, 0o6755),
        "mode afterwards": lambda path: oct(os.stat(path).st_mode),
    }
    os.mkdir("place")
    os.chmod("place", 0o777)
    found = {}
    for caller in CALLERS:
        for bits in range(8):
            mode = _class(caller, bits)
            path = f"place/{caller}-{bits}"
            make(path, b"#!/bin/true\n", 0o600)
            os.setxattr(path, "user.x", b"x")
            os.chown(path, 1001, 2001)
            os.chmod(path, mode)
            found[caller, oct(mode)] = _by(
                caller, lambda path=path: {call: said(act, path) for call, act in calls.items()}
            )
    return found


@behaviour
def sticky_directories_protect() -> Any:
    """Removing, moving away and moving over entries of sticky directories, by who owns which."""
    kinds: dict[str, Callable[[str], None]] = {
        "file": lambda path: make(path, b"x", 0o666),
        "directory": os.mkdir,
        "link": lambda path: os.symlink("x", path),
        "fifo": os.mkfifo,
    }
    users = (0, 1001, 1002)
    found = {}
    for directory_owner in users:
        for owner in users:
            for kind, create in kinds.items():
                place = f"{directory_owner}-{owner}-{kind}"
                os.mkdir(place)
                os.chmod(place, 0o777)
                for name in ("sticky", "plain"):
                    os.mkdir(f"{place}/{name}")
                for name in ("remove", "away", "over", "swap", "within"):
                    create(f"{place}/sticky/{name}")
                    os.lchown(f"{place}/sticky/{name}", owner, owner)
                for name in ("mine", "swapped"):
                    create(f"{place}/plain/{name}")
                    os.lchown(f"{place}/plain/{name}", 1001, 1001)
                for name, mode in (("sticky", 0o1777), ("plain", 0o777)):
                    os.chown(f"{place}/{name}", directory_owner, directory_owner)
                    os.chmod(f"{place}/{name}", mode)

                def act(
                    place: str = place, remove: Callable[[str], None] = os.rmdir if kind == "directory" else os.unlink
                ) -> Any:
                    sticky, plain = f"{place}/sticky", f"{place}/plain"
                    return (
                        said(remove, f"{sticky}/remove"),
                        said(os.rename, f"{sticky}/away", f"{plain}/away"),
                        said(os.rename, f"{sticky}/within", f"{sticky}/renamed"),
                        said(os.rename, f"{plain}/mine", f"{sticky}/over"),
                        rename2(f"{plain}/swapped", f"{sticky}/swap", EXCHANGE),
                        said(os.link, f"{sticky}/swap", f"{sticky}/link", follow_symlinks=False),
                    )

                done = as_user(1001, act)
                found[place] = (done, sorted(os.listdir(f"{place}/sticky")), sorted(os.listdir(f"{place}/plain")))
    return found


@behaviour
def moved_directories_need_to_be_writable() -> Any:
    """A directory moved to another parent has its `..` changed, which takes write permission on itself."""
    found = {}
    for owner in (1001, 1002):
        for mode in (0o777, 0o755, 0o555):
            place = f"{owner}-{mode:o}"
            os.makedirs(f"{place}/from/moved")
            os.makedirs(f"{place}/to")
            for name in ("from", "to"):
                os.chmod(f"{place}/{name}", 0o777)
            os.chown(f"{place}/from/moved", owner, owner)
            os.chmod(f"{place}/from/moved", mode)
            found[owner, mode] = as_user(
                1001,
                lambda place=place: (
                    said(os.rename, f"{place}/from/moved", f"{place}/from/same"),
                    said(os.rename, f"{place}/from/same", f"{place}/to/moved"),
                ),
            )
    return found


@behaviour
def searching_takes_every_directory_of_a_path() -> Any:
    os.makedirs("a/b/c/d")
    make("a/b/c/d/file", b"x", 0o666)
    found = {}
    for closed in ("a", "a/b", "a/b/c", "a/b/c/d"):
        for mode in (0o000, 0o111, 0o444, 0o555, 0o666):
            os.chmod(closed, mode)
            found[closed, mode] = as_user(
                1001,
                lambda mode=mode: (
                    type(said(os.stat, "a/b/c/d/file")).__name__,
                    said(os.stat, "a/b/c/d/none") if mode else None,
                    type(said(os.listdir, "a/b/c/d")).__name__,
                    said(os.rmdir, "a/b/c/d/.."),
                ),
            )
        os.chmod(closed, 0o755)
    with opened("a/b/c/d") as inside:
        os.chmod("a", 0)
        found["held", 0] = as_user(1001, lambda: [stat.S_IFMT(os.stat("file", dir_fd=inside).st_mode)])
    return found


def _opened(path: str, flags: int) -> str:
    with opened(path, flags):
        return "opened"


def _executed(path: str) -> int | str:
    child = os.fork()
    if not child:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(error.errno or 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
