"""Volumes as an ext4 file system in a file, on a loop device, where there is no FUSE and somebody is root."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import ClassVar, Final

from stowstore.mounts.counters import Counters, read_counters, write_counters
from stowstore.named.backings.base import Usage
from stowstore.named.backings.mounting import is_mounted, run, unmount, used_of
from stowstore.named.backings.probing import probed
from stowstore.named.errors import BackingUnsupported, BelowUsed, InvalidSize, NoSpace, VolumeCorrupt
from stowstore.named.leases import is_leased
from stowstore.named.record import BackingKind, VolumeRecord
from stowstore.named.registry import DATA, area_of
from stowstore.named.room import require_disk
from stowstore.named.sizes import format_size
from stowstore.named.upstream import IMAGE

__all__ = ["LoopBacking"]

_COUNTERS: Final = "counters"

#: The smallest image that ext4 fits into, bytes.
_SMALLEST: Final = 256 << 10

#: e2fsck has found nothing, or has mended it.
_SOUND: Final = (0, 1)


class LoopBacking:
    """See `stowstore.named.backings.base.Backing`.  The size is that of the image; ext4 needs some of it."""

    kind: ClassVar[BackingKind] = BackingKind.LOOP
    enforced: ClassVar[bool] = True

    def probe(self, base: Path) -> None:
        probed(base, self.kind, _try_mount)

    def create(self, directory: Path, record: VolumeRecord) -> VolumeRecord:
        if record.size_bytes < _SMALLEST:
            raise InvalidSize(
                f"invalid size: a loop volume needs {format_size(_SMALLEST)}, not {record.size_bytes} bytes",
                problem="not_positive",
                hint="ask for more, or make FUSE available: a chunked volume can have any size",
            )
        area = area_of(directory, record)
        # Later writes would seem to succeed, and fail when they are flushed.
        require_disk(area, record.size_bytes)
        image = area / IMAGE
        _make_image(image, record.size_bytes, preallocated=record.preallocated, inodes=record.inodes)
        write_counters(area / _COUNTERS, Counters(used_bytes=0, inodes=1, is_final=True))
        return record

    def attach(self, directory: Path, record: VolumeRecord) -> Path:
        path = directory / DATA
        if is_mounted(path):
            return path
        image = _image_of(directory, record)
        if not image.is_file():
            raise VolumeCorrupt(f"volume {record.name} has lost its image {image}", hint="restore it from a backup")
        run("mount", "-t", "ext4", "-o", "loop,nosuid,nodev", str(image), str(path))
        return path

    def is_attached(self, directory: Path) -> bool:
        return is_mounted(directory / DATA)

    def detach(self, directory: Path, record: VolumeRecord, *, force: bool = False) -> None:
        path = directory / DATA
        if is_mounted(path):
            held = used_of(path)
            unmount(path, record.name, force=force)
            found = Counters(used_bytes=held.used_bytes or 0, inodes=held.inodes or 0, is_final=True)
            write_counters(area_of(directory, record) / _COUNTERS, found)

    def resize(self, directory: Path, record: VolumeRecord, size: int, inodes: int | None) -> None:
        if inodes != record.inodes:
            raise BackingUnsupported("the inodes of a loop volume are fixed when it is created")
        image = _image_of(directory, record)
        if size > record.size_bytes:
            require_disk(image.parent, size - record.size_bytes)
        if self.is_attached(directory):
            if is_leased(directory):
                self._grow_online(directory, image, size, record)
                return
            self.detach(directory, record)
        run("e2fsck", "-f", "-y", str(image), allowed=_SOUND)
        if size >= record.size_bytes:
            os.truncate(image, size)
            run("resize2fs", str(image))
            return
        try:
            # The file system first: an image that is cut off below it is lost.
            run("resize2fs", str(image), f"{size // 1024}K")
        except BackingUnsupported as error:
            used = self.usage(directory, record).used_bytes or 0
            raise BelowUsed(
                f"the volume holds {used} bytes, and {size} are asked for: {error.message}",
                requested=size,
                used=used,
                hint="delete files first",
            ) from error
        os.truncate(image, size)

    def usage(self, directory: Path, record: VolumeRecord) -> Usage:
        if is_mounted(directory / DATA):
            return used_of(directory / DATA)
        found = read_counters(area_of(directory, record) / _COUNTERS)
        return Usage(used_bytes=None) if found is None else Usage(used_bytes=found.used_bytes, inodes=found.inodes)

    def exact_usage(self, directory: Path, record: VolumeRecord) -> Usage:
        return used_of(self.attach(directory, record))

    def recover(self, directory: Path, record: VolumeRecord) -> None:
        """Nothing: the journal of ext4 is replayed by the next mount, and the kernel drops the loop device."""

    def destroy(self, directory: Path, record: VolumeRecord) -> None:
        shutil.rmtree(area_of(directory, record), ignore_errors=True)

    def _grow_online(self, directory: Path, image: Path, size: int, record: VolumeRecord) -> None:
        if size < record.size_bytes:
            raise BackingUnsupported(
                f"volume {record.name} is used, and ext4 shrinks only while nobody uses it", hint="wait for its jobs"
            )
        source = _source_of(directory / DATA)
        os.truncate(image, size)
        try:
            run("losetup", "-c", source)
            run("resize2fs", source)
        except BackingUnsupported as error:
            os.truncate(image, record.size_bytes)
            raise BackingUnsupported(
                f"volume {record.name} is used, and cannot grow meanwhile: {error.message}", hint="wait for its jobs"
            ) from error


def _image_of(directory: Path, record: VolumeRecord) -> Path:
    """The image of a volume; upstream keeps it in the volume's own directory."""
    image = area_of(directory, record) / IMAGE
    return directory / IMAGE if not image.exists() and (directory / IMAGE).exists() else image


def _make_image(image: Path, size: int, *, preallocated: bool, inodes: int | None) -> None:
    descriptor = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if preallocated:
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise NoSpace(f"No space left on device: {format_size(size)} cannot be set aside") from error
        else:
            os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    # Ten inodes are ext4's own.
    limit = [] if inodes is None else ["-N", str(inodes + 10)]
    # Discarding would give back what was set aside.
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", *limit, str(image))


def _source_of(path: Path) -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            if before.split(" ")[4] == str(path):
                return after.split(" ")[1]
    raise BackingUnsupported(f"nothing is mounted at {path}")


def _try_mount(scratch: Path) -> None:
    image, where = scratch / IMAGE, scratch / DATA
    where.mkdir()
    _make_image(image, 1 << 20, preallocated=False, inodes=None)
    run("mount", "-t", "ext4", "-o", "loop,nosuid,nodev", str(image), str(where))
    run("umount", str(where))
