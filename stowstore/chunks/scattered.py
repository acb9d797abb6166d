"""Content that lies in memory in pieces, and is named and stored without being copied into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["Content", "Scattered", "gathered"]

#: Pieces that are smaller on average are joined: each is a call of its own to whoever takes them.
_PIECE_BYTES: Final = 64 << 10


class Scattered:
    """Pieces that follow each other, read as `bytes` would be as far as length and slices go."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = tuple(parts)
        self._size = sum(map(len, self.parts))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, wanted: slice) -> bytes:
        start, stop, step = wanted.indices(self._size)
        if step != 1:
            raise ValueError("pieces are cut into contiguous slices only")
        found: list[bytes] = []
        at = 0
        for part in self.parts:
            if at >= stop:
                break
            if at + len(part) > start:
                found.append(part[max(start - at, 0) : stop - at])
            at += len(part)
        return found[0] if len(found) == 1 else b"".join(found)

    def stretches(self, size: int) -> Iterator[bytes | memoryview]:
        """All of it in stretches of ``size`` bytes, the last one shorter; only those that reach over a piece's end are
        copied."""
        rest = b""
        for part in self.parts:
            at = 0
            if rest:
                at = size - len(rest)
                rest += part[:at]
                if len(rest) < size:
                    continue
                yield rest
                rest = b""
            view = memoryview(part)
            whole = at + (len(part) - at) // size * size
            for start in range(at, whole, size):
                yield view[start : start + size]
            rest = part[whole:]
        if rest:
            yield rest

    def joined(self) -> bytes:
        """All of it in one."""
        return b"".join(self.parts)


#: What a block is made of.
Content = bytes | Scattered


def gathered(parts: Sequence[bytes]) -> Content:
    """Pieces as one content, which takes few of them."""
    if len(parts) == 1:
        return parts[0]
    found = Scattered(parts)
    return found if len(found) >= len(parts) * _PIECE_BYTES else found.joined()
