"""What programs do to a directory, and what they see: each behaviour gives back what can be compared.

A behaviour runs in a process of its own below a fresh directory, on the local disk and on a mount.
"""

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
from tests.mounts.behaviours.calling import BEHAVIOURS

__all__ = [
    "BEHAVIOURS",
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
