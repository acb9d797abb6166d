"""What can go wrong with records, in the words of the taxonomy."""

from __future__ import annotations

from typing import Any

from datastore.errors import AlreadyExists, NotFound, StoreError

__all__ = [
    "FileChanged",
    "InvalidRecord",
    "NoSuchRecord",
    "RecordCollision",
    "RecordConflict",
    "RecordDamaged",
    "RecordError",
    "RecordFormatTooNew",
    "RelatedMissing",
]


class RecordError(StoreError):
    """The root of what records add to the taxonomy."""


class NoSuchRecord(RecordError, NotFound):
    """There is no record of this uuid."""


class InvalidRecord(RecordError, ValueError):
    """A directory is no record, or holds what a record cannot: the message names the file."""


class RecordCollision(RecordError, AlreadyExists):
    """Two records claim one uuid: their headers differ, and neither replaces the other."""


class RecordConflict(RecordError):
    """Others kept on changing the record while it was being written; nothing was lost, trying again may help."""

    default_retryable = True


class FileChanged(RecordError):
    """A file kept on changing while it was read, so no state of it could be sent."""

    default_retryable = True


class RecordDamaged(RecordError):
    """What is stored is not what the manifest says, or the manifest is none that may be trusted."""


class RecordFormatTooNew(RecordError):
    """A newer release wrote this; this one cannot read it safely."""


class RelatedMissing(RecordError, NotFound):
    """Related records could not be found; ``uuids`` lists them, and everything else was done."""

    def __init__(self, message: str, *, uuids: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(message, **more)
        self.uuids = uuids

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "uuids": self.uuids}
