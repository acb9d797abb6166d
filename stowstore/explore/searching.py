"""Finding names in a version by glob: one pass over its entries, told as it goes."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from typing import Final

from attrs import frozen

from stowstore.explore.version import ExploredVersion
from stowstore.index.keys import ENTRY, after_prefix, inode_of, name_of
from stowstore.index.records import EntryRecord
from stowstore.versions.changes import PathFinder

__all__ = ["MOST_MATCHES", "Match", "search"]

#: More are of no use to a reader; the search ends there.
MOST_MATCHES: Final = 1000

#: How many names are looked at between two words of progress.
_STEP: Final = 2048


@frozen(kw_only=True)
class Match:
    """A name that was found; ``path`` is relative to the top."""

    path: bytes
    kind: int


def search(version: ExploredVersion, glob: str, told: Callable[[list[Match], int], None]) -> None:
    """Finds the names that match, in no particular order, up to `MOST_MATCHES`.

    A text without ``*?[`` is looked for anywhere in a name; one with a slash is held against the whole path.  Letters
    of any case match lower-case ones.  ``told`` hears every so often what was found since, and how many names were
    looked at; what it raises ends the search.
    """
    matches = _matcher(glob.rpartition("/")[2])
    matches_path = _matcher(glob.lstrip("/")) if "/" in glob else None
    finder = PathFinder(version.snapshot)
    found: list[Match] = []
    seen = total = 0
    for key, value in version.snapshot.scan(ENTRY, after_prefix(ENTRY)):
        seen += 1
        name = name_of(key)
        if matches(name):
            path = finder.child(inode_of(key), name)
            if path is not None and (matches_path is None or matches_path(path)):
                found.append(Match(path=path, kind=EntryRecord.decode(value).kind))
                total += 1
        if seen % _STEP == 0 or total == MOST_MATCHES:
            told(found, seen)
            found = []
        if total == MOST_MATCHES:
            return
    told(found, seen)


def _matcher(glob: str) -> Callable[[bytes], bool]:
    if not any(letter in glob for letter in "*?["):
        glob = f"*{glob}*"
    flags = re.IGNORECASE if glob == glob.lower() else 0
    match = re.compile(fnmatch.translate(glob), flags).match
    return lambda text: match(os.fsdecode(text)) is not None
