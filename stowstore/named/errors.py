"""What can go wrong with named volumes, in the words of the taxonomy.

Every class has a stable ``reason``, which programs may look at; messages keep their beginning.
"""

from __future__ import annotations

from typing import ClassVar

from datastore.errors import (
    AlreadyExists,
    ConfigError,
    ErrorCode,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    Unsupported,
)

__all__ = [
    "BackingUnsupported",
    "BelowUsed",
    "InvalidName",
    "InvalidSize",
    "InvalidType",
    "NamedError",
    "NoSpace",
    "NotAllowed",
    "NotPermitted",
    "VolumeBusy",
    "VolumeCorrupt",
    "VolumeExists",
    "VolumeInUse",
    "VolumeNotFound",
]


class NamedError(StoreError):
    """The root of what named volumes add to the taxonomy."""

    reason: ClassVar[str] = "failure"


class InvalidName(NamedError, ConfigError):
    """What is given cannot name a volume."""

    reason = "invalid_name"


class InvalidSize(NamedError, ConfigError):
    """What is given is no size; ``problem`` says why, from a closed list.

    ``empty``, ``signed``, ``bad_number``, ``unknown_unit``, ``not_positive``, ``overflow``.
    """

    reason = "invalid_size"

    def __init__(self, message: str, *, problem: str = "bad_number", **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.problem = problem

    def _state(self) -> dict[str, object]:
        return {**super()._state(), "problem": self.problem}


class InvalidType(NamedError, ConfigError):
    """There is no such type of volume, or no such backing for it."""

    reason = "invalid_type"


class VolumeExists(NamedError, AlreadyExists):
    """The name is taken; what has it was not touched."""

    reason = "exists"


class VolumeNotFound(NamedError, NotFound):
    """There is no volume of this name."""

    reason = "not_found"


class VolumeInUse(NamedError, PreconditionFailed):
    """Jobs hold the volume; ``jobs`` are their ids, as far as they are known."""

    reason = "in_use"

    def __init__(self, message: str, *, jobs: tuple[str, ...] = (), **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.jobs = jobs

    def _state(self) -> dict[str, object]:
        return {**super()._state(), "jobs": self.jobs}


class BelowUsed(NamedError, LimitExceeded):
    """A size below what the volume holds; ``requested`` and ``used`` are in bytes."""

    reason = "below_used"

    def __init__(self, message: str, *, requested: int = 0, used: int = 0, **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.requested = requested
        self.used = used

    def _state(self) -> dict[str, object]:
        return {**super()._state(), "requested": self.requested, "used": self.used}


class NoSpace(NamedError, LimitExceeded):
    """The host has not the room, on disk or in memory, that a volume of this size may need."""

    reason = "no_space"


class NotAllowed(NamedError, LimitExceeded):
    """More volumes, or larger ones, than the operator of this host allows."""

    reason = "not_allowed"


class VolumeBusy(NamedError, PreconditionFailed):
    """Another command is changing the volume, and did not end in time."""

    reason = "busy"
    default_retryable = True


class BackingUnsupported(NamedError, Unsupported):
    """This host cannot provide the backing that is asked for, or the backing cannot do what is asked."""

    reason = "unsupported"


class NotPermitted(NamedError, PermissionDenied):
    """This user may not do that with the registry."""

    reason = "permission"


class VolumeCorrupt(NamedError):
    """The record or the data of a volume cannot be read; nothing of it was changed."""

    reason = "corrupt"
    code = ErrorCode.GENERIC
