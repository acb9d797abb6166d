"""The history of a volume: the graph its versions make, and what two of them have in common."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from stowstore.versions.errors import NoSuchVersion, Unrelated
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.root import Root

__all__ = ["common_ancestor", "walk_history"]


def walk_history(root: Root, start: VersionName, *, limit: int | None = None) -> Iterator[Manifest]:
    """The manifests of a version and everything it came from, newest first, each once.

    The walk goes on into other volumes where a fork came from.  Parents that were pruned end their branch.
    """
    waiting = [_newest_first(start)]
    seen = {start.id}
    count = 0
    while waiting and (limit is None or count < limit):
        name = heapq.heappop(waiting)[1]
        try:
            manifest = root.load(name)
        except NoSuchVersion:
            continue
        count += 1
        yield manifest
        for parent in manifest.parents:
            if parent.id not in seen:
                seen.add(parent.id)
                heapq.heappush(waiting, _newest_first(parent))


def common_ancestor(root: Root, ours: VersionName, theirs: VersionName) -> VersionName:
    """The newest version both came from; one of them when it is in the past of the other.

    Both histories are walked together, newest first, so only what is younger than the answer is read.

    Raises:
        Unrelated: they have none, or what they had was pruned.
    """
    if ours.id == theirs.id:
        return ours
    sides = {ours.id: 1, theirs.id: 2}
    waiting = [_newest_first(ours), _newest_first(theirs)]
    heapq.heapify(waiting)
    while waiting:
        name = heapq.heappop(waiting)[1]
        side = sides[name.id]
        if side == 3:
            return name
        try:
            parents = root.load(name).parents
        except NoSuchVersion:
            continue
        for parent in parents:
            if parent.id not in sides:
                heapq.heappush(waiting, _newest_first(parent))
            sides[parent.id] = sides.get(parent.id, 0) | side
    raise Unrelated(
        f"{ours.volume}@{ours.id} and {theirs.volume}@{theirs.id} have no common ancestor",
        hint="only forks of one past can be merged; copy the files instead",
    )


def _newest_first(name: VersionName) -> tuple[bytes, VersionName]:
    """ULIDs sort by time; a heap gives the smallest first, so their letters are turned round."""
    return bytes(0xFF - letter for letter in name.id.encode()), name
