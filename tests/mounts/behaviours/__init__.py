"""What programs do to a directory, and what they see: each behaviour gives back what can be compared.

A module is a family.  A behaviour runs in a process of its own below a fresh directory, on the local disk and on a
mount; `python -m tests.mounts.behaviours FAMILY DIRECTORY` has those of one family do it one after another.
"""

from tests.mounts.behaviours import (
    attributes,
    directories,
    files,
    kinds,
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
from tests.mounts.behaviours.calling import FAMILIES

__all__ = [
    "FAMILIES",
    "attributes",
    "directories",
    "files",
    "kinds",
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
