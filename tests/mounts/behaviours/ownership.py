"""Owners, groups and modes: who gets what, what may be given, and what is taken away."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from tests.mounts.behaviours.calling import about, as_user, behaviour, make, opened, said

__all__: list[str] = []


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
def what_is_made_belongs_to_its_maker() -> Any:
    """Of every kind of object, in plain and setgid directories, with every umask."""
    makers: dict[str, Callable[[str, int], Any]] = {
        "file": lambda path, mode: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode)),
        "directory": os.mkdir,
        "fifo": os.mkfifo,
        "socket": lambda path, mode: os.mknod(path, stat.S_IFSOCK | mode),
        "node": os.mknod,
        "link": lambda path, mode: os.symlink("x", path),
    }
    callers = {"other": (1001, 3001, ()), "member": (1001, 3001, (2001,)), "root": (0, 0, ())}
    found = {}
    for directory_mode in (0o777, 0o2777, 0o3777):
        for caller, (uid, gid, groups) in callers.items():
            for mask in (0, 0o022, 0o077, 0o777):
                place = f"{directory_mode:o}-{caller}-{mask:o}"
                os.mkdir(place)
                os.chown(place, 1002, 2001)
                os.chmod(place, directory_mode)

                # Requests carry no further groups: setgid that a member of one asks for is not given.
                mode = 0o4777 if caller == "member" else 0o6777

                def act(place: str = place, mask: int = mask, mode: int = mode) -> Any:
                    os.umask(mask)
                    return {
                        kind: (said(make_one, f"{place}/{kind}", mode), about(f"{place}/{kind}"))
                        for kind, make_one in makers.items()
                    }

                found[place] = as_user(uid, act, groups, gid)
    return found


@behaviour
def chmod_takes_setgid_from_strangers() -> Any:
    """Whoever is not in the group of a file cannot give it setgid; sticky files are everybody's."""
    found = {}
    for mode in (0o755, 0o1755, 0o2755, 0o4755, 0o6755, 0o7777, 0o2745):
        for kind in ("file", "directory"):
            for groups in ((), (2001,)):
                path = f"{kind}-{mode:o}-{len(groups)}"
                make(path) if kind == "file" else os.mkdir(path)
                os.chown(path, 1001, 2001)
                done = as_user(1001, lambda path=path, mode=mode: said(os.chmod, path, mode), groups, 3001)
                with opened(path) as descriptor:
                    as_user(1001, lambda d=descriptor, m=mode: said(os.fchmod, d, m), groups, 3001)
                found[path] = (done, about(path))
    return found


@behaviour
def chown_takes_set_ids() -> Any:
    """From files, by whoever changes owner or group; directories keep theirs."""
    found = {}
    for mode in (0o6777, 0o6666, 0o2767, 0o4711, 0o2755, 0o2745, 0o7755):
        for kind in ("file", "directory", "fifo"):
            for who, own in ((0, 0), (1001, 2001), (1001, 3001)):
                for owner, group in ((-1, -1), (1001, -1), (-1, 2002), (1001, 2001), (1002, 2002)):
                    path = f"{kind}-{mode:o}-{who}-{own}-{owner}-{group}"
                    {"file": make, "directory": os.mkdir, "fifo": os.mkfifo}[kind](path)
                    os.chown(path, 1001, 2001)
                    os.chmod(path, mode)
                    done = as_user(
                        who,
                        lambda p=path, o=owner, g=group: said(os.chown, p, o, g),
                        (2002,) if who else (),
                        own,
                    )
                    found[path] = (done, about(path))
    return found


@behaviour
def writing_takes_set_ids() -> Any:
    """From whoever is not root: by every way of changing contents, with every mode."""

    def copied(path: str) -> None:
        with opened("source") as source, opened(path, os.O_WRONLY) as target:
            os.copy_file_range(source, target, 3)

    def written(path: str, flags: int = 0) -> None:
        with opened(path, os.O_WRONLY | flags) as target:
            os.write(target, b"new")

    def cut(path: str) -> None:
        with opened(path, os.O_RDWR) as target:
            os.ftruncate(target, 2)

    def allocated(path: str) -> None:
        with opened(path, os.O_RDWR) as target:
            os.posix_fallocate(target, 0, 100)

    def emptied(path: str) -> None:
        with opened(path, os.O_WRONLY | os.O_TRUNC):
            pass

    ways: dict[str, Callable[[str], None]] = {
        "write": written,
        "append": lambda path: written(path, os.O_APPEND),
        "truncate": lambda path: os.truncate(path, 1),
        "truncate to the same": lambda path: os.truncate(path, 8),
        "ftruncate": cut,
        "fallocate": allocated,
        "open": lambda path: os.close(os.open(path, os.O_RDWR)),
        "open truncated": emptied,
        "copy": copied,
    }
    make("source", b"source", 0o666)
    found = {}
    for mode in (0o6777, 0o4777, 0o2777, 0o2767, 0o6666, 0o7776):
        for who in (0, 1001, 1002):
            for way, act in ways.items():
                path = f"{way}-{mode:o}-{who}"
                make(path, b"contents")
                os.chown(path, 1001, 2001)
                os.chmod(path, mode)
                # Within the turn of a child, so that many are one.
                found[path] = as_user(who, lambda path=path, act=act: (said(act, path), about(path)), (), who and 3001)
    return found


@behaviour
def owners_of_every_size() -> Any:
    make("f")
    found = []
    for owner, group in ((0, 0), (65534, 65534), (65535, 65536), (2**31 - 1, 2**31), (2**32 - 2, 2**32 - 2)):
        os.chown("f", owner, group)
        found.append(about("f"))
    found.append(said(os.chown, "f", -1, -1))
    os.symlink("f", "l")
    os.lchown("l", 5, 6)
    os.chown("l", 7, 8)
    return found, about("f"), about("l")


@behaviour
def modes_of_every_kind() -> Any:
    make("file")
    os.mkdir("directory")
    os.mkfifo("fifo")
    os.symlink("file", "link")
    found = []
    for mode in (0, 0o7777, 0o644, 0o1000, 0o2000, 0o4000, 0o170644):
        for name in ("file", "directory", "fifo", "link"):
            done = said(os.chmod, name, mode)
            found.append((name, mode, done, about(name)))
    return found


@behaviour
def who_touches_a_file_takes_set_ids() -> Any:
    """Setgid without group execution stays with members of the group; strangers take nothing by a chown of nothing."""

    def write(path: str) -> None:
        with open(path, "ab") as file:
            file.write(b"more")

    touches: dict[str, Callable[[str], Any]] = {
        "write": write,
        "truncate": lambda path: os.truncate(path, 1),
        "empty": lambda path: open(path, "wb").close(),
    }
    found = {}
    for mode in (0o2666, 0o6666, 0o2676, 0o4666, 0o6777):
        for gid in (2001, 3001):
            for how, touch in touches.items():
                path = f"{how}-{mode:o}-{gid}"
                make(path)
                os.chown(path, 1002, 2001)
                os.chmod(path, mode)
                done = as_user(1001, lambda t=touch, p=path: said(t, p), (), gid)
                found[path] = (done, about(path))
        make(f"mine-{mode:o}")
        os.chown(f"mine-{mode:o}", 1002, 2001)
        os.chmod(f"mine-{mode:o}", mode)
        # Linux refuses; whether it does is told to nobody beyond the kernel.
        as_user(1001, lambda p=f"mine-{mode:o}": said(os.chown, p, -1, -1), (), 3001)
        found[f"mine-{mode:o}"] = stat.S_IMODE(os.stat(f"mine-{mode:o}").st_mode)
    return found
