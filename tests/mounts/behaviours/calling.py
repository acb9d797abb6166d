"""What behaviours are made of: calls whose errors are results, other users, and what can be compared of a file."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import stat
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    "CLOCK_REALTIME_COARSE",
    "EXCHANGE",
    "FAMILIES",
    "NOREPLACE",
    "Behaviour",
    "about",
    "as_user",
    "behaviour",
    "content",
    "fallocate",
    "fresh",
    "in_child",
    "libc",
    "make",
    "number",
    "opened",
    "rename2",
    "said",
    "tick",
    "tree",
]

Behaviour = Callable[[], Any]
#: Every behaviour by its family and name; each runs below a directory of its own and gives back what can be compared.
FAMILIES: dict[str, dict[str, Behaviour]] = {}
NOREPLACE, EXCHANGE = 1, 2
#: The clock that most file systems stamp with; `time` does not name it.
CLOCK_REALTIME_COARSE = 5

libc = ctypes.CDLL(None, use_errno=True)


def behaviour(function: Behaviour, family: str | None = None) -> Behaviour:
    """Adds a function to the table, to the family of its module unless another is told."""
    FAMILIES.setdefault(family or function.__module__.rpartition(".")[2], {})[function.__name__] = function
    return function


def said(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What a call returns, or the name of its error."""
    try:
        return call(*args, **more)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def number(result: int) -> str | int:
    """What a call of the C library returned, or the name of its error."""
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def make(name: str | bytes, content: bytes = b"", mode: int = 0o644) -> None:
    """Writes a file."""
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(descriptor, content)
    os.close(descriptor)
    os.chmod(name, mode)


def content(name: str) -> bytes:
    """Reads a file."""
    with open(name, "rb") as file:
        return file.read()


@contextmanager
def opened(name: str | bytes, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[int]:
    """A descriptor, closed afterwards."""
    descriptor = os.open(name, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def fresh(name: str, mode: int = 0o777) -> Iterator[None]:
    """A new directory that is the current one for a while."""
    before = os.open(".", os.O_RDONLY)
    os.mkdir(name)
    os.chmod(name, mode)
    os.chdir(name)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def about(name: str | bytes) -> tuple[Any, ...]:
    """Mode, links, owner, group and size."""
    found = os.lstat(name)
    # How large a directory is, every file system decides for itself.
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return oct(found.st_mode), found.st_nlink, found.st_uid, found.st_gid, size


def tree(top: str = ".") -> dict[str, tuple[Any, ...]]:
    """What is below a directory."""
    found: dict[str, tuple[Any, ...]] = {}
    for here, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(here, name)
            found[path] = about(path)
    return dict(sorted(found.items()))


def tick() -> None:
    """Waits until whatever is stamped from now on has a later time than all that has been.

    The clock that file systems stamp with moves some hundred times a second, later where a machine is busy elsewhere;
    and what was looked at is stamped with the exact time, which that clock has to pass.
    """
    now = time.time_ns()
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= now:
        time.sleep(0.001)


def rename2(old: str, new: str, flags: int) -> str | int:
    """Renames with flags."""
    return number(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> str | int:
    """Sets room aside, or gives it back."""
    return number(libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def in_child(act: Callable[[], Any]) -> Any:
    """What a child of this process gets; it answers in what can be pickled."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as answers:
                try:
                    answer, complaint = act(), ""
                except BaseException:  # noqa: BLE001 - it belongs into the report
                    answer, complaint = None, traceback.format_exc()
                pickle.dump((answer, complaint), answers)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        told = answers.read()
    os.waitpid(child, 0)
    answer, complaint = pickle.loads(told)
    if complaint:
        raise AssertionError(complaint)
    return answer


def as_user(uid: int, act: Callable[[], Any], groups: tuple[int, ...] = (), gid: int | None = None) -> Any:
    """What a user gets; in a child, since there is no way back."""

    def become() -> Any:
        group = uid if gid is None else gid
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)
        return act()

    return in_child(become)
