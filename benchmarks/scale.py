"""How much a run measures."""

from __future__ import annotations

from attrs import frozen

__all__ = ["FULL", "QUICK", "Scale"]


@frozen(kw_only=True)
class Scale:
    """Rounds of each case, operations of a round, keys of a listing, and the two large objects in bytes."""

    rounds: int
    operations: int
    keys: int
    large: int
    huge: int


FULL = Scale(rounds=7, operations=300, keys=10_000, large=512 << 20, huge=5 << 30)
#: Says that everything works, and little about speed.
QUICK = Scale(rounds=2, operations=32, keys=500, large=16 << 20, huge=64 << 20)
