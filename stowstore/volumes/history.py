"""What volumes say of their past: entries of the log, changes, usage, merges."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from stowstore.versions.changes import Change, ChangeKind
from stowstore.versions.merging import Conflicts

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume

__all__ = ["Change", "ChangeKind", "Conflicts", "LogEntry", "Merge", "VolumeUsage"]


@frozen(kw_only=True)
class LogEntry:
    """One version of a log; ``parents`` are the locators of those it was made from, two for a merge."""

    id: str
    version: ROVolume
    created: datetime
    parents: tuple[str, ...]

    @property
    def message(self) -> str | None:
        return self.version.message


@frozen(kw_only=True)
class Merge:
    """What a merge came to: the newest version, and the paths that were in conflict and decided as was asked."""

    version: ROVolume
    conflicts: tuple[str, ...] = ()


@frozen(kw_only=True)
class VolumeUsage:
    """How much there is, in bytes and counts.

    ``used_bytes``, ``inode_count`` and ``index_bytes`` are those of the version, or of an open working copy as it is
    now.  ``versions`` counts those the volume has published.  ``root_data_bytes`` and ``root_index_bytes`` are what
    the whole root stores for all its volumes, after compression and with everything stored once.
    """

    used_bytes: int
    inode_count: int
    index_bytes: int
    uncommitted_inodes: int
    versions: int
    root_data_bytes: int
    root_index_bytes: int
