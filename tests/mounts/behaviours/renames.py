"""Renames: what over what, from where to where, and what cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.mounts.behaviours.calling import (
    EXCHANGE,
    NOREPLACE,
    about,
    behaviour,
    content,
    make,
    opened,
    rename2,
    said,
    tree,
)

__all__: list[str] = []


@behaviour
def renames_of_every_kind_over_every_kind() -> Any:
    kinds: dict[str, Callable[[str], None]] = {
        "absent": lambda name: None,
        "file": lambda name: make(name, b"f"),
        "link": lambda name: os.symlink("x", name),
        "empty": os.mkdir,
        "full": lambda name: os.makedirs(f"{name}/below"),
        "fifo": os.mkfifo,
        "socket": lambda name: os.mknod(name, 0o140644),
        "device": lambda name: os.mknod(name, 0o020644, os.makedev(1, 3)),
    }
    found = []
    for number, (first, make_first) in enumerate(kinds.items()):
        for second, make_second in kinds.items():
            for flags in (0, NOREPLACE, EXCHANGE):
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
        rename2("f", "x", NOREPLACE | EXCHANGE),
        rename2("a", "a/b/c", EXCHANGE),
    ]


@behaviour
def renames_between_directories() -> Any:
    """Every kind into another directory over every kind: counts, numbers and what `..` is."""
    kinds: dict[str, Callable[[str], Any]] = {
        "absent": lambda name: None,
        "file": lambda name: make(name, b"f"),
        "linked file": lambda name: (make(f"{name}-too", b"f"), os.link(f"{name}-too", name)),
        "empty": os.mkdir,
        "full": lambda name: os.makedirs(f"{name}/below"),
        "link to a directory": lambda name: os.symlink(".", name),
    }
    found = {}
    for first, make_first in kinds.items():
        for second, make_second in kinds.items():
            for flags in (0, NOREPLACE, EXCHANGE):
                place = f"{first}-{second}-{flags}"
                os.makedirs(f"{place}/from")
                os.makedirs(f"{place}/to")
                make_first(f"{place}/from/a")
                make_second(f"{place}/to/b")
                numbers = {name: os.lstat(f"{place}/{name}").st_ino for name in ("from", "to")}
                moved = os.lstat(f"{place}/from/a").st_ino if first != "absent" else 0
                done = rename2(f"{place}/from/a", f"{place}/to/b", flags)
                same = moved and os.path.lexists(f"{place}/to/b") and os.lstat(f"{place}/to/b").st_ino == moved
                above = [
                    parent
                    for parent, ino in numbers.items()
                    if os.path.isdir(f"{place}/to/b") and os.stat(f"{place}/to/b/..").st_ino == ino
                ]
                found[place] = (done, bool(same), above, tree(place))
    return found


@behaviour
def renames_into_oneself_and_above() -> Any:
    os.makedirs("a/b/c/d")
    os.mkdir("other")
    found = {}
    for old, new in (
        ("a", "a/x"),
        ("a", "a/b/x"),
        ("a", "a/b/c/d/x"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a"),
        ("a/b", "a/b"),
        ("a/b/c", "a/b"),
        (".", "x"),
        ("..", "x"),
        ("a/.", "x"),
        ("a/..", "x"),
        ("other", "."),
        ("other", ".."),
        ("other", "a/."),
        ("other", "a/b/.."),
        ("other/", "renamed/"),
        ("renamed", "other/"),
        ("none", "a"),
        ("a", "none/x"),
    ):
        found[old, new] = [said(os.rename, old, new)]
        if os.path.isdir("renamed"):
            os.rename("renamed", "other")
        for flags in (NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE, 4 | EXCHANGE, 8):
            found[old, new].append(rename2(old, new, flags))
            if os.path.isdir("renamed"):
                os.rename("renamed", "other")
    return found, tree()


@behaviour
def renames_of_open_things() -> Any:
    """Descriptors follow what they are of, not what it is called."""
    make("f", b"first")
    make("g", b"second")
    os.makedirs("d/e")
    with opened("f", os.O_RDWR) as first, opened("g") as second, opened("d") as directory:
        os.rename("f", "g")
        found: list[Any] = [os.pread(first, 9, 0), os.pread(second, 9, 0), os.fstat(second).st_nlink]
        os.write(first, b"F")
        found += [content("g"), os.readlink(f"/proc/self/fd/{first}").rsplit("/", 1)[1]]
        os.rename("d", "moved")
        os.mkdir("e2", dir_fd=directory)
        found += [sorted(os.listdir("moved")), said(os.stat, "d")]
        os.mkdir("over")
        os.rename("moved/e", "over")
        found += [sorted(os.listdir("moved"))]
        os.chdir("over")
        os.mkdir("../empty")
        os.rename("../empty", "../over")
        found += [said(os.mkdir, "x"), os.stat(".").st_nlink, said(os.listdir, ".")]
    return found


@behaviour
def renames_keep_everything_else() -> Any:
    make("f", b"content", 0o640)
    os.chown("f", 5, 6)
    os.setxattr("f", "user.x", b"y")
    os.utime("f", ns=(10**9, 2 * 10**9))
    before = os.stat("f")
    os.mkdir("d")
    os.rename("f", "d/g")
    after = os.stat("d/g")
    return [
        about("d/g"),
        before.st_ino == after.st_ino,
        after.st_mtime_ns,
        os.getxattr("d/g", "user.x"),
        content("d/g"),
        [rename2("d/g", "d/g", flags) for flags in (0, NOREPLACE, EXCHANGE)],
    ]
