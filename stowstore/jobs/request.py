"""What a job is: a command, the volumes it sees and where, its environment, and what it may use.

A volume is written ``NAME[@SNAP][:/path][:ro|:rw]``.  Everything is checked here, before anything is locked or mounted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Final

from attrs import field, frozen

from stowstore.jobs.errors import InvalidJob
from stowstore.named.errors import InvalidName
from stowstore.named.leases import Access
from stowstore.named.names import is_name

__all__ = ["VOLUMES", "WORK", "Job", "VolumeRequest", "WhenOrphaned", "merged", "parse_variable", "parse_volume"]

#: Where a job's volumes are unless it says otherwise, and the directory it starts in.
VOLUMES: Final = PurePosixPath("/volumes")
WORK: Final = PurePosixPath("/work")

#: What a volume can be written as.
_FORM: Final = "NAME[@SNAP][:/path][:ro]"

#: Directories of the job that no volume may cover or be put into.
_RESERVED: Final = tuple(
    map(
        PurePosixPath,
        ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys"),
    )
)
_RESERVED_ALONE: Final = frozenset(
    map(PurePosixPath, ("/", "/home", "/opt", "/run", "/tmp", "/usr", "/var", "/var/tmp", "/volumes", "/work"))
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class WhenOrphaned(StrEnum):
    """What becomes of a job whose supervisor is killed."""

    KILL = "kill"
    CONTINUE = "continue"


@frozen(kw_only=True)
class VolumeRequest:
    """One volume of a job: which, at which of its versions, where the job sees it, and how."""

    name: str
    snapshot: str | None = None
    path: PurePosixPath
    access: Access

    def __str__(self) -> str:
        version = "" if self.snapshot is None else f"@{self.snapshot}"
        return f"{self.name}{version}:{self.path}:{self.access}"


def merged(requests: Iterable[VolumeRequest]) -> tuple[VolumeRequest, ...]:
    """The requests of one job; the same one given twice counts once.

    Raises:
        InvalidJob: a volume twice in different ways, two volumes at one path, or one inside another.
    """
    found: dict[str, VolumeRequest] = {}
    for request in requests:
        known = found.setdefault(request.name, request)
        if known != request:
            raise InvalidJob(
                f"volume {request.name} is asked for twice: as {known} and as {request}", hint="give it once"
            )
    placed = sorted(found.values(), key=lambda request: request.path.parts)
    # Sorted by their parts, whatever lies inside a path follows it directly.
    for upper, lower in pairwise(placed):
        if lower.path == upper.path:
            raise InvalidJob(f"volumes {upper.name} and {lower.name} are both to be at {upper.path}")
        if lower.path.is_relative_to(upper.path):
            raise InvalidJob(
                f"volume {lower.name} at {lower.path} would lie inside volume {upper.name} at {upper.path}"
            )
    return tuple(found.values())


@frozen(kw_only=True)
class Job:
    """A command and what it is given.

    ``environment`` is added to a small one of the job's own.  ``uploads`` are files, and directories whose content is
    taken; they are copied into ``/work``.  ``memory`` limits the job, in bytes.  ``scratch`` limits each of ``/work``,
    ``/tmp`` and ``/dev/shm``, in bytes; without it a job with volumes gets `with_volumes`, and one without gets
    `without_volumes`, of `stowstore.jobs.settings`.
    """

    command: tuple[str, ...]
    volumes: tuple[VolumeRequest, ...] = field(default=(), converter=merged)
    environment: Mapping[str, str] = field(factory=dict, repr=False)
    files: tuple[Path, ...] = ()
    directories: tuple[Path, ...] = ()
    workdir: PurePosixPath = field(default=WORK, converter=PurePosixPath)
    memory: int | None = None
    scratch: int | None = None
    when_orphaned: WhenOrphaned = field(default=WhenOrphaned.KILL, converter=WhenOrphaned)

    def __attrs_post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise InvalidJob("must specify a command", hint="such as: stowstore run --volume=data -- ls /volumes/data")
        for word in self.command:
            _refuse_nul(word, "the command")
        for name, value in self.environment.items():
            _check_variable(name)
            _refuse_nul(value, f"the variable {name}")
        _check_absolute(self.workdir, "the working directory")
        for limit, what in ((self.memory, "memory"), (self.scratch, "scratch")):
            if limit is not None and limit <= 0:
                raise InvalidJob(f"{what} limit must be positive, not {limit}")


def parse_volume(text: str) -> VolumeRequest:
    """Reads ``NAME[@SNAP][:/path][:ro|:rw]``.  A snapshot is read-only, and at ``/volumes/NAME`` unless it says where.

    Raises:
        InvalidName: no volume can be called so.
        InvalidJob: anything else is wrong with it.
    """
    _refuse_nul(text, "a volume")
    who, *rest = text.split(":")
    name, at, snapshot = who.partition("@")
    if not name:
        raise InvalidName("volume name cannot be empty", hint=f"write --volume {_FORM}")
    if not is_name(name):
        raise InvalidName(f"invalid volume name: {name[:80]!r}", hint=f"write --volume {_FORM}")
    if at and not snapshot:
        raise InvalidJob(f"volume {text!r} names no snapshot behind its @", hint=f"write --volume {_FORM}")
    mode = rest.pop() if rest and rest[-1] in tuple(Access) else None
    if len(rest) > 1 or (rest and not rest[0].startswith("/")):
        raise InvalidJob(f"volume {text!r} is not of the form {_FORM}", hint="a path in the job begins with /")
    if snapshot and mode == Access.RW:
        raise InvalidJob(
            f"volume {text!r}: a snapshot can only be read", hint="`stowstore volume clone` makes it writable"
        )
    return VolumeRequest(
        name=name,
        snapshot=snapshot or None,
        path=_checked_path(rest[0], text) if rest else VOLUMES / name,
        access=Access.RO if snapshot else Access(mode or Access.RW),
    )


def parse_variable(text: str, known: Mapping[str, str]) -> tuple[str, str]:
    """Reads ``NAME=VALUE``, or ``NAME`` for the value it has among those known.

    Raises:
        InvalidJob: it is neither, or there is no such variable.
    """
    name, given, value = text.partition("=")
    _check_variable(name)
    if given:
        return name, value
    if name not in known:
        raise InvalidJob(f"variable {name} is not set here", hint=f"give its value: --env {name}=VALUE")
    return name, known[name]


def _check_variable(name: str) -> None:
    if _VARIABLE.fullmatch(name) is None:
        raise InvalidJob(f"{name[:80]!r} cannot name a variable", hint="write --env NAME=VALUE")


def _checked_path(text: str, whole: str) -> PurePosixPath:
    if ".." in text.split("/"):
        raise InvalidJob(f"volume {whole!r}: a path in the job has no '..'")
    # Two slashes in front are something else to POSIX.
    path = PurePosixPath("/" + text.strip("/"))
    inside = next((top for top in _RESERVED if path.is_relative_to(top)), None)
    if path in _RESERVED_ALONE or path.is_relative_to("/usr") or path.is_relative_to(VOLUMES / ".meta") or inside:
        raise InvalidJob(f"volume {whole!r}: {path} is the job's own", hint=f"leave the path out for {VOLUMES}/NAME")
    return path


def _check_absolute(path: PurePosixPath, what: str) -> None:
    _refuse_nul(str(path), what)
    if not path.is_absolute():
        raise InvalidJob(f"{what} must be absolute in the job, not {str(path)!r}", hint=f"such as {WORK}")


def _refuse_nul(text: str, what: str) -> None:
    if "\0" in text:
        raise InvalidJob(f"{what} holds a null character")
