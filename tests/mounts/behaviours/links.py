"""Links, hard and symbolic: what is counted, and what stays."""

from __future__ import annotations

import os
from typing import Any

from tests.mounts.behaviours.calling import about, as_user, behaviour, content, libc, make, number, opened, said

__all__: list[str] = []


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
def every_kind_may_have_two_names() -> Any:
    """Files, fifos, sockets, devices and symbolic links have as many names as one likes; directories one."""
    found = {}
    make("file", b"x")
    os.mkfifo("fifo")
    os.mknod("socket", 0o140600)
    os.mknod("device", 0o020600, os.makedev(1, 3))
    os.symlink("file", "link")
    os.mkdir("directory")
    for name in ("file", "fifo", "socket", "device", "link", "directory"):
        found[name] = [said(os.link, name, f"{name}-2", follow_symlinks=False), about(name)]
        if name != "directory":
            # Of a symbolic link it is what that leads to, which is no more.
            found[name].append(said(os.chmod, f"{name}-2", 0o600))
            os.lchown(f"{name}-2", 5, 6)
            found[name] += [about(name), os.lstat(name).st_ino == os.lstat(f"{name}-2").st_ino]
            os.unlink(name)
            found[name] += [about(f"{name}-2"), said(os.lstat, name)]
    return found


@behaviour
def one_file_has_many_names() -> Any:
    make("f", b"x")
    for count in range(300):
        os.link("f", f"f{count}")
    found = [os.stat("f299").st_nlink]
    with opened("f7", os.O_WRONLY) as descriptor:
        os.write(descriptor, b"through one")
    found.append(content("f250"))
    for count in range(0, 300, 2):
        os.unlink(f"f{count}")
    os.unlink("f")
    return [*found, os.stat("f1").st_nlink, content("f299")]


@behaviour
def links_follow_only_when_told() -> Any:
    make("f", b"x")
    os.symlink("f", "l")
    os.symlink("none", "dangling")
    os.mkdir("d")
    os.symlink("d", "to-d")
    found = [
        number(libc.linkat(-100, b"l", -100, b"hard", 0)),
        about("hard"),
        number(libc.linkat(-100, b"l", -100, b"followed", 0x400)),
        about("followed"),
        number(libc.linkat(-100, b"dangling", -100, b"x", 0x400)),
        number(libc.linkat(-100, b"dangling", -100, b"y", 0)),
        number(libc.linkat(-100, b"to-d", -100, b"z", 0x400)),
        number(libc.linkat(-100, b"f", -100, b"w", 0x8000)),
    ]
    with opened("f") as descriptor:
        found.append(number(libc.linkat(descriptor, b"", -100, b"by descriptor", 0x1000)))
        os.unlink("f")
        os.unlink("followed")
        os.unlink("by descriptor")
        # What has lost its last name never gets another.
        found.append(number(libc.linkat(descriptor, b"", -100, b"again", 0x1000)))
    return found


@behaviour
def links_to_files_of_others() -> Any:
    """Linking takes no permission on the file, save what the kernel demands of all."""
    found = []
    for mode in (0o600, 0o644, 0o666, 0o4755):
        make(f"f{mode:o}", b"x", mode)
        found.append(as_user(1001, lambda mode=mode: said(os.link, f"f{mode:o}", f"l{mode:o}")))
    return found


@behaviour
def symbolic_links_say_what_they_were_told() -> Any:
    found = []
    for target in ("x", "a/b", "/", "//", "..", "no\nline", "ü", "x" * 4095, " ", "/proc/self/fd/0"):
        os.symlink(target, "l")
        found.append((os.readlink("l") == target, os.lstat("l").st_size, oct(os.lstat("l").st_mode)))
        os.unlink("l")
    os.symlink(b"\xff\xfe", b"bytes")
    os.symlink("x", "twice")
    return [*found, os.readlink(b"bytes"), said(os.symlink, "y", "twice"), said(os.symlink, "y", "none/l")]
