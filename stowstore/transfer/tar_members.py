"""Extended attributes in the headers of tar members (PAX), as GNU tar, star and libarchive have them.

``SCHILY.xattr.NAME`` is the value as it is, any bytes; GNU tar writes ``%`` and ``=`` of a name as ``%25`` and ``%3D``.
``LIBARCHIVE.xattr.NAME`` is the value in base64, the name encoded as in addresses; libarchive writes
both, with names encoded so in both.
"""

from __future__ import annotations

import base64
import binascii
import tarfile
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from stowstore.transfer.progress import TransferReport

__all__ = ["TAR_ENCODING", "XattrMember", "member_xattrs"]

#: What archives have to be opened with: it brings bytes that are no text through unchanged.
TAR_ENCODING: Final = "utf-8"

_SCHILY: Final = "SCHILY.xattr."
_LIBARCHIVE: Final = "LIBARCHIVE.xattr."


class XattrMember(tarfile.TarInfo):
    """A member that is written with extended attributes."""

    xattrs: Mapping[bytes, bytes] = {}

    def tobuf(self, *arguments: Any, **named: Any) -> bytes:
        """The header, with attributes in a PAX header that is there anyway or comes before it.

        Were they among ``pax_headers``, bytes that are no text would add a ``hdrcharset`` that GNU tar complains of.
        """
        blocks = super().tobuf(*arguments, **named)
        if not self.xattrs:
            return blocks
        before, header = blocks[: -tarfile.BLOCKSIZE], blocks[-tarfile.BLOCKSIZE :]
        records = b""
        if before:
            size = tarfile.TarInfo.frombuf(before[: tarfile.BLOCKSIZE], TAR_ENCODING, "surrogateescape").size
            records = before[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size]
        records += b"".join(_record(name, value) for name, value in self.xattrs.items())
        extended = tarfile.TarInfo("././@PaxHeader")
        extended.type, extended.size, extended.mode = tarfile.XHDTYPE, len(records), 0
        padding = bytes(-len(records) % tarfile.BLOCKSIZE)
        return extended.tobuf(tarfile.USTAR_FORMAT) + records + padding + header


def member_xattrs(member: tarfile.TarInfo, report: TransferReport) -> dict[bytes, bytes]:
    """The extended attributes of a member that was read; what is no base64 is told."""
    found: dict[bytes, bytes] = {}
    by_libarchive = any(keyword.startswith(_LIBARCHIVE) for keyword in member.pax_headers)
    for keyword, text in member.pax_headers.items():
        if keyword.startswith(_LIBARCHIVE):
            name = unquote_to_bytes(_raw(keyword.removeprefix(_LIBARCHIVE)))
            try:
                value = base64.b64decode(_raw(text) + b"=" * (-len(text) % 4))
            except binascii.Error as error:
                report.skipped.append((member.name, f"{keyword}: {error}"))
            else:
                found.setdefault(name, value)
        elif keyword.startswith(_SCHILY):
            name = _raw(keyword.removeprefix(_SCHILY))
            found[unquote_to_bytes(name) if by_libarchive else _from_gnu(name)] = _raw(text)
    return found


def _record(name: bytes, value: bytes) -> bytes:
    """A record of a PAX header; the length it begins with counts itself."""
    keyword = _SCHILY.encode() + name.replace(b"%", b"%25").replace(b"=", b"%3D")
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _from_gnu(name: bytes) -> bytes:
    return name.replace(b"%3D", b"=").replace(b"%25", b"%")


def _raw(text: str) -> bytes:
    return text.encode(TAR_ENCODING, "surrogateescape")
