"""What the operator of a host may set for all jobs, by environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from stowstore.jobs.errors import InvalidJob
from stowstore.named.sizes import parse_size

__all__ = ["Settings"]

_MIB: Final = 1 << 20


@frozen(kw_only=True)
class Settings:
    """Limits of the scratch space, in bytes, and directories of the host that jobs may read.

    ``system`` come besides the usual ones, for programs that are installed elsewhere, such as ``/opt`` or ``/nix``.
    ``sandbox`` is the way of isolation by its name, or None for the best there is.
    """

    without_volumes: int = _MIB
    with_volumes: int = 64 * _MIB
    system: tuple[Path, ...] = ()
    sandbox: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Reads ``STOWSTORE_JOB_SCRATCH``, ``STOWSTORE_JOB_SYSTEM`` (with ``:`` between paths), ``STOWSTORE_SANDBOX``.

        Raises:
            InvalidSize, InvalidJob: a value that cannot be.
        """
        given = os.environ if environment is None else environment
        scratch = given.get("STOWSTORE_JOB_SCRATCH")
        sizes = {"without_volumes": parse_size(scratch), "with_volumes": parse_size(scratch)} if scratch else {}
        system = [Path(part) for part in given.get("STOWSTORE_JOB_SYSTEM", "").split(os.pathsep) if part]
        for path in system:
            if not path.is_absolute() or ".." in path.parts or path == Path("/"):
                raise InvalidJob(f"STOWSTORE_JOB_SYSTEM names {str(path)!r}", hint="give absolute directories")
        return cls(system=tuple(system), sandbox=given.get("STOWSTORE_SANDBOX") or None, **sizes)
