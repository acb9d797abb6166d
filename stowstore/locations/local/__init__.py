"""Local disk: containers are directories, objects are plain files."""

from __future__ import annotations

from stowstore.locations.base import Dial, Kind, Location, Option
from stowstore.locations.local.location import LOCAL_CAPABILITIES, LocalLocation
from stowstore.locations.local.place import FsyncMode

__all__ = ["KIND", "LOCAL_CAPABILITIES", "FsyncMode", "LocalLocation"]


def _dial(dial: Dial) -> Location:
    return LocalLocation(dial.options["path"], fsync=FsyncMode(dial.options["fsync"]))


KIND = Kind(
    name="file",
    schemes=("file",),
    dial=_dial,
    options={
        "path": Option(
            help="the root directory; made with the first container when it is missing, ~ is the home directory",
            required=True,
        ),
        "fsync": Option(
            help="what is on the disk when a write returns: never (the kernel decides), data (bytes), full (names too)",
            default=FsyncMode.NEVER.value,
            choices=tuple(mode.value for mode in FsyncMode),
        ),
    },
    summary="plain files on a local or mounted file system",
    aliases=("local",),
)
