"""Named volumes: size-limited storage that jobs of a host mount by name.

`NamedVolumes` is the registry of a host; `stowstore volume` and `stowstore run` are the same on the command line.
"""

from stowstore.named.info import VolumeInfo
from stowstore.named.leases import Access, Holder
from stowstore.named.record import BackingKind, VolumeRecord, VolumeType
from stowstore.named.volumes import Attachment, NamedVolumes

__all__ = ["Access", "Attachment", "BackingKind", "Holder", "NamedVolumes", "VolumeInfo", "VolumeRecord", "VolumeType"]
