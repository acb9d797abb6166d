"""The last step before a job's command, inside its sandbox: uploads, working directory, limits, and then the command.

A few lines of the host's own shell, so that nothing but the system's directories need be visible.  The descriptors have
one digit because shells know no others.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

__all__ = ["FIRST_INPUT", "LEASH", "LEASH_OF_FIRST", "STARTED", "UPLOADS", "gate"]

#: A pipe that says when the command is about to start.
STARTED: Final = 3
#: A tar archive of what is uploaded.
UPLOADS: Final = 4
#: The leash, for the command and its children, and for the job's first process: see `stowstore.jobs.leash`.
LEASH: Final = 8
LEASH_OF_FIRST: Final = 9
#: What the sandbox's own program reads, and counted on from there.
FIRST_INPUT: Final = 10

_SCRIPT: Final = """\
if [ -n "$1" ]; then tar -x -f - --no-same-owner -C "$1" <&4 || exit 125; fi
cd -- "$2" || exit 125
if [ -n "$3" ]; then ulimit -v "$3" || exit 125; fi
shift 3
unset OLDPWD
echo started >&3
exec 3>&- 4<&- 9<&-
exec "$@"
"""


def gate(
    command: tuple[str, ...], *, workdir: PurePosixPath, unpack: PurePosixPath | None, address_space: int | None
) -> tuple[str, ...]:
    """The command that prepares and then becomes the job's own; 125 when it cannot, 126 and 127 as shells have them.

    ``unpack`` is where the uploads go; ``address_space`` limits each process, in bytes.
    """
    kibibytes = "" if address_space is None else str(max(1, address_space >> 10))
    return ("/bin/sh", "-c", _SCRIPT, "stowstore run", str(unpack or ""), str(workdir), kibibytes, *command)
