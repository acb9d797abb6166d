"""Closures over relations: breadth first, each record once, so that cycles end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stowstore.records.errors import RelatedMissing
from stowstore.records.model import Related

__all__ = ["closure", "require_all"]


def closure(first: str, visit: Callable[[str], Iterable[str]], related: Related) -> list[str]:
    """Visits a record and those related to it; ``visit`` returns the uuids next to one.  Returns all that were visited.

    Relations hold in both directions in practice (each end logs the edge), so the graph is full of cycles.
    """
    seen = {first: None}
    level = [first]
    depth = 0
    while level:
        following: list[str] = []
        for uuid in level:
            for neighbour in visit(uuid):
                if neighbour not in seen and _goes_on(related, depth):
                    seen[neighbour] = None
                    following.append(neighbour)
        level = following
        depth += 1
    return list(seen)


def require_all(missing: list[str], skip_missing: bool) -> None:
    """Raises `RelatedMissing` if something is missing that may not be."""
    if missing and not skip_missing:
        raise RelatedMissing(
            f"{len(missing)} related records are missing: {', '.join(missing[:5])}{'...' if missing[5:] else ''}",
            uuids=tuple(missing),
            hint="everything else was done; skip the missing ones, or bring them first",
        )


def _goes_on(related: Related, depth: int) -> bool:
    return related is Related.ALL or (related is Related.DIRECT and depth == 0)
