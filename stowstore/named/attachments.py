"""Attachments: a volume leased and mounted for a job."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from stowstore.named.leases import Lease

__all__ = ["Attachment"]


class Attachment:
    """One volume, leased and mounted on the host for a job.

    ``path`` is the directory to bind: the volume's files, or those of one of its versions.  The lease is held by
    ``lease_fd``, which a job is to inherit together with whatever else `pass_fds` has, so that it lasts until the last
    process of the job has ended.  A context manager; `release` gives this process's part up.
    """

    def __init__(self, name: str, path: Path, *, read_only: bool, lease: Lease) -> None:
        self.name = name
        self.path = path
        self.read_only = read_only
        self._lease = lease

    @property
    def lease_fd(self) -> int:
        """The descriptor with the lease, inheritable; -1 once it was released."""
        return self._lease.descriptor

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Every descriptor a job is to inherit: the lease, and what shows that it is this job's."""
        return self._lease.descriptors

    def release(self) -> None:
        """Gives this process's part of the lease up; the mount ends by itself when nobody has one.  Idempotent."""
        self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
