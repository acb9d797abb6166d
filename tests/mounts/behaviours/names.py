"""Names and paths: what each call says of each kind of path."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from tests.mounts.behaviours.calling import about, behaviour, fresh, libc, make, number, opened, said, tree

__all__ = ["CALLS"]


def _opened(path: str, flags: int = os.O_RDONLY) -> str:
    with opened(path, flags):
        return "opened"


def _entered(path: str) -> str:
    with opened(".") as here:
        os.chdir(path)
        os.fchdir(here)
        return "entered"


#: Every call that takes a path.
CALLS: Mapping[str, Callable[[str], Any]] = {
    "open to read": _opened,
    "open to write": lambda path: _opened(path, os.O_WRONLY | os.O_NONBLOCK),
    "open to truncate": lambda path: _opened(path, os.O_RDWR | os.O_TRUNC),
    "open to search": lambda path: _opened(path, os.O_PATH),
    "open a directory": lambda path: _opened(path, os.O_DIRECTORY),
    "open but no link": lambda path: _opened(path, os.O_NOFOLLOW | os.O_NONBLOCK),
    "create": lambda path: _opened(path, os.O_CREAT | os.O_RDWR),
    "create exclusively": lambda path: _opened(path, os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "create unnamed": lambda path: _opened(path, os.O_TMPFILE | os.O_RDWR),
    "stat": lambda path: stat.S_IFMT(os.stat(path).st_mode),
    "lstat": lambda path: stat.S_IFMT(os.lstat(path).st_mode),
    "access": lambda path: [number(libc.access(os.fsencode(path), mode)) for mode in (os.F_OK, os.W_OK, os.X_OK)],
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "chmod": lambda path: os.chmod(path, 0o711),
    "chown": lambda path: os.chown(path, -1, os.getegid()),
    "lchown": lambda path: os.lchown(path, -1, os.getegid()),
    "utime": lambda path: os.utime(path, ns=(1, 2)),
    "lutime": lambda path: os.utime(path, ns=(1, 2), follow_symlinks=False),
    "touch": os.utime,
    "truncate": lambda path: os.truncate(path, 3),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    "mknod of a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "mknod of a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "symlink": lambda path: os.symlink("anything", path),
    "link from": lambda path: os.link(path, "linked", follow_symlinks=False),
    "link from what it leads to": lambda path: number(
        libc.linkat(-100, os.fsencode(path), -100, b"linked", 0x400)  # AT_SYMLINK_FOLLOW
    ),
    "link to": lambda path: os.link("other", path),
    "rename from": lambda path: os.rename(path, "renamed"),
    "rename to": lambda path: os.rename("other", path),
    "rename a directory to": lambda path: os.rename("moved", path),
    "readlink": os.readlink,
    "listdir": lambda path: sorted(os.listdir(path)),
    "chdir": _entered,
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "listxattr": os.listxattr,
    "setxattr": lambda path: os.setxattr(path, "user.y", b"y"),
    "removexattr": lambda path: os.removexattr(path, "user.x"),
}

#: Those that make what they are told.
_MAKING = (
    "create exclusively",
    "mkdir",
    "mkfifo",
    "mknod",
    "mknod of a device",
    "mknod of a socket",
    "symlink",
    "link to",
)

_LONG = "n" * 255

#: Kinds of paths, which all mean something in `_furnish`.
_PATHS: Mapping[str, str] = {
    "a file": "file",
    "a directory": "full",
    "an empty directory": "empty",
    "a link to a file": "to-file",
    "a link to a directory": "to-directory",
    "a dangling link": "dangling",
    "a loop": "loop",
    "a loop of two": "first",
    "a fifo": "fifo",
    "nothing": "absent",
    "the empty path": "",
    "a dot": ".",
    "two dots": "..",
    "a dot in a directory": "empty/.",
    "two dots in a directory": "empty/..",
    "a file with a slash": "file/",
    "a file with a dot": "file/.",
    "a directory with a slash": "empty/",
    "a link to a file with a slash": "to-file/",
    "a link to a directory with a slash": "to-directory/",
    "a dangling link with a slash": "dangling/",
    "nothing with a slash": "absent/",
    "below a file": "file/below",
    "below nothing": "absent/below",
    "below a loop": "loop/below",
    "below a dangling link": "dangling/below",
    "below a link to a directory": "to-directory/below",
    "nothing below a directory": "full/absent",
    "the longest name": _LONG,
    "too long a name": _LONG + "n",
    "below too long a name": f"{_LONG}n/below",
    "the longest path": "./" * 2045 + "file",
    "too long a path": "./" * 2047 + "file",
    "many slashes": "full//////below",
    "there and back": "full/../empty/../full/below",
}


def _furnish() -> None:
    make("file", b"content")
    make("other", b"of the other")
    os.mkdir("moved")
    os.mkdir("empty")
    os.mkdir("full")
    make("full/below", b"below")
    os.symlink("file", "to-file")
    os.symlink("full", "to-directory")
    os.symlink("gone", "dangling")
    os.symlink("loop", "loop")
    os.symlink("second", "first")
    os.symlink("first", "second")
    os.mkfifo("fifo")
    os.setxattr("file", "user.x", b"x")


def _of_every_path(call: str) -> Any:
    act = CALLS[call]
    found = {}
    with fresh("pristine"):
        _furnish()
        pristine = tree()
    place = None
    for count, (kind, path) in enumerate(_PATHS.items()):
        if kind == "a fifo" and call in ("open to read", "open to truncate", "create", "open to write"):
            # Waits for whoever opens the other end.
            continue
        if place is None:
            place = f"place-{count}"
            with fresh(place):
                _furnish()
        before = os.open(".", os.O_RDONLY)
        os.chdir(place)
        outcome = said(act, path)
        left = tree()
        xattrs = os.listxattr("file") if "./file" in left else None
        os.fchdir(before)
        os.close(before)
        if left == pristine and xattrs == ["user.x"]:
            found[kind] = outcome
        else:
            changed = {
                name: left.get(name) for name in pristine.keys() | left.keys() if pristine.get(name) != left.get(name)
            }
            found[kind] = (outcome, dict(sorted(changed.items())), xattrs)
            place = None
        if place is not None and call in ("utime", "lutime", "touch"):
            place = None
    return found


def _define() -> None:
    for call in CALLS:

        def look(call: str = call) -> Any:
            return _of_every_path(call)

        look.__name__ = f"{call.replace(' ', '_')}_of_every_kind_of_path"
        behaviour(look)


_define()


@behaviour
def names_are_bytes() -> Any:
    names = [
        b"\xff\xfe",
        b"a b",
        b"new\nline",
        b"tab\t",
        "größe".encode(),
        "gro\u0308ße".encode(),
        b"-rf",
        b"...",
        b"\x01",
    ]
    names += [b" ", b"\\", b"*", b"~", b"a\r", b"\xed\xa0\x80", b"CON", b"x" * 255, b"\xff" * 255]
    for name in names:
        make(name, name)
    found = {name: (said(os.mkdir, name), os.stat(name).st_size) for name in names}
    for name in names[::2]:
        os.rename(name, name[::-1] + b"!" if len(name) < 255 else name[:-1] + b"y")
    return found, sorted(os.listdir(b"."))


@behaviour
def names_of_every_length() -> Any:
    found = []
    for length in (*range(1, 12), 254, 255, 256, 257, 1000, 4094, 4095, 4096):
        name = "n" * length
        found.append(
            (length, said(make, name), said(os.mkdir, f"{name[:-1]}d"), said(os.symlink, name, f"link-{length}"))
        )
        if os.path.lexists(f"link-{length}"):
            found.append((len(os.readlink(f"link-{length}")), os.lstat(f"link-{length}").st_size))
    found.append((said(os.symlink, "", "nothing"), said(os.symlink, "/", "root"), said(os.readlink, "root")))
    return found, sorted(len(name) for name in os.listdir("."))


@behaviour
def paths_as_deep_as_can_be() -> Any:
    """Deeper than a path can say, by steps, and back."""
    start = os.open(".", os.O_RDONLY)
    name = "d" * 250
    for _ in range(20):
        os.mkdir(name)
        os.chdir(name)
    make("deepest", b"here")
    found: list[Any] = [type(said(os.getcwd)), os.stat("deepest").st_size, os.stat("../" * 20).st_nlink]
    for _ in range(20):
        found.append(sorted(os.listdir(".")))
        for each in os.listdir("."):
            os.unlink(each) if os.path.isfile(each) else os.rmdir(each)
        os.chdir("..")
    found.append(os.listdir("."))
    os.rmdir(name)
    os.close(start)
    return found


@behaviour
def paths_as_long_as_can_be() -> Any:
    """Every call on paths of just as many bytes as there may be, and of one more."""
    above = ("d" * 127 + "/") * 31
    os.makedirs(above)
    found = {}
    for length in (4095, 4096):
        last = "f" * (length - len(above))
        for call, act in CALLS.items():
            make("other", b"of the other")
            os.makedirs("moved", exist_ok=True)
            with opened(above) as within:
                if call in ("listdir", "chdir", "open a directory", "rmdir"):
                    os.mkdir(last, dir_fd=within)
                elif call not in _MAKING:
                    os.mknod(last, dir_fd=within)
                outcome = said(act, above + last)
                left = [(len(name), oct(os.lstat(name, dir_fd=within).st_mode)) for name in os.listdir(within)]
                found[f"{call} {length}"] = outcome, left
                for name in os.listdir(within):
                    _removed(name, within)
            for name in ("linked", "renamed"):
                if os.path.lexists(name):
                    _removed(name)
    return found


def _removed(name: str, within: int | None = None) -> None:
    is_directory = stat.S_ISDIR(os.lstat(name, dir_fd=within).st_mode)
    (os.rmdir if is_directory else os.unlink)(name, dir_fd=within)


@behaviour
def chains_of_links() -> Any:
    make("end", b"x")
    os.symlink("end", "0")
    for step in range(1, 45):
        os.symlink(str(step - 1), str(step))
    os.mkdir("d")
    os.symlink("d", "d0")
    for step in range(1, 45):
        os.symlink(f"d{step - 1}/.", f"d{step}")
    make("d/in")
    return (
        [(step, said(_opened, str(step))) for step in range(37, 44)],
        [(step, said(_opened, f"d{step}/in")) for step in range(37, 44)],
        [said(os.stat, os.path.join("..", os.path.basename(os.getcwd()), "end")) != "ENOENT"],
    )


@behaviour
def bad_addresses_and_descriptors() -> Any:
    """Pointers to nowhere, and descriptors of nothing, of the wrong kind and of the wrong mode."""
    make("file", b"0123456789")
    os.mkdir("dir")
    bad = -1
    found: dict[str, Any] = {}
    for call, more in {
        "open": (0, 0),
        "mkdir": (0o755,),
        "mkfifo": (0o755,),
        "chmod": (0o755,),
        "chown": (0, 0),
        "lchown": (0, 0),
        "truncate": (0,),
        "unlink": (),
        "rmdir": (),
        "chdir": (),
    }.items():
        found[call] = number(getattr(libc, call)(bad, *more))
    for call in ("link", "symlink", "rename"):
        found[call] = number(getattr(libc, call)(bad, b"x")), number(getattr(libc, call)(b"file", bad))
    with opened("file") as reading, opened("file", os.O_WRONLY) as writing, opened("dir") as directory:
        for name, descriptor in {"reading": reading, "writing": writing, "directory": directory, "none": 9999}.items():
            found[name] = [
                said(os.read, descriptor, 3),
                said(os.write, descriptor, b"x"),
                said(os.pread, descriptor, 3, 0),
                said(os.pwrite, descriptor, b"x", 0),
                said(os.ftruncate, descriptor, 10),
                said(os.fchmod, descriptor, 0o644),
                said(os.fchown, descriptor, -1, -1),
                said(os.fsync, descriptor),
                said(os.fdatasync, descriptor),
                said(os.posix_fallocate, descriptor, 0, 10),
                type(said(os.listdir, descriptor)),
                said(os.lseek, descriptor, 1, 77),
                said(os.lseek, descriptor, -1, os.SEEK_SET),
                said(os.copy_file_range, descriptor, writing, 1),
            ]
            os.lseek(reading, 0, os.SEEK_SET)
        number(libc.read(reading, bad, 4))
        found["addresses"] = [number(libc.read(reading, bad, 4)), number(libc.pwrite(writing, bad, 4, 0))]
        found["vectors"] = [said(os.preadv, reading, [], 0), said(os.writev, writing, [b""] * 1025)]
        found["relative"] = [said(os.stat, "x", dir_fd=reading), said(os.mkdir, "x", dir_fd=reading)]
        found["inside"] = [said(os.mkdir, "x", dir_fd=directory), about("dir/x")]
    return found
