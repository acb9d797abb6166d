"""Reading a file that somebody may be writing: what is read is what was announced, or the reading fails."""

from __future__ import annotations

import os
from hashlib import sha256
from io import RawIOBase

from stowstore.records.scanning import Stamp

__all__ = ["OtherContent", "VerifiedFile", "read_whole"]


class VerifiedFile(RawIOBase):
    """A file that refuses to give its last piece unless the whole has the digest it was announced with."""

    def __init__(self, path: str, size: int, digest: str) -> None:
        super().__init__()
        self._stream = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)  # noqa: SIM115
        self._size = size
        self._expected = digest
        self._digest = sha256()
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        left = self._size - self._position
        piece = self._stream.read(left if size < 0 else min(size, left))
        if left and not piece:
            raise OtherContent
        self._position += len(piece)
        self._digest.update(piece)
        if left and self._position == self._size and self._digest.hexdigest() != self._expected:
            raise OtherContent
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if (offset, whence) == (0, os.SEEK_CUR):
            return self._position
        if (offset, whence) != (0, os.SEEK_SET):
            raise OSError("only its beginning can be gone back to: the digest is one of the whole")
        self._digest = sha256()
        self._position = 0
        return self._stream.seek(0)

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()


class OtherContent(Exception):
    """A file is no longer what its digest says."""


def read_whole(path: str) -> tuple[Stamp, bytes]:
    """A file, up to where it ended when it was opened; never what a link leads to."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as stream:
        stamp = Stamp.of(os.fstat(stream.fileno()))
        pieces: list[bytes] = []
        left = stamp.size
        while left and (piece := stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return stamp, pieces[0] if len(pieces) == 1 else b"".join(pieces)
