"""`NamedVolumes`: the volumes of a host, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stowstore.named.attachments import Attachment
from stowstore.named.backings import backing_of, choose_backing
from stowstore.named.backings.chunked import ChunkedBacking
from stowstore.named.errors import BackingUnsupported
from stowstore.named.leases import Access, Holder, forget_dead, take
from stowstore.named.names import check_name
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.registry import Registry
from stowstore.named.sizes import DEFAULT_SIZE, parse_size

__all__ = ["Attachment", "NamedVolumes"]


class NamedVolumes:
    """The volumes of a host; thread-safe, and safe beside other processes that use the same registry.

    ``base`` is the registry's directory: where ``$STOWSTORE_ROOT`` says, else ``/var/lib/stowstore/volumes`` for root,
    and below the user's data directory for others.
    """

    def __init__(self, base: Path | str | None = None) -> None:
        self._registry = Registry(None if base is None else Path(base))

    @property
    def base(self) -> Path:
        """The registry's directory."""
        return self._registry.base

    def create(
        self,
        name: str,
        *,
        size: str | int = DEFAULT_SIZE,
        volume_type: VolumeType | str = VolumeType.FILESYSTEM,
        inodes: int | None = None,
        backing: BackingKind | str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> VolumeRecord:
        """Makes a volume."""
        check_name(name)
        size_bytes = parse_size(str(size))
        type_ = VolumeType(volume_type)
        chosen, _ = choose_backing(self.base, type_, None if backing is None else BackingKind(backing), size_bytes)
        record = VolumeRecord(
            name=name,
            type=type_,
            size=str(size),
            size_bytes=size_bytes,
            inodes=inodes,
            backing=chosen.kind,
            enforced=chosen.enforced,
            labels=labels or {},
        )
        return self._registry.publish(record, lambda directory: chosen.create(directory, record))

    def attach(
        self, name: str, *, access: Access = Access.RW, holder: Holder, snapshot: str | None = None
    ) -> Attachment:
        """Leases a volume for a job and mounts it on the host, unless it is mounted.

        ``snapshot`` is a version, the beginning of its id, or a tag: that state is attached, for reading.

        Raises:
            VolumeNotFound: there is no such volume; nothing was mounted.
            NoSuchVersion: it has no such version.
            StoreError, OSError: it cannot be mounted; no lease is left.
        """
        with self._registry.changing(name) as record:
            directory = self._registry.directory(name)
            forget_dead(directory)
            lease = take(directory, holder)
            try:
                backing = backing_of(record.backing)
                if snapshot is None:
                    path = backing.attach(directory, record)
                elif isinstance(backing, ChunkedBacking):
                    from stowstore.named.versions import resolve

                    found = resolve(directory, record, snapshot)
                    path = backing.attach_version(directory, record, str(found.locator), found.id)
                else:
                    raise BackingUnsupported(
                        f"volume {name} has no versions: its backing is {record.backing}",
                        hint="only chunked volumes have",
                    )
            except BaseException:
                lease.release()
                raise
        return Attachment(name, path, read_only=snapshot is not None or access is Access.RO, lease=lease)
