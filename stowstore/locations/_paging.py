"""One page of a listing out of names that come in any order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TypeVar

from datastore.driver import resume_after

__all__ = ["select_page"]

_T = TypeVar("_T")

#: How many names more than a page are kept before the larger ones are thrown away.
_SLACK = 4096


def select_page(
    found: Iterable[tuple[str, _T]], prefix: str, after: str, limit: int, delimiter: str
) -> tuple[list[tuple[str, _T]], list[str], bool]:
    """The first ``limit`` names after ``after``, those with the delimiter folded, and whether more follow.

    Memory is bounded by the page, not by the listing.  A name may come twice; its value is never None.
    """
    start = resume_after(after, delimiter, prefix)
    wanted = limit + 1
    kept: dict[str, _T | None] = {}
    bound: str | None = None
    for name, value in found:
        # Code points sort as their UTF-8 bytes do.
        if name <= start or not name.startswith(prefix):
            continue
        known: _T | None = value
        if delimiter and (cut := name.find(delimiter, len(prefix))) >= 0:
            name, known = name[: cut + len(delimiter)], None
        if bound is not None and name > bound:
            continue
        kept[name] = known
        if len(kept) > wanted + _SLACK:
            smallest = heapq.nsmallest(wanted, kept)
            bound = smallest[-1]
            kept = {name: kept[name] for name in smallest}
    names = heapq.nsmallest(wanted, kept)
    more = len(names) > limit
    names = names[:limit]
    chosen = [(name, known) for name in names if (known := kept[name]) is not None]
    return chosen, [name for name in names if kept[name] is None], more
