"""Paths of ``universal_pathlib`` in stores and volumes: ``UPath("stow://s3/bucket/key")``."""

from __future__ import annotations

from typing import Any

from fsspec import register_implementation
from upath import UPath

from stowstore.interop.fsspec.store import StowFileSystem
from stowstore.interop.fsspec.urls import VolumePath as _VolumePlace
from stowstore.interop.fsspec.volume import VolumeFileSystem

__all__ = ["StowPath", "VolumePath"]

# How paths are taken apart is asked of the classes fsspec has loaded, and guessed where it has not.
register_implementation("stow", StowFileSystem, clobber=True)
register_implementation("stowvol", VolumeFileSystem, clobber=True)


class _Path(UPath):
    """A path whose text has the options its URL had."""

    __slots__ = ()

    def __str__(self) -> str:
        text = super().__str__()
        query = self.storage_options.get("query", "")
        return f"{text}?{query}" if query and "://" in text else text


class StowPath(_Path):
    """An object of a store, or what its key makes a directory."""

    __slots__ = ()


class VolumePath(_Path):
    """A file or directory of a volume or version."""

    __slots__ = ()

    @property
    def volume(self) -> str:
        """The address of the volume: ``ROOT#NAME@VERSION``."""
        query: str = self.storage_options.get("query", "")
        return _VolumePlace.parse(self.path).address(query)

    def commit(self, message: str | None = None) -> Any:
        """Publishes the volume the path is in, where it is written."""
        return self.fs.commit(self.path, message)
