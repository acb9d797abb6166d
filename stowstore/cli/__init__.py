"""The command line: ``stowstore``, one module a group of commands."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Final

from stowstore.cli.ahead import begin_mounts

__all__ = ["main"]

#: How many new objects make the collector look for garbage: Python's 700 would have it look a hundred times at what is
#: only being loaded.
_OBJECTS: Final = 10_000


def main(args: list[str] | None = None) -> None:
    """Runs the command line and leaves with its exit status."""
    if args is None:
        _hurry()
    begin_mounts(sys.argv[1:] if args is None else args)
    from stowstore.cli import app

    app.main(args)


def _hurry() -> None:
    """Has garbage looked for less often, and not at the end: a short command spends a sixth of its time on that."""
    gc.set_threshold(_OBJECTS)
    # The interpreter would look at everything once more before it takes everything down.
    atexit.register(gc.freeze)
