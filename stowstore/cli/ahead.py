"""What ``stowstore run`` can begin before anything is loaded: the process that will mount its volumes.

Commands load for a fifth of a second, and so do the daemons of mounts; beside each other, that is one time and not two.
This is a guess from the bare arguments.  One that is wrong costs some time and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

__all__ = ["begin_mounts"]


def begin_mounts(arguments: Sequence[str]) -> None:
    """Begins the process if these are the arguments of a job with volumes that are not mounted."""
    if arguments[:1] != ["run"]:
        return
    base = os.environ.get("STOWSTORE_ROOT") or "/var/lib/stowstore/volumes"
    volumes = [os.path.join(base, name) for name in _names(arguments)]
    if any(os.path.isdir(volume) and not os.path.ismount(os.path.join(volume, "data")) for volume in volumes):
        from stowstore.mounts import nursery

        nursery.begin()


def _names(arguments: Sequence[str]) -> Iterator[str]:
    for number, argument in enumerate(arguments):
        if argument == "--":
            return
        if argument.startswith("--volume="):
            yield argument.removeprefix("--volume=").partition(":")[0]
        elif argument in ("-v", "--volume"):
            yield from (one.partition(":")[0] for one in arguments[number + 1 : number + 2])
