"""Working copies: volumes that are written."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, overload

from attrs import frozen

from stowstore.mounts.options import MountOptions
from stowstore.versions.address import VolumeAddress
from stowstore.volumes.blocking import Blocks
from stowstore.volumes.blocking_rw import BlockingRWVolume
from stowstore.volumes.files import Files
from stowstore.volumes.history import Conflicts, Merge
from stowstore.volumes.registry import registry
from stowstore.volumes.threads import in_thread
from stowstore.volumes.volume import Access, Volume

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume

__all__ = ["RWVolume"]


@frozen(kw_only=True)
class RWVolume(Volume):
    """A volume to be written, by one process at a time.

    `open` it, write its ``files``, `commit` as often as versions are wanted, and `finalize` or `close` it; or use
    ``async with``, which opens and closes.  The value itself never changes: `commit` returns the version as another.
    """

    access: ClassVar[Access] = Access.RW
    blocking: ClassVar[Blocks[BlockingRWVolume]] = Blocks(BlockingRWVolume)

    @property
    def locator(self) -> str | None:
        """The locator of the newest version this process knows of; None until something is committed."""
        key = self._key()
        opened = registry.find(key)
        if opened is None:
            return registry.last_locator(key) or self.index
        base = opened.session.base
        return None if base is None else str(VolumeAddress.locator(self.bucket, base.volume, base.name))

    async def open(
        self,
        *,
        meta_dir: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        read_only: bool = False,
        upload_delay: str | float | None = None,
        max_uploads: int = 50,
        timeout: float | None = None,
    ) -> Files:
        """Opens the volume in this process, on its newest version; opening again gives the same files.

        ``meta_dir`` keeps the journal, which the next open takes up after a crash, and ``cache_dir`` what is not yet
        uploaded and what was read; both are below the user's cache directory where not given, and in memory for a root
        in memory.  ``upload_delay`` (``"30s"``, or seconds) leaves young data alone that may yet be overwritten;
        ``max_uploads`` bounds parallel puts.  With ``read_only`` no lease is taken and the newest version is read.
        ``timeout`` is in seconds.

        Raises:
            LeaseHeld: another process writes it; the message says which, since when and where.
            RootInUse: the root's prefix holds something else, or a new volume's name is taken.
            VolumeError: it is open with other options, or the journal belongs to another version.
        """
        return await in_thread(
            self.blocking.open,
            meta_dir=meta_dir,
            cache_dir=cache_dir,
            read_only=read_only,
            upload_delay=upload_delay,
            max_uploads=max_uploads,
            timeout=timeout,
        )

    async def mount(
        self,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        writeback: bool = True,
        upload_delay: str | float | None = None,
        max_uploads: int = 50,
        attr_cache: float = 60.0,
        entry_cache: float = 60.0,
        dir_entry_cache: float = 60.0,
        read_only: bool = False,
        *,
        options: MountOptions | None = None,
    ) -> Path:
        """Mounts the volume and returns the path, which any program may use from then on.

        A daemon serves it, which ends with this process unless ``options`` say otherwise.  ``mount_path`` None is
        ``~/volumes/NAME``.  ``meta_dir``, ``cache_dir``, ``upload_delay`` and ``max_uploads`` are those of `open`.
        With ``writeback`` written data are uploaded in the background; without it a close or fsync answers when they
        are in the store.  ``attr_cache``, ``entry_cache`` and ``dir_entry_cache`` are how long the kernel may keep
        attributes, names and listings, in seconds.  With ``read_only`` the newest version is shown, beside a writer if
        there is one.  It is ready, or fails with the reason, within ``timeout`` seconds (60).

        Raises:
            Unsupported, PermissionDenied: this machine cannot mount; the hint says what is missing.
            LeaseHeld: another process writes the volume; the message says which.
            DeadlineExceeded: it was not ready in time; nothing is left of it.
            MountFailed: the path cannot be mounted on.
        """
        return await in_thread(
            self.blocking.mount,
            mount_path,
            meta_dir,
            cache_dir,
            timeout,
            writeback,
            upload_delay,
            max_uploads,
            attr_cache,
            entry_cache,
            dir_entry_cache,
            read_only,
            options=options,
        )

    async def close(self, *, discard: bool = False) -> None:
        """Closes it in this process; what is not committed stays in the journal, unless it is to be discarded."""
        await in_thread(self.blocking.close, discard=discard)

    async def commit(
        self,
        message: str | None = None,
        *,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> ROVolume:
        """Publishes the present state as a version, durable in the store, and goes on; equal states are one version.

        Data are uploaded first, the version becomes visible last.  A mounted volume stays mounted, its writers stand
        still for milliseconds; ``mount_path`` says where another process has mounted it.  Of a volume that is not open,
        ``meta_dir`` commits what the journal there holds.

        Raises:
            VolumeError: the volume is not open.
            LeaseLost: another writer has taken it; nothing was published.
            StoreError: the store failed; nothing was published and nothing is lost, try again.
        """
        return await in_thread(self.blocking.commit, message, mount_path=mount_path, meta_dir=meta_dir, timeout=timeout)

    async def finalize(
        self,
        message: str | None = None,
        *,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> ROVolume:
        """The last commit: publishes, then closes.  When it raises before the version is published, all stays open.

        A mounted volume is unmounted first, so that nothing more is written, and then published; when that fails,
        everything is in its journal, and it can be mounted or opened and finalized again.
        """
        return await in_thread(
            self.blocking.finalize, message, mount_path=mount_path, meta_dir=meta_dir, timeout=timeout
        )

    @overload
    async def fork(
        self,
        name: str | None = None,
        as_: Literal["rw"] = "rw",
        *,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> RWVolume: ...
    @overload
    async def fork(
        self,
        name: str | None,
        as_: Literal["ro"],
        *,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> ROVolume: ...
    @overload
    async def fork(
        self,
        name: str | None = None,
        *,
        as_: Literal["ro"],
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> ROVolume: ...
    async def fork(
        self,
        name: str | None = None,
        as_: Literal["rw", "ro"] = "rw",
        *,
        mount_path: str | os.PathLike[str] | None = None,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> RWVolume | ROVolume:
        """Another volume of the present state, uncommitted changes included; this one goes on as it was.

        ``as_="rw"`` gives a working copy, ``as_="ro"`` a version beside this volume's own line of versions.  All bytes
        are shared; with nothing uncommitted it is one small write.  A volume that is not open is forked at its newest
        version.  ``meta_dir`` is where the fork's journal goes when this process opens it.

        Raises:
            RootInUse: there is a volume of that name.
            NotCommitted: the volume is not open and has no version.
        """
        return await in_thread(self.blocking.fork, name, as_, mount_path=mount_path, meta_dir=meta_dir, timeout=timeout)

    async def merge(
        self, other: Volume | str, *, conflicts: Conflicts | str = Conflicts.FAIL, message: str | None = None
    ) -> Merge:
        """Takes in what another volume has changed since both were one, and publishes it as the newest version.

        What is uncommitted here is committed first.  Where both sides changed the same path differently, ``conflicts``
        says whether to refuse, or to keep ours or take theirs.  Costs what was changed; no data move.

        Raises:
            MergeConflict: ``paths`` lists where both sides differ; nothing was published.
            Unrelated: the two have no past in common.
            VolumeError: files are open.
        """
        return await in_thread(self.blocking.merge, other, conflicts=conflicts, message=message)

    async def recover(
        self,
        name: str,
        *,
        meta_dir: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        message: str | None = None,
    ) -> ROVolume:
        """Makes what a stranded journal holds a volume of its own, and commits it there.

        A journal is stranded when another writer has published since: its changes lie over a version that is no longer
        the newest.  The fork called ``name`` begins where they did; merge it to have them in this volume.

        Raises:
            VolumeError: the volume is open, or the journal holds no changes of it.
            RootInUse: there is a volume of that name.
            NoSuchVersion: the version the changes lie over has been pruned.
        """
        return await in_thread(self.blocking.recover, name, meta_dir=meta_dir, cache_dir=cache_dir, message=message)

    async def restore(self, version: Volume | str, *, message: str | None = None) -> ROVolume:
        """Makes an earlier state the newest version; what came in between stays in the log.

        What is uncommitted is committed first.  ``version`` is a version, its id or locator, or a tag.

        Raises:
            NoSuchVersion: there is none.
            VolumeError: files are open.
        """
        return await in_thread(self.blocking.restore, version, message=message)

    async def __aenter__(self) -> Files:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _blocking(self) -> BlockingRWVolume:
        return BlockingRWVolume(self)
