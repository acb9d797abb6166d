"""Files in and out of mounted volumes: what lies in a volume can lead no copy out of it.

Every directory is opened from the one above it and never through a symbolic link, so a link that a job has put into a
volume is copied as a link and is otherwise an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["copy_in", "copy_out"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 1 << 20


def copy_out(volume: Path, path: str, destination: str | os.PathLike[str], *, recursive: bool) -> None:
    """Copies a file or directory of a volume to the local disk; an existing directory takes it under its name.

    Raises:
        FileNotFoundError: it is not in the volume.
        IsADirectoryError: it is a directory, and ``recursive`` is not asked for.
    """
    names = _parts(path)
    target = Path(destination)
    if names and target.is_dir() and not recursive:
        target /= names[-1]
    with _opened(volume, names[:-1]) as above:
        if not names:
            _require_recursive(path, recursive)
            target.mkdir(exist_ok=True)
            with _opened(volume, []) as source, _at(target) as there:
                _copy_children(source, there)
            return
        if stat.S_ISDIR(os.stat(names[-1], dir_fd=above, follow_symlinks=False).st_mode):
            _require_recursive(path, recursive)
            target.mkdir(exist_ok=True)
            with _opened(volume, names) as source, _at(target) as there:
                _copy_children(source, there)
            return
        with _at(target.parent) as there:
            _copy(above, names[-1], there, target.name)


def copy_in(
    source: str | os.PathLike[str],
    volume: Path,
    path: str,
    *,
    recursive: bool,
    source_path: str | None = None,
    into: bool = False,
) -> None:
    """Copies a file or directory into a volume, below directories that are made as needed.

    A path that ends in a slash, or is a directory, takes a file under its name.  With ``source_path`` the source is
    another volume, and that the path in it.  What lies in a source directory comes to lie in the target.

    Raises:
        FileNotFoundError: there is no such source.
        IsADirectoryError: it is a directory, and ``recursive`` is not asked for.
    """
    names = _parts(path)
    if source_path is None:
        origin = Path(os.path.abspath(source))
        base, below = origin.parent, [origin.name] if origin.name else []
    else:
        base, below = Path(source), _parts(source_path)
    with _opened(base, below[:-1]) as above:
        mode = os.stat(below[-1] if below else ".", dir_fd=above, follow_symlinks=source_path is None).st_mode
        if stat.S_ISDIR(mode):
            _require_recursive(os.fspath(source) if source_path is None else source_path, recursive or into)
            with (
                _opened(base, below) as inner,
                _opened(volume, names, make=True) as there,
            ):
                _copy_children(inner, there)
            return
        if path.endswith("/") or _is_directory(volume, names):
            names = [*names, below[-1]]
        with _opened(volume, names[:-1], make=True) as there:
            _copy(above, below[-1], there, names[-1], follow=source_path is None)


def _parts(path: str) -> list[str]:
    names = [name for name in path.split("/") if name and name != "."]
    if ".." in names:
        raise OSError(errno.EINVAL, "a path in a volume does not go up", path)
    return names


def _require_recursive(path: str, recursive: bool) -> None:
    if not recursive:
        raise IsADirectoryError(errno.EISDIR, "it is a directory: use -r", path)


@contextlib.contextmanager
def _at(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(base: Path, names: list[str], *, make: bool = False) -> Iterator[int]:
    """A directory below a base, reached without following links."""
    current = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=current)
            following = os.open(name, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _is_directory(base: Path, names: list[str]) -> bool:
    try:
        with _opened(base, names):
            return True
    except OSError:
        return False


def _copy_children(source: int, target: int) -> None:
    for name in sorted(os.listdir(source)):
        _copy(source, name, target, name)


def _copy(source: int, name: str, target: int, new: str, *, follow: bool = False) -> None:
    """Copies one entry; what is in the way of a file is replaced, directories are joined."""
    found = os.stat(name, dir_fd=source, follow_symlinks=follow)
    if stat.S_ISDIR(found.st_mode):
        with contextlib.suppress(FileExistsError):
            os.mkdir(new, 0o700, dir_fd=target)
        inner = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            there = os.open(new, _DIRECTORY, dir_fd=target)
            try:
                _copy_children(inner, there)
                _finish(there, found)
            finally:
                os.close(there)
        finally:
            os.close(inner)
    elif stat.S_ISLNK(found.st_mode):
        _clear(target, new)
        os.symlink(os.readlink(name, dir_fd=source), new, dir_fd=target)
    elif stat.S_ISREG(found.st_mode):
        reading = os.open(name, os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), dir_fd=source)
        with open(reading, "rb", buffering=0) as origin:
            _clear(target, new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            # Not unbuffered: `copyfileobj` does not look how much a target that is nearly full has taken.
            with open(os.open(new, flags, 0o600, dir_fd=target), "wb") as copy:
                shutil.copyfileobj(origin, copy, _PIECE)
                copy.flush()
                _finish(copy.fileno(), found)
    elif stat.S_ISFIFO(found.st_mode):
        _clear(target, new)
        os.mkfifo(new, stat.S_IMODE(found.st_mode), dir_fd=target)
    # Sockets and devices are nothing that can be copied.


def _clear(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _finish(descriptor: int, found: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
