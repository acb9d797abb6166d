"""Every kind of object under every call: what becomes of it and of its directories, and which times change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.mounts.behaviours.calling import (
    EXCHANGE,
    NOREPLACE,
    as_user,
    behaviour,
    libc,
    make,
    number,
    opened,
    rename2,
    said,
    tick,
)

__all__: list[str] = []

_NOT_THROUGH_LINKS = 0x100
_OWNER, _GROUP, _OTHER_GROUP = 65534, 65533, 65532

_KINDS: Mapping[str, Callable[[str], Any]] = {
    "file": lambda path: make(path, b"content"),
    "directory": os.mkdir,
    "fifo": os.mkfifo,
    "block": lambda path: os.mknod(path, stat.S_IFBLK | 0o644, os.makedev(250, 2)),
    "character": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 3)),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o644),
    "link": lambda path: os.symlink("target", path),
}


class _Place(NamedTuple):
    """Two directories: ``one``, ``twin`` and its second name ``twins`` in the first, ``over`` in the second."""

    path: str

    @property
    def one(self) -> str:
        return f"{self.path}/a/one"

    @property
    def twin(self) -> str:
        return f"{self.path}/a/twin"

    @property
    def over(self) -> str:
        return f"{self.path}/b/over"

    @property
    def new(self) -> str:
        return f"{self.path}/b/new"

    @property
    def to_one(self) -> str:
        return f"{self.path}/a/to-one"

    def held(self) -> dict[str, int]:
        names = ("a", "b", "a/one", "a/twin", "b/over", "a/to-one")
        return {name: os.open(f"{self.path}/{name}", os.O_PATH | os.O_NOFOLLOW) for name in names}


def _removed(path: str) -> None:
    (os.rmdir if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink)(path)


def _linked(old: str, new: str, flags: int = 0) -> str | int:
    return number(libc.linkat(-100, os.fsencode(old), -100, os.fsencode(new), flags))


def _moded(path: str, mode: int, flags: int) -> str | int:
    return number(libc.fchmodat(-100, os.fsencode(path), mode, flags))


#: What can be done to an object, where all that is about it is its path.
_CALLS: Mapping[str, Callable[[_Place], Any]] = {
    "chmod": lambda place: os.chmod(place.one, 0o111),
    "chmod of all": lambda place: os.chmod(place.one, 0o7777),
    "chmod through a link": lambda place: os.chmod(place.to_one, 0o222),
    "chmod but no link": lambda place: _moded(place.one, 0o333, _NOT_THROUGH_LINKS),
    "chown": lambda place: os.chown(place.one, 123, 456),
    "chown through a link": lambda place: os.chown(place.to_one, 123, 456),
    "lchown": lambda place: os.lchown(place.one, 123, 456),
    "lchown of a link": lambda place: os.lchown(place.to_one, 123, 456),
    "chown to the group": lambda place: os.lchown(place.one, -1, _OTHER_GROUP),
    "chown to oneself": lambda place: os.lchown(place.one, _OWNER, _OTHER_GROUP),
    "chown of nothing": lambda place: os.lchown(place.one, -1, -1),
    "chown to the same": lambda place: os.lchown(place.one, _OWNER, _GROUP),
    "chown after chmod": lambda place: (os.chmod(place.one, 0o6555), os.lchown(place.one, -1, _OTHER_GROUP)),
    "link": lambda place: _linked(place.one, place.new),
    "link over": lambda place: _linked(place.one, place.over),
    "link through a link": lambda place: _linked(place.to_one, place.new, 0x400),
    "rename": lambda place: os.rename(place.one, place.new),
    "rename within": lambda place: os.rename(place.one, f"{place.path}/a/new"),
    "rename over": lambda place: os.rename(place.one, place.over),
    "rename over one of two": lambda place: os.rename(place.one, place.twin),
    "rename over a full directory": lambda place: os.rename(place.one, f"{place.path}/b"),
    "rename but not over": lambda place: rename2(place.one, place.over, NOREPLACE),
    "exchange": lambda place: rename2(place.one, place.over, EXCHANGE),
    "remove": lambda place: _removed(place.one),
    "remove one of two": lambda place: _removed(place.twin),
    "unlink": lambda place: os.unlink(place.one),
    "rmdir": lambda place: os.rmdir(place.one),
    "make over": lambda place: [
        said(os.mkdir, place.one),
        said(os.mkfifo, place.one),
        said(os.mknod, place.one),
        said(os.symlink, "x", place.one),
        said(os.open, place.one, os.O_CREAT | os.O_EXCL),
    ],
    "set times": lambda place: os.utime(place.one, ns=(1, 2), follow_symlinks=False),
    "set times through a link": lambda place: os.utime(place.to_one, ns=(1, 2)),
    "set times to now": lambda place: os.utime(place.one, follow_symlinks=False),
    "truncate": lambda place: os.truncate(place.one, 3),
    "read a link": lambda place: os.readlink(place.one),
    "list": lambda place: os.listdir(place.one),
    "set an attribute": lambda place: os.setxattr(place.one, "user.x", b"x", follow_symlinks=False),
    "set a trusted attribute": lambda place: os.setxattr(place.one, "trusted.x", b"x", follow_symlinks=False),
    "open": lambda place: _opened(place.one, os.O_RDWR),
    "open to read": lambda place: _opened(place.one, os.O_RDONLY),
    "open truncated": lambda place: _opened(place.one, os.O_WRONLY | os.O_TRUNC),
    "open a directory": lambda place: _opened(place.one, os.O_DIRECTORY),
    "open but no link": lambda place: _opened(place.one, os.O_NOFOLLOW),
    "create": lambda place: _opened(place.one, os.O_CREAT | os.O_WRONLY),
}


def _opened(path: str, flags: int) -> str:
    if os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode):
        return "a device of the system's"
    with opened(path, flags | os.O_NONBLOCK):
        return "opened"


def _furnished(path: str, create: Callable[[str], Any]) -> _Place:
    place = _Place(path)
    for directory in (path, f"{path}/a", f"{path}/b"):
        os.mkdir(directory)
        os.chmod(directory, 0o755)
    for name in (place.one, place.twin, place.over):
        create(name)
        os.lchown(name, _OWNER, _GROUP)
    said(os.link, place.twin, f"{path}/a/twins", follow_symlinks=False)
    os.symlink("one", place.to_one)
    return place


def _under_every_call(
    callers: Mapping[str, tuple[int, int, tuple[int, ...]]], directories: tuple[int, int, int], kinds: tuple[str, ...]
) -> Any:
    """All that is acted on is made first, so that one tick of the clock divides before from after for all of them."""
    owner, group, mode = directories
    told: dict[str, Any] = {}
    for caller, (uid, gid, groups) in callers.items():
        places: dict[tuple[str, str], _Place] = {}
        for kind in kinds:
            for call in _CALLS:
                place = places[kind, call] = _furnished(f"{caller}-{kind}-{call}", _KINDS[kind])
                for directory in ("a", "b"):
                    os.chown(f"{place.path}/{directory}", owner, group)
                    os.chmod(f"{place.path}/{directory}", mode)
        held = {key: place.held() for key, place in places.items()}
        before = {key: {name: os.fstat(each) for name, each in ours.items()} for key, ours in held.items()}
        tick()

        def act(places: dict[tuple[str, str], _Place] = places) -> Any:
            return {key: said(_CALLS[key[1]], place) for key, place in places.items()}

        outcomes = as_user(uid, act, groups, gid)
        for key, place in places.items():
            changed = {name: _changed(before[key][name], os.fstat(each)) for name, each in held[key].items()}
            for each in held[key].values():
                os.close(each)
            left = [sorted(os.listdir(f"{place.path}/{directory}")) for directory in ("a", "b")]
            told[place.path] = outcomes[key], changed, left
    return told


def _changed(before: os.stat_result, after: os.stat_result) -> tuple[Any, ...]:
    size = 0 if stat.S_ISDIR(after.st_mode) else after.st_size
    times = after.st_mtime_ns != before.st_mtime_ns, after.st_ctime_ns != before.st_ctime_ns
    return oct(after.st_mode), after.st_nlink, after.st_uid, after.st_gid, after.st_rdev, size, *times


_ROOT = {"root": (0, 0, ())}
_OTHERS = {
    "owner": (_OWNER, _GROUP, (_OTHER_GROUP,)),
    "stranger": (1234, 1234, ()),
}


def _define() -> None:
    for kind in _KINDS:

        def by_root(kind: str = kind) -> Any:
            return _under_every_call(_ROOT, (0, 0, 0o755), (kind,))

        def by_others(kind: str = kind) -> Any:
            return _under_every_call(_OTHERS, (_OWNER, _GROUP, 0o755), (kind,))

        by_root.__name__ = f"every_call_on_a_{kind}"
        by_others.__name__ = f"every_call_on_a_{kind}_by_others"
        # What becomes of files depends on who gathers the writes; of all else it does not.
        family = "files" if kind == "file" else None
        behaviour(by_root, family)
        behaviour(by_others, family)


_define()


@behaviour
def nothing_is_made_where_one_may_not() -> Any:
    """Every maker of every kind in directories of others: what is refused changes no times."""
    makers: dict[str, Callable[[str], Any]] = {
        **_KINDS,
        "created": lambda path: _opened(path, os.O_CREAT | os.O_RDONLY),
        "unnamed": lambda path: _opened(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR),
    }
    found = {}
    for mode in (0o755, 0o775, 0o777, 0o733, 0o766, 0o711, 0o1777):
        for kind, create in makers.items():
            place = f"{kind}-{mode:o}"
            os.mkdir(place)
            os.chown(place, _OWNER, _GROUP)
            os.chmod(place, mode)
            before = os.stat(place)
            tick()
            for caller, groups in (("stranger", ()), ("member", (_GROUP,))):
                done = as_user(1234, lambda create=create, path=f"{place}/{caller}": said(create, path), groups)
                after = os.stat(place)
                found[place, caller] = done, after.st_mtime_ns != before.st_mtime_ns, after.st_nlink
    return found
