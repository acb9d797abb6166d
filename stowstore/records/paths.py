"""Paths in records: what may be one, checked on the way in and on the way out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Final

from stowstore.records.errors import InvalidRecord
from stowstore.records.model import FileKind, RecordFile

__all__ = ["check_link", "check_path", "check_tree"]

_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 4095
#: What nearly every path is: nothing more to check.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def check_path(path: object) -> str:
    """The path itself, if it is relative, normal, and stays below its record.

    Raises:
        InvalidRecord: it is absolute, empty, too long, or has ``.``, ``..``, an empty segment or NUL.
    """
    if not isinstance(path, str) or not path:
        raise InvalidRecord(f"{path!r} is no path of a file")
    if len(path) <= _LONGEST_NAME and _PLAIN.fullmatch(path):
        return path
    names = path.split("/")
    if path.startswith("/") or "\0" in path or any(name in ("", ".", "..") for name in names):
        raise InvalidRecord(
            f"the path {path!r} may lead out of its record", hint="paths are relative, without '.', '..' and NUL"
        )
    encoded = path.encode("utf-8", "surrogateescape")
    if len(encoded) > _LONGEST_PATH or any(
        len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME for name in names
    ):
        raise InvalidRecord(f"the path {path[:64]!r}... is longer than a file system takes")
    return path


def check_link(path: str, target: object) -> str:
    """The target itself, if a link at ``path`` with it stays in the record, read as text.

    Raises:
        InvalidRecord: it is absolute, or leads out of the record.
    """
    if not isinstance(target, str) or not target or "\0" in target or target.startswith("/"):
        raise InvalidRecord(
            f"the link {path!r} leads to {target!r}, out of its record",
            hint="copy what it leads to into the record, or remove the link",
        )
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if resolved == ".." or resolved.startswith("../"):
        raise InvalidRecord(
            f"the link {path!r} leads to {target!r}, out of its record",
            hint="copy what it leads to into the record, or remove the link",
        )
    return target


def check_tree(files: Iterable[RecordFile]) -> None:
    """Refuses lists that no directory could hold: a path twice, or one below something that is no directory.

    Raises:
        InvalidRecord: with the path.
    """
    kinds: dict[str, FileKind] = {}
    for file in files:
        if file.path in kinds:
            raise InvalidRecord(f"the path {file.path!r} is there twice")
        kinds[file.path] = file.kind
    parents: set[str] = set()
    for path in kinds:
        above = path.rpartition("/")[0]
        while above and above not in parents:
            if kinds.get(above, FileKind.DIRECTORY) is not FileKind.DIRECTORY:
                raise InvalidRecord(f"the path {path!r} lies below {above!r}, which is no directory")
            parents.add(above)
            above = above.rpartition("/")[0]
