"""Three-way merging of snapshots, key by key."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen

from stowstore.index.diff import diff_snapshots
from stowstore.index.snapshot import Snapshot

__all__ = ["KeyConflict", "ThreeWay", "three_way"]


class KeyConflict(NamedTuple):
    """A key that both sides changed, differently."""

    key: bytes
    base: bytes | None
    ours: bytes | None
    theirs: bytes | None


@frozen
class ThreeWay:
    """What merging takes: changes to make on our side, and keys somebody has to decide."""

    changes: dict[bytes, bytes | None]
    conflicts: list[KeyConflict]


def three_way(base: Snapshot, ours: Snapshot, theirs: Snapshot) -> ThreeWay:
    """What changed from ``base`` to ``theirs``, held against what changed to ``ours``."""
    mine = {change.key: change.new for change in diff_snapshots(base, ours)}
    changes: dict[bytes, bytes | None] = {}
    conflicts: list[KeyConflict] = []
    for key, before, after in diff_snapshots(base, theirs):
        if key not in mine:
            changes[key] = after
        elif mine[key] != after:
            conflicts.append(KeyConflict(key, before, mine[key], after))
    return ThreeWay(changes, conflicts)
