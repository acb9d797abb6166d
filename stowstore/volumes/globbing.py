"""Patterns of paths, as `glob.glob` reads them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from stowstore.volumes.listing import DirEntry
from stowstore.volumes.paths import as_text, encoded

if TYPE_CHECKING:
    from stowstore.volumes.files import Files

__all__ = ["matching"]

_MAGIC: Final = re.compile(rb"[*?[]")


def matching(files: Files, pattern: str, *, recursive: bool, hidden: bool) -> set[str]:
    """The paths that match; see `Files.glob`."""
    names = [name for name in encoded(pattern).split(b"/") if name]
    start = b"/" if pattern.startswith("/") else b""
    found = set(_matching(files, start, names, recursive, hidden))
    if not pattern.endswith("/"):
        return {as_text(path) for path in found}
    return {as_text(path) + "/" for path in found if files.isdir(path)}


def _matching(files: Files, base: bytes, names: list[bytes], recursive: bool, hidden: bool) -> Iterator[bytes]:
    if not names:
        if base:
            yield base
        return
    name, rest = names[0], names[1:]
    if name == b"**" and recursive:
        yield from _matching(files, base, rest, recursive, hidden)
        for entry in _entries(files, base):
            below = os.path.join(base, entry.name)
            if entry.name.startswith(b".") and not hidden:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _matching(files, below, names, recursive, hidden)
            elif not rest:
                yield below
        return
    if not _MAGIC.search(name):
        below = os.path.join(base, name)
        if files.lexists(below):
            yield from _matching(files, below, rest, recursive, hidden)
        return
    matches = re.compile(fnmatch.translate(as_text(name)).encode("utf-8", "surrogateescape")).match
    for entry in _entries(files, base):
        if entry.name.startswith(b".") and not hidden and not name.startswith(b"."):
            continue
        if matches(entry.name):
            yield from _matching(files, os.path.join(base, entry.name), rest, recursive, hidden)


def _entries(files: Files, base: bytes) -> list[DirEntry[bytes]]:
    try:
        with files.scandir(base or b"/") as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
