"""How much a run measures."""

from __future__ import annotations

from attrs import frozen

__all__ = ["FULL", "QUICK", "Scale"]


@frozen(kw_only=True)
class Scale:
    """Rounds of each case, operations of a round, keys of a listing, and the two large objects in bytes.

    A case that has taken ``case_seconds`` after its second round is not given another: a run must end on any machine.
    """

    rounds: int
    operations: int
    keys: int
    large: int
    huge: int
    case_seconds: float


FULL = Scale(rounds=7, operations=300, keys=10_000, large=512 << 20, huge=5 << 30, case_seconds=12.0)
#: Says that everything works, and little about speed.
QUICK = Scale(rounds=2, operations=32, keys=500, large=16 << 20, huge=64 << 20, case_seconds=2.0)
