"""Volumes: versioned, forkable file systems in a store, as values that travel.

`Volume.new` declares one, `RWVolume.open` opens it, ``files`` are its files, `RWVolume.commit` publishes a version as
an `ROVolume`, and `ROVolume.fork` goes on from any version at the cost of one small write.
"""

from stowstore.volumes.files import DirEntry, Files
from stowstore.volumes.history import Change, ChangeKind, Conflicts, LogEntry, Merge, VolumeUsage
from stowstore.volumes.lineage import current_producer, reset_producer, set_producer
from stowstore.volumes.ro import ROVolume
from stowstore.volumes.rw import RWVolume
from stowstore.volumes.volume import Access, Volume

__all__ = [
    "Access",
    "Change",
    "ChangeKind",
    "Conflicts",
    "DirEntry",
    "Files",
    "LogEntry",
    "Merge",
    "ROVolume",
    "RWVolume",
    "Volume",
    "VolumeUsage",
    "current_producer",
    "reset_producer",
    "set_producer",
]
