"""What can go wrong with jobs, in the words of the taxonomy."""

from __future__ import annotations

from datastore.errors import ConfigError, ErrorCode, StoreError, Unsupported

__all__ = ["InvalidJob", "JobError", "JobNotStarted", "NoSandbox"]


class JobError(StoreError):
    """The root of what jobs add to the taxonomy; whatever it is, the command has not been started."""


class InvalidJob(JobError, ConfigError):
    """What was asked for cannot be a job: a path, a volume, a variable or an upload that cannot be."""


class NoSandbox(JobError, Unsupported):
    """This machine has nothing to isolate a job with."""


class JobNotStarted(JobError):
    """The isolation could not be set up; what its program said is on standard error."""

    code = ErrorCode.GENERIC
