"""What can go wrong with volumes and their versions, in the words of the taxonomy."""

from __future__ import annotations

from datastore.errors import AlreadyExists, NotFound, StoreError

__all__ = [
    "CorruptManifest",
    "FormatTooNew",
    "LeaseHeld",
    "LeaseLost",
    "MergeConflict",
    "NoSuchVersion",
    "NoSuchVolume",
    "NotCommitted",
    "RootInUse",
    "Unrelated",
    "VolumeError",
]


class VolumeError(StoreError):
    """The root of what volumes add to the taxonomy."""


class NoSuchVolume(VolumeError, NotFound):
    """The root holds no volume of this name."""


class NoSuchVersion(VolumeError, NotFound):
    """The volume has no such version or tag."""


class RootInUse(VolumeError, AlreadyExists):
    """The prefix holds something else, or a volume of this name already."""


class FormatTooNew(VolumeError):
    """A newer release wrote this root; this one cannot read it safely."""


class CorruptManifest(VolumeError):
    """A manifest or reference is not what its name or digest says."""


class NotCommitted(VolumeError):
    """There is no version yet to do this with: commit first."""


class LeaseHeld(VolumeError, AlreadyExists):
    """Somebody else is writing the volume; the message says who and since when."""


class LeaseLost(VolumeError):
    """The lease ran out or was taken: what was not published stays in the journal, and is not published."""


class MergeConflict(VolumeError):
    """Both sides changed the same paths; ``paths`` lists them."""

    def __init__(self, message: str, *, paths: tuple[str, ...] = (), **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.paths = paths

    def _state(self) -> dict[str, object]:
        return {**super()._state(), "paths": self.paths}


class Unrelated(VolumeError):
    """The two versions have no common ancestor, so there is nothing to merge against."""
