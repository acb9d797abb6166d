"""What ended mounts leave in the runtime directory, so that it does not grow for ever."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Final

from stowstore.mounts.table import runtime_directory

__all__ = ["make_room", "sweep"]

#: Logs, sockets and drafts of records, see `table.names_of`: the user may have put other things there.
_OURS: Final = re.compile(r"[0-9a-f]{16}\.(log|old\.log|sock|\d+)")

#: How long the log of a mount that has ended is kept, seconds.
_KEPT_SECONDS: Final = 7 * 86_400.0

#: How many of them are kept, the newest.
_KEPT: Final = 100

#: From which size on a mount begins a new log, bytes; the one before is kept beside it.
_LARGE: Final = 4 << 20


def make_room(log: Path) -> None:
    """Puts a log aside that has become large; `sweep` knows it for that of an ended mount then."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LARGE:
            log.replace(log.with_suffix(".old.log"))


def sweep() -> None:
    """Removes the logs of mounts that ended long ago or before many others, and what killed processes have left.

    A mount that is listed, be it as dead, has not ended: what its daemon said before it died stays until somebody has
    unmounted it, and then as long as every other.
    """
    found: list[tuple[float, str]] = []
    listed: set[str] = set()
    with os.scandir(runtime_directory()) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                listed.add(entry.name.partition(".")[0])
            elif _OURS.fullmatch(entry.name):
                # Others look through it at the same moment.
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    found.sort(reverse=True)
    oldest = time.time() - _KEPT_SECONDS
    kept = 0
    for changed, path in found:
        name = os.path.basename(path)
        if name.partition(".")[0] in listed and not name.endswith(".old.log"):
            continue
        kept += name.endswith(".log")
        if changed < oldest or (kept > _KEPT and name.endswith(".log")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
