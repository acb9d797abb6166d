"""The last step before a job's command, inside its sandbox: uploads, working directory, limits, and then the command.

A few lines of the host's own shell, so that nothing but the system's directories need be visible.  The descriptors have
one digit because shells know no others.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

__all__ = ["FIRST_INPUT", "LEASH", "STARTED", "UPLOADS", "gate"]

#: Held by the first process of the job alone: see `stowstore.jobs.leash`.
LEASH: Final = 3
#: A tar archive of what is uploaded.
UPLOADS: Final = 4
#: A pipe that says when the command is about to start.
STARTED: Final = 5
#: What the sandbox's own program reads.
FIRST_INPUT: Final = 6

_SCRIPT: Final = """\
exec 3<&-
if [ -n "$1" ]; then tar -x -f - --no-same-owner -C "$1" <&4 || exit 125; fi
cd -- "$2" || exit 125
if [ -n "$3" ]; then ulimit -v "$3" || exit 125; fi
shift 3
unset OLDPWD
echo started >&5
exec 4<&- 5>&-
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
