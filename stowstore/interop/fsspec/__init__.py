"""Stores and volumes as file systems of fsspec, for everything that reads and writes through it.

``stow://s3/bucket/key`` is an object of any store, ``stowvol://s3/bucket/root#training@v1/data/part.parquet`` a file
of a version of a volume, or of a volume that is written.  Both names are registered by entry points, and by importing
this package where there are none.
"""

from typing import TYPE_CHECKING, Any

from fsspec import register_implementation

from stowstore.interop.fsspec.urls import store_url, volume_url

if TYPE_CHECKING:
    from stowstore.interop.fsspec.store import StowFileSystem
    from stowstore.interop.fsspec.volume import VolumeFileSystem

__all__ = ["StowFileSystem", "VolumeFileSystem", "store_url", "volume_url"]

# By name: a file system is imported when its first URL is opened.
register_implementation("stow", "stowstore.interop.fsspec.store.StowFileSystem")
register_implementation("stowvol", "stowstore.interop.fsspec.volume.VolumeFileSystem")


def __getattr__(name: str) -> Any:
    # Volumes need more than stores do.
    if name == "StowFileSystem":
        from stowstore.interop.fsspec.store import StowFileSystem

        return StowFileSystem
    if name == "VolumeFileSystem":
        from stowstore.interop.fsspec.volume import VolumeFileSystem

        return VolumeFileSystem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
