"""What programs do to a directory, and what they see: each behaviour gives back what can be compared.

A module is a family.  A behaviour runs in a process of its own below a fresh directory, on the local disk and on a
mount; `python -m tests.mounts.behaviours FAMILY DIRECTORY` has those of one family do it one after another.
"""

from collections.abc import Mapping

from tests.mounts.behaviours import (
    attributes,
    directories,
    files,
    links,
    mounts,
    names,
    opening,
    ownership,
    permissions,
    renames,
    sharing,
    space,
    times,
)
from tests.mounts.behaviours.calling import BEHAVIOURS, Behaviour

__all__ = [
    "FAMILIES",
    "attributes",
    "directories",
    "files",
    "links",
    "mounts",
    "names",
    "opening",
    "ownership",
    "permissions",
    "renames",
    "sharing",
    "space",
    "times",
]


def _families() -> dict[str, dict[str, Behaviour]]:
    found: dict[str, dict[str, Behaviour]] = {}
    for name, behaviour in BEHAVIOURS.items():
        found.setdefault(behaviour.__module__.rpartition(".")[2], {})[name] = behaviour
    return found


#: The behaviours of each family by their names.
FAMILIES: Mapping[str, Mapping[str, Behaviour]] = _families()
