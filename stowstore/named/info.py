"""What listings show of a volume: its record, its counters, who uses it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from stowstore.named.backings.base import Usage
from stowstore.named.leases import Holder
from stowstore.named.record import VolumeRecord

__all__ = ["VolumeInfo"]


@frozen(kw_only=True)
class VolumeInfo:
    """A volume at one moment.

    ``problem`` says what is wrong with one whose record cannot be read; then only ``name`` and ``path`` are known.
    ``usage`` is from counters, at most half a second old.
    """

    name: str
    path: Path
    record: VolumeRecord | None
    usage: Usage = field(factory=lambda: Usage(used_bytes=None))
    jobs: tuple[Holder, ...] = ()
    is_mounted: bool = False
    problem: str | None = None

    @property
    def available_bytes(self) -> int | None:
        """What may still be written; None when nobody knows."""
        if self.record is None or self.usage.used_bytes is None:
            return None
        return max(self.record.size_bytes - self.usage.used_bytes, 0)

    @property
    def is_in_use(self) -> bool:
        """Whether a job has it."""
        return bool(self.jobs)

    def created_text(self) -> str:
        """When it was created, for people; ``unknown`` when nobody can tell."""
        created = None if self.record is None else self.record.created
        return "unknown" if created is None else created.astimezone(_local()).strftime("%Y-%m-%d %H:%M:%S")

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON; sizes are exact bytes, and ``size`` is what was asked for."""
        record = self.record
        jobs = [
            {"job": job.job, "pid": job.pid, "command": job.command, "access": job.access.value, "started": job.started}
            for job in self.jobs
        ]
        if record is None:
            return {"name": self.name, "path": str(self.path), "problem": self.problem, "job_count": len(jobs)}
        return {
            "name": record.name,
            "type": record.type.value,
            "size": record.size,
            "size_bytes": record.size_bytes,
            "created_time": record.created_time,
            "path": str(self.path),
            "mount_path": f"/volumes/{record.name}",
            "mounted": self.is_mounted,
            "job_count": len(jobs),
            "jobs": jobs,
            "used_bytes": self.usage.used_bytes,
            "available_bytes": self.available_bytes,
            "inodes": record.inodes,
            "inodes_used": self.usage.inodes,
            "enforced": record.enforced,
            "backing": record.backing.value,
            "labels": dict(record.labels),
            "head": record.head,
            "snapshots": record.snapshots,
            "parent": record.parent,
            "persistent": record.type.value != "memory",
            "lost": self.usage.is_lost,
            "problem": self.problem,
            # What filters for upstream's guides look at.
            "size_total": record.size_bytes,
            "size_used": self.usage.used_bytes,
        }


def _local() -> Any:
    return datetime.now(UTC).astimezone().tzinfo
