"""What a mounted volume holds, in a small file: its daemon writes it, and anybody reads it without asking."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final

from attrs import frozen

__all__ = ["Counters", "read_counters", "write_counters"]

_FORM: Final = struct.Struct("<8sQQQQ")
_SUM: Final = struct.Struct("<I")
_MAGIC: Final = b"stowuse1"


@frozen(kw_only=True)
class Counters:
    """``used_bytes`` and ``inodes`` of a volume, and its ``limit_bytes`` when they were counted; 0 is no limit.

    ``is_final`` says that the daemon has written them when it ended: they are exact until the volume is mounted again.
    """

    used_bytes: int
    inodes: int
    limit_bytes: int = 0
    is_final: bool = False


def write_counters(path: Path, counters: Counters) -> None:
    """Writes in place, in one call: a reader sees the old counters or the new ones, or that they do not match."""
    body = _FORM.pack(_MAGIC, counters.used_bytes, counters.inodes, counters.limit_bytes, int(counters.is_final))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, body + _SUM.pack(zlib.crc32(body)), 0)
    finally:
        os.close(descriptor)


def read_counters(path: str | os.PathLike[str]) -> Counters | None:
    """The counters; None where there are none, or none that can be believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A second look, where a writer was met half-way.
        for _ in range(3):
            raw = os.pread(descriptor, _FORM.size + _SUM.size + 1, 0)
            if len(raw) != _FORM.size + _SUM.size:
                return None
            body, (found,) = raw[: _FORM.size], _SUM.unpack(raw[_FORM.size :])
            if zlib.crc32(body) == found and body.startswith(_MAGIC):
                _, used, inodes, limit, final = _FORM.unpack(body)
                return Counters(used_bytes=used, inodes=inodes, limit_bytes=limit, is_final=bool(final))
    finally:
        os.close(descriptor)
    return None
