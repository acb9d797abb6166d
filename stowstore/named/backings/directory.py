"""Volumes as plain directories, where nothing can be mounted: nobody enforces their size, and every listing says so."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import ClassVar, Final

from stowstore.mounts.counters import Counters, read_counters, write_counters
from stowstore.named.backings.base import Usage
from stowstore.named.errors import BelowUsed
from stowstore.named.record import BackingKind, VolumeRecord
from stowstore.named.registry import DATA, area_of
from stowstore.named.room import require_disk

__all__ = ["DirectoryBacking"]

_COUNTERS: Final = "counters"


class DirectoryBacking:
    """See `stowstore.named.backings.base.Backing`.  What it holds is measured when somebody asks for it exactly."""

    kind: ClassVar[BackingKind] = BackingKind.DIRECTORY
    enforced: ClassVar[bool] = False

    def probe(self, base: Path) -> None:
        """Nothing: there are directories everywhere."""

    def create(self, directory: Path, record: VolumeRecord) -> VolumeRecord:
        area = area_of(directory, record)
        require_disk(area, record.size_bytes)
        write_counters(area / _COUNTERS, Counters(used_bytes=0, inodes=1, is_final=True))
        return record

    def attach(self, directory: Path, record: VolumeRecord) -> Path:
        # What it holds from now on nobody knows before it is measured.
        (area_of(directory, record) / _COUNTERS).unlink(missing_ok=True)
        return directory / DATA

    def is_attached(self, directory: Path) -> bool:
        return True

    def detach(self, directory: Path, record: VolumeRecord, *, force: bool = False) -> None:
        """Nothing: it is not mounted."""

    def resize(self, directory: Path, record: VolumeRecord, size: int, inodes: int | None) -> None:
        used = self.exact_usage(directory, record).used_bytes or 0
        if used > size:
            raise BelowUsed(
                f"the volume holds {used} bytes, and {size} are asked for",
                requested=size,
                used=used,
                hint="delete files first",
            )

    def usage(self, directory: Path, record: VolumeRecord) -> Usage:
        found = read_counters(area_of(directory, record) / _COUNTERS)
        return Usage(used_bytes=None) if found is None else Usage(used_bytes=found.used_bytes, inodes=found.inodes)

    def exact_usage(self, directory: Path, record: VolumeRecord) -> Usage:
        used, inodes = _measured(directory / DATA)
        write_counters(area_of(directory, record) / _COUNTERS, Counters(used_bytes=used, inodes=inodes))
        return Usage(used_bytes=used, inodes=inodes)

    def recover(self, directory: Path, record: VolumeRecord) -> None:
        """Measures it, as nobody has while it was used."""
        self.exact_usage(directory, record)

    def destroy(self, directory: Path, record: VolumeRecord) -> None:
        shutil.rmtree(area_of(directory, record), ignore_errors=True)


def _measured(top: Path) -> tuple[int, int]:
    """Bytes on the disk and inodes below a directory, links counted once."""
    seen: set[tuple[int, int]] = set()
    size = 0
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            try:
                found = os.lstat(os.path.join(directory, name))
            except FileNotFoundError:
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                # A directory costs nothing in the other backings either.
                size += 0 if stat.S_ISDIR(found.st_mode) else found.st_blocks * 512
    return size, len(seen) + 1
