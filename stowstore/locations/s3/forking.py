"""What a forked child must not share with its parent: locks that another thread may have held, and sockets."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["abandon", "reset_in_children"]


class _Resettable(Protocol):
    def reset_after_fork(self) -> None: ...


_locations: weakref.WeakSet[_Resettable] = weakref.WeakSet()


#: What children no longer use and must not take apart.
_abandoned: list[object] = []


def abandon(*clients: object) -> None:
    """Keeps clients of the parent alive in a child: taking them apart takes locks its threads may have held."""
    _abandoned.extend(clients)


def reset_in_children(location: _Resettable) -> None:
    """Calls ``location.reset_after_fork()`` in every child forked while the location lives."""
    _locations.add(location)


def _after_fork_in_child() -> None:
    for location in list(_locations):
        location.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
