"""Numbers of inodes across versions: writers of one past must never give the same number to two files."""

from __future__ import annotations

import secrets
from typing import Final

from stowstore.index.keys import SUPERBLOCK
from stowstore.index.records import Superblock
from stowstore.index.snapshot import Snapshot

__all__ = ["advanced", "next_ino"]

#: How far numbers move on, at least and at most: nobody makes as many files meanwhile, two that move on from one number
#: do not meet, and there is room for tens of thousands of moves within 64 bits.
_LEAST: Final = 1 << 32
_MOST: Final = 1 << 48


def advanced(next_ino: int) -> int:
    """Where to go on, a random distance behind where others of the same past may go on."""
    return next_ino + _LEAST + secrets.randbelow(_MOST - _LEAST)


def next_ino(snapshot: Snapshot) -> int:
    """The number from which on inodes are not those of a snapshot."""
    raw = snapshot.get(SUPERBLOCK)
    return (Superblock() if raw is None else Superblock.decode(raw)).next_ino
