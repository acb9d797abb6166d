"""Memory: for tests, and as the smallest example of a kind."""

from __future__ import annotations

from datastore.memory import MemoryLocation
from stowstore.locations.base import Dial, Kind, Location

__all__ = ["KIND"]


def _dial(dial: Dial) -> Location:
    return MemoryLocation()


KIND = Kind(
    name="mem",
    schemes=("mem",),
    dial=_dial,
    summary="objects in the memory of this process; gone when the store is",
)
