"""The same operations on a real directory, to hold `vol.files` against."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
from pathlib import Path
from typing import IO, Any

__all__ = ["Disk", "tree"]

#: What a path is: "d" for a directory, else content, or the target of a link.
Tree = dict[str, tuple[str, bytes | str]]


class Disk:
    """Has the methods of `Files`, by `os` and `shutil`, below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _at(self, path: str) -> str:
        # Appended, not joined: trailing slashes and dots mean something.
        return f"{self._root}/{path}"

    def open(self, path: str, mode: str = "r", buffering: int = -1) -> IO[Any]:
        return open(self._at(path), mode, buffering)

    def write_bytes(self, path: str, data: bytes) -> int:
        with open(self._at(path), "wb") as file:
            return file.write(data)

    def read_bytes(self, path: str) -> bytes:
        with open(self._at(path), "rb") as file:
            return file.read()

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self._at(path)))

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._at(path))

    def link(self, source: str, target: str) -> None:
        os.link(self._at(source), self._at(target), follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        os.rename(self._at(source), self._at(target))

    def mkdir(self, path: str) -> None:
        os.mkdir(self._at(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        os.makedirs(self._at(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def rmtree(self, path: str) -> None:
        if self.islink(path):
            raise NotADirectoryError(errno.ENOTDIR, "a link")
        shutil.rmtree(self._at(path))

    def remove(self, path: str) -> None:
        os.remove(self._at(path))

    def truncate(self, path: str, length: int) -> None:
        os.truncate(self._at(path), length)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def copy(self, source: str, target: str) -> None:
        shutil.copy(self._at(source), self._at(target))

    def islink(self, path: str) -> bool:
        return os.path.islink(self._at(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(self._at(path))

    def isdir(self, path: str) -> bool:
        return os.path.isdir(self._at(path))

    def isfile(self, path: str) -> bool:
        return os.path.isfile(self._at(path))

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(self._at(path), follow_symlinks=follow_symlinks)

    def walk(self, top: str, topdown: bool = True, followlinks: bool = False) -> list[tuple[str, list[str], list[str]]]:
        found = os.walk(self._at(top), topdown, followlinks=followlinks)
        return [(here.removeprefix(self._at("")), *map(sorted, names)) for here, *names in found]  # type: ignore[misc]

    def glob(self, pattern: str, include_hidden: bool = False) -> list[str]:
        return sorted(glob.glob(pattern, root_dir=self._root, recursive=True, include_hidden=include_hidden))


def tree(files: Any) -> Tree:
    """Everything below the root of `Files` or `Disk`."""
    found: Tree = {}
    waiting = [""]
    while waiting:
        here = waiting.pop()
        for name in files.listdir(here or "."):
            path = f"{here}/{name}" if here else name
            status = files.stat(path, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                found[path] = ("d", b"")
                waiting.append(path)
            elif stat.S_ISLNK(status.st_mode):
                found[path] = ("l", files.readlink(path))
            else:
                found[path] = ("f", files.read_bytes(path))
    return found
