"""Listing a directory tree in the order of its keys, from any key on, without walking what lies before.

Keys ascend by their UTF-8 bytes, and a directory takes its place with the slash it ends with: ``a-b`` before ``a/x``
before ``a0``.  Text compares by code points, which UTF-8 keeps in order.
"""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime

from attrs import field, frozen

from datastore.driver import DriverEntry, DriverPage, resume_after
from stowstore.locations.local.area import etag_of, identity_of
from stowstore.locations.local.paths import READABLE_DIRECTORY, Root

__all__ = ["Lister"]

#: Longer keys cannot be asked for, so they are not listed.
_MAX_KEY_BYTES = 1024

#: Sorting fewer names than this again for every page costs nothing worth a cache.
_WORTH_KEEPING = 2000

#: A directory changed less than this ago may change again within one tick of its time stamp, nanoseconds.
_UNSETTLED = 1_000_000_000


@frozen
class _Names:
    """The names in one directory, ascending, those of directories ending with a slash; ``odd`` ones are no objects."""

    names: list[str]
    odd: frozenset[str]
    #: Device, inode and times of the directory they were read from.
    version: tuple[int, ...] = field(default=(), eq=False)


class Lister:
    """Lists the containers of one root; thread-safe.

    It keeps the sorted names of the large directory it read last: pages of a directory of a million files would
    otherwise each read and sort all of them.
    """

    def __init__(self) -> None:
        self._kept: _Names | None = None

    def page(self, root: Root, container: bytes, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        """One page, as `datastore.driver.Container.list` says.

        Raises:
            OSError: the directory cannot be read; one that is not there has no objects.
        """
        directory = prefix[: prefix.rfind("/") + 1]
        try:
            path = container + b"/" + directory.encode() if directory else container
            fd = root.open(path.rstrip(b"/"), READABLE_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return DriverPage()
        scan = _Scan(self, prefix, resume_after(after, delimiter, prefix), limit, delimiter)
        scan.run(fd, directory)
        return DriverPage(scan.entries, scan.prefixes, more=scan.more, omitted=scan.omitted)

    def names(self, fd: int, start: str) -> _Names:
        """The names in a directory; only those that begin with ``start`` unless all are known."""
        status = os.fstat(fd)
        version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        kept = self._kept
        if kept is not None and kept.version == version:
            return kept
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _UNSETTLED
        found = _read(fd, start, version)
        if not start and settled and len(found.names) >= _WORTH_KEEPING:
            self._kept = found
        return found

    def forget(self, names: _Names) -> None:
        """Lets go of names that were listed to the end."""
        if self._kept is names:
            self._kept = None


class _Scan:
    def __init__(self, lister: Lister, prefix: str, after: str, limit: int, delimiter: str) -> None:
        self.entries: list[DriverEntry] = []
        self.prefixes: list[str] = []
        self.omitted = 0
        self.more = False
        #: Omitted behind the last entry of a full page: the next page counts them, if there is one.
        self._behind = 0
        self._lister = lister
        self._prefix = prefix
        self._after = after
        self._limit = limit
        self._delimiter = delimiter

    def run(self, fd: int, directory: str) -> None:
        """Lists from an open directory on, which it closes."""
        stack = [(fd, directory, self._names(fd, directory))]
        try:
            while stack:
                fd, directory, names = stack[-1]
                below = self._advance(fd, directory, names)
                if self.more:
                    return
                if below is None:
                    stack.pop()
                    os.close(fd)
                else:
                    stack.append((*below, self._names(*below)))
            self.omitted += self._behind
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _advance(self, fd: int, directory: str, names: Iterator[tuple[str, bool]]) -> tuple[int, str] | None:
        """Lists names until one is a directory to go into, which is returned."""
        entries = self.entries
        for name, odd in names:
            key = directory + name
            if odd or (len(key) * 4 > _MAX_KEY_BYTES and len(key.encode()) > _MAX_KEY_BYTES):
                if len(entries) + len(self.prefixes) < self._limit:
                    self.omitted += 1
                else:
                    self._behind += 1
                continue
            if name.endswith("/"):
                below = _open_directory(fd, name[:-1])
                if below is None:
                    continue
                if not self._delimiter:
                    return below, key
                if self._holds_any(below, key):
                    if len(entries) + len(self.prefixes) == self._limit:
                        self.more = True
                        return None
                    self.prefixes.append(key)
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if len(entries) + len(self.prefixes) == self._limit:
                self.more = True
                return None
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            entries.append(DriverEntry(key, status.st_size, etag_of(identity_of(status)), modified))
        return None

    def _names(self, fd: int, directory: str) -> Iterator[tuple[str, bool]]:
        """The names to look at, in order: those of the prefix, from the one on that the listing goes on in."""
        start = self._prefix[len(directory) :]
        found = self._lister.names(fd, start)
        names, odd = found.names, found.odd
        index = bisect_left(names, start) if start else 0
        if self._after.startswith(directory):
            after = self._after[len(directory) :]
            index = max(index, bisect_right(names, after))
            if index and names[index - 1].endswith("/") and after.startswith(names[index - 1]):
                index -= 1
        elif self._after > directory:
            index = len(names)
        while index < len(names):
            name = names[index]
            if start and not name.startswith(start):
                return
            yield name, name in odd
            index += 1
        self._lister.forget(found)

    def _holds_any(self, fd: int, directory: str) -> bool:
        """Whether an object lies below a directory, behind the place where the listing goes on; closes it."""
        after = self._after if self._after.startswith(directory) else ""
        if not after:
            with os.scandir(fd) as found:
                for entry in found:
                    if entry.is_file(follow_symlinks=False) and _is_text(entry.name):
                        os.close(fd)
                        return True
        scan = _Scan(self._lister, directory, after, 1, "")
        scan.run(fd, directory)
        return bool(scan.entries)


def _open_directory(parent: int, name: str) -> int | None:
    try:
        return os.open(name, READABLE_DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        # Removed, or replaced, since its name was read.
        return None


def _read(fd: int, start: str, version: tuple[int, ...]) -> _Names:
    names: list[str] = []
    odd: list[str] = []
    add = names.append
    with os.scandir(fd) as found:
        for entry in found:
            name = entry.name
            if start and not name.startswith(start):
                continue
            if entry.is_file(follow_symlinks=False):
                add(name)
            elif entry.is_dir(follow_symlinks=False):
                name += "/"
                add(name)
            else:
                add(name)
                odd.append(name)
                continue
            if not name.isascii() and not _is_text(name):
                odd.append(name)
    names.sort()
    return _Names(names, frozenset(odd), version)


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8: Python hides other bytes in lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
