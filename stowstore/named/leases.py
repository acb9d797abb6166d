"""Leases: who uses a volume, held by the kernel.

A job holds ``flock(LOCK_SH)`` on ``<volume>/.lock`` by a descriptor that its processes inherit, so a lease ends with
the last of them, SIGKILL included, and outlives the process that took it.  Removing and shrinking take ``LOCK_EX``.
The files under ``<volume>/jobs/`` say who the holders are, for people; each is locked by its holder as well, so that
those that are left over are known.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Self

from attrs import asdict, field, frozen

from stowstore.named.errors import VolumeBusy, VolumeInUse
from stowstore.named.locks import acquire, is_free, open_lock, try_acquire

__all__ = ["JOBS", "LOCK", "Access", "Holder", "Lease", "exclusive", "forget_dead", "holders", "is_leased", "take"]

#: The file whose lock is the lease, and the directory that says who holds it.
LOCK: Final = ".lock"
JOBS: Final = "jobs"

#: How long a lease is waited for while a daemon that is not needed any more ends, seconds.
_PATIENCE: Final = 30.0

#: How long whoever needs a volume alone waits for those that only look whether it is free, seconds.
_LOOKS: Final = 0.05

#: How long for one that no job has: a daemon that nobody needs any more keeps it until it has ended, seconds.
_ENDING: Final = 15.0

_WAIT: Final = "wait for them; stowstore volume jobs shows what they are"

_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Access(StrEnum):
    """How a job uses a volume."""

    RW = "rw"
    RO = "ro"


@frozen(kw_only=True)
class Holder:
    """Who holds a lease, for display: a job's id, the process that started it, its command, and when."""

    job: str
    pid: int = field(factory=os.getpid)
    command: str = ""
    started: float = field(factory=time.time)
    access: Access = field(default=Access.RW, converter=Access)

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """Reads what `take` has written.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        return cls(
            job=str(data["job"])[:200],
            pid=int(data["pid"]),
            command=str(data["command"])[:4096],
            started=float(data["started"]),
            access=data["access"],
        )


class Lease:
    """A lease that was taken; it ends with `release`, or with the last process that has inherited its descriptors."""

    def __init__(self, descriptor: int, card: int, path: Path) -> None:
        self._descriptor = descriptor
        self._card = card
        self._path = path

    @property
    def descriptor(self) -> int:
        """The lease itself."""
        return self._descriptor

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a job is to inherit: the lease, and the lock that shows who has it."""
        return (self._descriptor, self._card)

    def release(self) -> None:
        """Gives this process's part up; a job that has inherited it keeps it.  Releasing again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        card, self._card = self._card, -1
        if descriptor < 0:
            return
        os.close(card)
        # Whoever inherited the card still has it locked, and is shown.
        if is_free(self._path):
            self._path.unlink(missing_ok=True)
        os.close(descriptor)


def take(directory: Path, holder: Holder, *, patience: float = _PATIENCE) -> Lease:
    """Takes a lease on the volume in a directory, waiting while somebody has it alone.

    Raises:
        VolumeBusy: somebody has had it alone for too long.
    """
    jobs = directory / JOBS
    jobs.mkdir(mode=0o755, exist_ok=True)
    path, card = _card(jobs, holder)
    try:
        descriptor = open_lock(directory / LOCK)
        try:
            if not acquire(descriptor, shared=True, patience=patience):
                raise VolumeBusy(
                    f"volume {directory.name} is being changed by another command", hint="try again when it has ended"
                )
            os.set_inheritable(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
        os.set_inheritable(card, True)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(card)
        raise
    return Lease(descriptor, card, path)


@contextlib.contextmanager
def exclusive(directory: Path, doing: str, *, hint: str = _WAIT) -> Iterator[None]:
    """Has the volume in a directory alone.

    Raises:
        VolumeInUse: jobs use it; the message names them.
    """
    descriptor = open_lock(directory / LOCK)
    try:
        end = time.monotonic() + _ENDING
        while not acquire(descriptor, patience=_LOOKS):
            found = holders(directory)
            if not found and time.monotonic() < end:
                continue
            named = ", ".join(holder.job for holder in found) or "unknown"
            raise VolumeInUse(
                f"volume is currently in use by {max(len(found), 1)} job(s): {named};"
                f" {directory.name} cannot be {doing}",
                jobs=tuple(holder.job for holder in found),
                hint=hint,
            )
        yield
    finally:
        os.close(descriptor)


def is_leased(directory: Path) -> bool:
    """Whether a job uses the volume in a directory; without files that say who, nobody does and nothing is locked."""
    if not _cards(directory):
        return False
    return not is_free(directory / LOCK)


def holders(directory: Path) -> list[Holder]:
    """Those that hold a lease now, the first to come first."""
    found: list[Holder] = []
    for path in _cards(directory):
        if not is_free(path):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                found.append(Holder.from_data(json.loads(path.read_bytes())))
    return sorted(found, key=lambda holder: (holder.started, holder.job))


def forget_dead(directory: Path) -> None:
    """Removes what holders have left that are no more, after a crash or a reboot."""
    for path in _cards(directory):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if try_acquire(descriptor):
                    path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _cards(directory: Path) -> list[Path]:
    try:
        with os.scandir(f"{directory}/{JOBS}") as entries:
            return [Path(entry.path) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _card(jobs: Path, holder: Holder) -> tuple[Path, int]:
    """The file that says who the holder is, locked."""
    name = holder.job if _SAFE.fullmatch(holder.job) else blake2b(holder.job.encode(), digest_size=12).hexdigest()
    content = json.dumps(asdict(holder)).encode()
    number = 0
    while True:
        # One job may hold a volume twice, as two versions of it.
        path = jobs / (f"{name}.json" if not number else f"{name}.{number}.json")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if try_acquire(descriptor) and _is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, content)
            return path, descriptor
        os.close(descriptor)
        number += 1
        if number > 10_000:
            raise VolumeBusy(f"job {holder.job!r} holds {jobs.parent.name} ten thousand times")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one at its path, and not one that was just removed."""
    with contextlib.suppress(FileNotFoundError):
        here, there = os.fstat(descriptor), os.stat(path)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    return False
