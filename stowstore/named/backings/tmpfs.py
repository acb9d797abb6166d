"""Volumes in memory by the kernel's tmpfs, where there is no FUSE and somebody is root."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar, Final

from stowstore.mounts.counters import Counters, read_counters, write_counters
from stowstore.named.backings.base import Usage
from stowstore.named.backings.mounting import is_mounted, run, unmount, used_of
from stowstore.named.backings.probing import probed
from stowstore.named.errors import BelowUsed
from stowstore.named.record import BackingKind, VolumeRecord
from stowstore.named.registry import DATA, area_of
from stowstore.named.room import require_memory

__all__ = ["TmpfsBacking"]

_COUNTERS: Final = "counters"
_USED: Final = "was-mounted"


class TmpfsBacking:
    """See `stowstore.named.backings.base.Backing`.  The kernel rounds the size up to whole pages."""

    kind: ClassVar[BackingKind] = BackingKind.TMPFS
    enforced: ClassVar[bool] = True

    def probe(self, base: Path) -> None:
        probed(base, self.kind, _try_mount)

    def create(self, directory: Path, record: VolumeRecord) -> VolumeRecord:
        # The kernel takes any size, and means no limit by zero.
        require_memory(record.size_bytes)
        write_counters(area_of(directory, record) / _COUNTERS, Counters(used_bytes=0, inodes=1, is_final=True))
        return record

    def attach(self, directory: Path, record: VolumeRecord) -> Path:
        path = directory / DATA
        if not is_mounted(path):
            run(
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"{_options(record.size_bytes, record.inodes)},mode=0755",
                "tmpfs",
                str(path),
            )
            # From now on there is something to lose.
            (area_of(directory, record) / _USED).touch()
        return path

    def is_attached(self, directory: Path) -> bool:
        return is_mounted(directory / DATA)

    def detach(self, directory: Path, record: VolumeRecord, *, force: bool = False) -> None:
        unmount(directory / DATA, record.name, force=force)

    def resize(self, directory: Path, record: VolumeRecord, size: int, inodes: int | None) -> None:
        path = directory / DATA
        if not is_mounted(path):
            return
        used = used_of(path).used_bytes or 0
        if used > size:
            raise BelowUsed(
                f"the volume holds {used} bytes, and {size} are asked for",
                requested=size,
                used=used,
                hint="delete files first",
            )
        run("mount", "-o", f"remount,{_options(size, inodes)}", str(path))

    def usage(self, directory: Path, record: VolumeRecord) -> Usage:
        if is_mounted(directory / DATA):
            return used_of(directory / DATA)
        found = read_counters(area_of(directory, record) / _COUNTERS)
        lost = (area_of(directory, record) / _USED).exists()
        return Usage(used_bytes=0, inodes=None if found is None else found.inodes, is_lost=lost)

    def exact_usage(self, directory: Path, record: VolumeRecord) -> Usage:
        return self.usage(directory, record)

    def recover(self, directory: Path, record: VolumeRecord) -> None:
        """Nothing: what was in memory is gone, and listings say so."""

    def destroy(self, directory: Path, record: VolumeRecord) -> None:
        shutil.rmtree(area_of(directory, record), ignore_errors=True)


def _options(size: int, inodes: int | None) -> str:
    # One inode is the directory itself, which the limit counts as well.
    return f"size={size},nosuid,nodev" + ("" if inodes is None else f",nr_inodes={inodes}")


def _try_mount(scratch: Path) -> None:
    run("mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", str(scratch))
    run("umount", str(scratch))
