"""Extended attributes of what is transferred: read from and given to files of this host, and files of volumes.

What a volume accepts of them is kept (`user.`, `trusted.` and `security.`).  What the other side does not have by its
nature, such as access control lists or attributes on a file system without any, is left out without a word, as rsync
does; what is out of bounds or cannot be read is told.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final

from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.namespace.xattrs import require_xattr
from stowstore.transfer.progress import TransferReport

__all__ = ["SourceXattrs", "Xattrs", "accepted_xattrs", "give_xattrs", "has_xattrs", "update_xattrs", "xattrs_of"]

Xattrs = Mapping[bytes, bytes]

#: What a volume answers for attributes it does not have by its nature.
_REFUSED: Final = frozenset((errno.EOPNOTSUPP, errno.EPERM))

#: What this host answers for those, and where only the superuser may set them.
_REFUSED_HERE: Final = frozenset((*_REFUSED, errno.EACCES))

_NONE: Final[Xattrs] = {}


class SourceXattrs:
    """Reads the attributes of files of this host; thread-safe."""

    def __init__(self, report: TransferReport) -> None:
        self._report = report
        #: File systems that have said that they keep none.
        self._without: set[int] = set()

    def read(self, path: str, status: os.stat_result, descriptor: int | None = None) -> Xattrs | None:
        """The attributes a volume accepts; None where the file system keeps none, which says nothing of the file.

        Symbolic links are not followed.  Those of an open file are read by its descriptor.
        """
        if status.st_dev in self._without:
            return None
        place = path if descriptor is None else descriptor
        try:
            names = os.listxattr(place, follow_symlinks=descriptor is not None)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                self._report.skipped.append((path, f"its extended attributes: {error.strerror}"))
            elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                # Of other kinds of files some file systems keep none, and do of these.
                self._without.add(status.st_dev)
            return None
        if not names:
            return _NONE
        found: dict[bytes, bytes] = {}
        for name in names:
            if not name.startswith("system."):
                try:
                    found[os.fsencode(name)] = os.getxattr(place, name, follow_symlinks=descriptor is not None)
                except OSError as error:
                    # One that is gone by now is none.
                    if error.errno != errno.ENODATA:
                        self._report.skipped.append((path, _reason(os.fsencode(name), error)))
        return accepted_xattrs(path, status.st_mode, found, self._report)


def accepted_xattrs(path: str, mode: int, found: Xattrs, report: TransferReport) -> Xattrs:
    """Those of some attributes that a volume accepts of a file of that mode."""
    accepted: dict[bytes, bytes] = {}
    for name, value in found.items():
        try:
            require_xattr(mode, name, value, accepted)
        except OSError as error:
            if error.errno not in _REFUSED:
                report.skipped.append((path, _reason(name, error)))
        else:
            accepted[name] = value
    return accepted


def xattrs_of(files: FileSystem, ino: int) -> dict[bytes, bytes]:
    """All attributes of a file of a volume."""
    if not files.may_have_xattrs(ino):
        return {}
    return {name: files.getxattr(ino, name, ROOT) for name in files.listxattr(ino, ROOT)}


def update_xattrs(files: FileSystem, ino: int, wanted: Xattrs) -> bool:
    """Makes the attributes of a file of a volume those wanted; whether anything had to change."""
    known = xattrs_of(files, ino)
    if known == wanted:
        return False
    for name in known.keys() - wanted.keys():
        files.removexattr(ino, name, ROOT)
    for name, value in wanted.items():
        if known.get(name) != value:
            files.setxattr(ino, name, value, ROOT)
    return True


def give_xattrs(path: bytes, wanted: Xattrs, report: TransferReport, *, descriptor: int | None = None) -> None:
    """Sets attributes of a file of this host, or an open one; what it does not take is left out.

    Symbolic links are not followed.  What there is no room for is told: some file systems have 4 KiB for all.
    """
    place = path if descriptor is None else descriptor
    for name, value in wanted.items():
        try:
            os.setxattr(place, name, value, follow_symlinks=descriptor is not None)
        except OSError as error:
            if error.errno not in _REFUSED_HERE:
                report.skipped.append((os.fsdecode(path), _reason(name, error)))


def has_xattrs(path: bytes, wanted: Xattrs) -> bool:
    """Whether a file of this host has the attributes that it would be given; others may be its system's."""
    try:
        found = {name: os.getxattr(path, name) for name in map(os.fsencode, os.listxattr(path))}
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP
    superuser = os.geteuid() == 0
    expected = {name: value for name, value in wanted.items() if superuser or name.startswith(b"user.")}
    return expected.items() <= found.items() and all(name in wanted for name in found if name.startswith(b"user."))


def _reason(name: bytes, error: OSError) -> str:
    shown = os.fsdecode(name if len(name) < 80 else name[:77] + b"...")
    return f"its attribute {shown}: {error.strerror or error}"
