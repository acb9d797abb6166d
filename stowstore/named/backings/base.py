"""What every backing of volumes does."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from attrs import frozen

from stowstore.named.record import BackingKind, VolumeRecord

__all__ = ["Backing", "Usage"]


@frozen(kw_only=True)
class Usage:
    """What a volume holds: bytes and inodes, None where nobody has counted; ``is_lost`` of one that was in RAM."""

    used_bytes: int | None
    inodes: int | None = None
    is_lost: bool = False


class Backing(Protocol):
    """Provides the data of volumes.

    Methods get the volume's directory, which need not be the one its name stands for, and its record.  Whoever calls
    `attach`, `detach`, `resize` and `destroy` keeps everybody else from changing the volume meanwhile.
    """

    kind: ClassVar[BackingKind]
    enforced: ClassVar[bool]

    def probe(self, base: Path) -> None:
        """Raises `BackingUnsupported` if this host cannot provide it; found out by doing it, at most once a boot."""
        ...

    def create(self, directory: Path, record: VolumeRecord) -> VolumeRecord:
        """Fills the directory of a new volume; mounts nothing."""
        ...

    def attach(self, directory: Path, record: VolumeRecord) -> Path:
        """Mounts the volume unless it is mounted, and returns the directory its files are in."""
        ...

    def is_attached(self, directory: Path) -> bool:
        """Whether the volume is mounted."""
        ...

    def detach(self, directory: Path, record: VolumeRecord, *, force: bool = False) -> None:
        """Unmounts the volume if it is mounted; with ``force`` lazily, whoever works in it.

        Raises:
            VolumeInUse: somebody works in it.
        """
        ...

    def resize(self, directory: Path, record: VolumeRecord, size: int, inodes: int | None) -> None:
        """Makes the volume so large; the record is saved by the caller.

        Raises:
            BelowUsed: it holds more.
        """
        ...

    def usage(self, directory: Path, record: VolumeRecord) -> Usage:
        """What the volume holds by its counters: never walks it, asks a daemon or mounts anything."""
        ...

    def exact_usage(self, directory: Path, record: VolumeRecord) -> Usage:
        """What the volume holds at this moment."""
        ...

    def recover(self, directory: Path, record: VolumeRecord) -> None:
        """Cleans up after a crash or a reboot."""
        ...

    def destroy(self, directory: Path, record: VolumeRecord) -> None:
        """Deletes what lies outside the directory of a volume that is mounted no more."""
        ...
