"""What a forked child must know: obstore hangs there if its parent had used it, and locks and sockets are shared.

obstore's runtime is threads, and threads do not survive a fork; not even a new store made in the child answers.
Whether it was used is known of the process as a whole: every kind on obstore shares that runtime.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from stowstore.locations import _obstore

from stowstore.locations._obstore import _state

__all__ = ["obstore_works", "reset_in_children", "using_obstore"]


class _Resettable(Protocol):
    def reset_after_fork(self) -> None: ...


_locations: weakref.WeakSet[_Resettable] = weakref.WeakSet()


def obstore_works() -> bool:
    """Whether obstore answers in this process."""
    return not _state.forked


def using_obstore() -> None:
    """Notes that obstore's threads run from here on: children forked later cannot use it."""
    _state.used = True


def reset_in_children(location: _Resettable) -> None:
    """Calls ``location.reset_after_fork()`` in every child forked while the location lives."""
    _locations.add(location)


def _after_fork_in_child() -> None:
    for location in list(_locations):
        location.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
