"""Versions: volumes that never change."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from stowstore.mounts.options import MountOptions
from stowstore.versions.errors import NotCommitted
from stowstore.volumes.blocking import Blocks
from stowstore.volumes.blocking_ro import BlockingROVolume
from stowstore.volumes.files import Files
from stowstore.volumes.registry import Key
from stowstore.volumes.threads import in_thread
from stowstore.volumes.volume import Access, Volume

if TYPE_CHECKING:
    from stowstore.volumes.rw import RWVolume

__all__ = ["ROVolume"]


@frozen(kw_only=True)
class ROVolume(Volume):
    """An immutable version, made by `RWVolume.commit`, `finalize` and `fork`; `locator` names and verifies it.

    `fork` is the way to a working copy of it.  ``files`` opens it when it is first used; `open` does that in the
    background, and ``async with`` closes it, too.
    """

    access: ClassVar[Access] = Access.RO
    blocking: ClassVar[Blocks[BlockingROVolume]] = Blocks(BlockingROVolume)

    def __attrs_post_init__(self) -> None:
        if self.index is None:
            raise NotCommitted(f"volume {self.name!r} has no index, so it is no version", hint="commit it first")
        super().__attrs_post_init__()

    @property
    def files(self) -> Files:
        """The files by path, in this process and without writing; opens the version, which reads its manifest."""
        return self.blocking.files

    async def open(self, *, cache_dir: str | os.PathLike[str] | None = None, timeout: float | None = None) -> Files:
        """Opens the version in this process; its index and its data are fetched as they are read.

        ``cache_dir`` keeps what was read for the next process; without it a bounded cache in memory does for this one.
        """
        return await in_thread(self.blocking.open, cache_dir=cache_dir, timeout=timeout)

    async def mount(
        self,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        attr_cache: float = 60.0,
        entry_cache: float = 60.0,
        dir_entry_cache: float = 60.0,
        *,
        options: MountOptions | None = None,
    ) -> Path:
        """Mounts the version for reading and returns the path; any number of such mounts stand side by side.

        Like `RWVolume.mount`; ``mount_path`` None is ``~/volumes/NAME@VERSION``.  A version has no journal, so nothing
        is kept in ``meta_dir``.
        """
        return await in_thread(
            self.blocking.mount,
            mount_path,
            meta_dir,
            cache_dir,
            timeout,
            attr_cache,
            entry_cache,
            dir_entry_cache,
            options=options,
        )

    async def fork(
        self,
        name: str | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> RWVolume:
        """A new volume that goes on from here: one small write, whatever the size, and all bytes shared.

        ``name`` None makes one up.  ``meta_dir`` is where its journal goes when this process opens it.

        Raises:
            RootInUse: there is a volume of that name.
            NoSuchVersion: this version is gone.
        """
        return await in_thread(self.blocking.fork, name, meta_dir, timeout)

    async def __aenter__(self) -> Files:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """The id of the version, which sorts by the time it was made."""
        return self.blocking._newest().id

    def _key(self) -> Key:
        name = self.blocking._newest()
        return Key(self.bucket, name.volume, name.id)

    def _blocking(self) -> BlockingROVolume:
        return BlockingROVolume(self)
