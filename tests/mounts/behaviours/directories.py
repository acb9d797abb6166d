"""Directories: listings that stand still, removed ones, and what the file system says of itself."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from tests.mounts.behaviours.calling import behaviour, libc, make, opened, said

__all__: list[str] = []


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
def listings_begin_when_they_are_read() -> Any:
    """What happens between opening and reading shows, by that descriptor and by every later one."""
    acts: dict[str, Callable[[int], Any]] = {
        "nothing": lambda inside: None,
        "make": lambda inside: os.mknod("new", dir_fd=inside),
        "make and remove": lambda inside: (os.mkdir("new", dir_fd=inside), os.rmdir("new", dir_fd=inside)),
        "remove": lambda inside: os.unlink("old", dir_fd=inside),
        "rename": lambda inside: os.rename("old", "new", src_dir_fd=inside, dst_dir_fd=inside),
        "link": lambda inside: os.link("old", "new", src_dir_fd=inside, dst_dir_fd=inside),
        "remove the other": lambda inside: os.unlink("other", dir_fd=inside),
    }
    found = {}
    for listed_before in (False, True):
        for name, act in acts.items():
            place = f"{name}-{listed_before}"
            os.mkdir(place)
            make(f"{place}/old")
            make(f"{place}/other")
            before = os.listdir(place) if listed_before else []
            with opened(place) as inside:
                act(inside)
                by_descriptor = [sorted(os.listdir(inside)) for _ in range(2)]
                found[place] = sorted(before), by_descriptor, sorted(os.listdir(place))
    return found


@behaviour
def the_file_system_tells_of_itself() -> Any:
    found = os.statvfs(".")
    return [found.f_namemax, os.pathconf(".", "PC_NAME_MAX"), found.f_bavail > 0, found.f_favail > 0]


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_ulong),
        ("offset", ctypes.c_long),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


class _Stream:
    """opendir and its kin."""

    def __init__(self, path: str) -> None:
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir.restype = ctypes.POINTER(_Dirent)
        libc.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(libc.opendir(os.fsencode(path)))

    def read(self) -> tuple[bytes, int] | None:
        entry = libc.readdir(self._stream)
        return (entry.contents.name, entry.contents.kind) if entry else None

    def rest(self) -> list[bytes]:
        found = []
        while entry := self.read():
            found.append(entry[0])
        return found

    def tell(self) -> int:
        return int(libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        libc.seekdir(self._stream, ctypes.c_long(place))

    def rewind(self) -> None:
        libc.rewinddir(self._stream)

    def close(self) -> None:
        libc.closedir(self._stream)


@behaviour
def listings_go_back_to_where_they_were() -> Any:
    """telldir and seekdir to every place, and rewinddir sees what is new."""
    os.mkdir("d")
    for count in range(500):
        make(f"d/{count:03d}")
    stream = _Stream("d")
    places, names = [], []
    while True:
        place = stream.tell()
        entry = stream.read()
        if entry is None:
            break
        places.append(place)
        names.append(entry[0])
    right = []
    for index in (0, 1, 2, 100, 250, 499, 501):
        stream.seek(places[index])
        right.append(stream.rest() == names[index:])
    make("d/new")
    stream.rewind()
    again = stream.rest()
    stream.close()
    return [sorted(names) == sorted(set(names)), len(names), right, b"new" in again, len(again)]


@behaviour
def listings_tell_kinds() -> Any:
    make("file")
    os.mkdir("directory")
    os.symlink("x", "link")
    os.mkfifo("fifo")
    os.mknod("socket", 0o140600)
    os.mknod("device", 0o020600, os.makedev(1, 3))
    stream = _Stream(".")
    found = []
    while entry := stream.read():
        found.append(entry)
    stream.close()
    with os.scandir(".") as entries:
        numbers = all(entry.inode() == entry.stat(follow_symlinks=False).st_ino for entry in entries)
    return sorted(found), numbers


@behaviour
def listings_while_much_happens() -> Any:
    """What was there all the time is seen once; what comes and goes is seen once or not at all."""
    os.mkdir("d")
    for count in range(2000):
        make(f"d/stays-{count}")
        if count % 2:
            make(f"d/goes-{count}")
    stream = _Stream("d")
    seen = [stream.read() for _ in range(100)]
    for count in range(1, 2000, 2):
        os.unlink(f"d/goes-{count}")
    for count in range(500):
        make(f"d/comes-{count}")
        os.rename(f"d/stays-{count}", f"d/stays-{count}")
    names = [entry[0] for entry in seen if entry] + stream.rest()
    stream.close()
    stays = [name for name in names if name.startswith(b"stays")]
    return [len(names) == len(set(names)), len(stays), sorted(os.listdir("d"))[:3], len(os.listdir("d"))]


@behaviour
def removed_directories_are_empty_for_ever() -> Any:
    os.makedirs("a/b")
    make("f", b"x")
    with opened("a/b") as inside, opened("a") as above:
        os.chdir("a/b")
        os.rmdir("../../a/b")
        found: list[Any] = [
            said(os.listdir, inside),
            said(os.mkdir, "x"),
            said(os.open, "x", os.O_CREAT),
            said(os.symlink, "x", "x"),
            said(os.link, f"/proc/self/fd/{above}/../f", "x"),
            said(os.rename, f"/proc/self/fd/{above}/../f", "x"),
            said(os.stat, "x"),
            said(os.rmdir, "."),
            os.fstat(inside).st_nlink,
            os.fstat(above).st_nlink,
            said(os.fchmod, inside, 0o700),
            said(os.fsync, inside),
        ]
        os.chdir(f"/proc/self/fd/{above}/..")
        os.mkdir("a/b")
        found += [os.fstat(inside).st_ino != os.stat("a/b").st_ino, said(os.mkdir, "x", dir_fd=inside)]
    return found


@behaviour
def directories_are_removed_only_empty() -> Any:
    os.makedirs("full/below")
    os.makedirs("hidden")
    make("hidden/.h")
    os.mkdir("linked")
    os.symlink("linked", "l")
    os.mkdir("empty")
    make("f")
    found = {
        name: said(os.rmdir, name)
        for name in ("full", "hidden", "l", "l/", "f", "none", "empty", ".", "..", "full/.", "full/..")
    }
    # What the kernel has cached of a directory goes with it.
    os.mkdir("empty")
    make("empty/new")
    return found, os.listdir("empty"), said(os.rmdir, "empty"), sorted(os.listdir("."))
