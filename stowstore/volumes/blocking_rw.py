"""What a working copy can do, for plain scripts as well."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve

from datastore.errors import ConfigError
from stowstore.index.keys import ROOT_INODE
from stowstore.mounts.options import MountOptions
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.metastore import choose_kind
from stowstore.namespace.permissions import ROOT, PermissionChecks
from stowstore.versions.address import VolumeAddress
from stowstore.versions.errors import NoSuchVolume, NotCommitted, RootInUse, VolumeError
from stowstore.versions.manifest import VersionName
from stowstore.versions.merging import Conflicts
from stowstore.versions.migrating import migrate_volume
from stowstore.versions.options import SessionOptions
from stowstore.versions.recovering import recover_journal
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.volumes.arguments import (
    Directory,
    checked_switch,
    checked_uploads,
    directory,
    fork_name,
    forked_into,
    said,
    seconds_of,
    text_of,
    within,
)
from stowstore.volumes.blocking import BlockingVolume
from stowstore.volumes.files import Files
from stowstore.volumes.history import Merge
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.mounting import (
    ask,
    await_end,
    control_answers,
    default_mount_path,
    mount,
    published,
)
from stowstore.volumes.registry import OpenOptions, OpenVolume, registry
from stowstore.volumes.watching import tell

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume
    from stowstore.volumes.rw import RWVolume
    from stowstore.volumes.volume import Volume

__all__ = ["BlockingRWVolume", "hand_over"]


class BlockingRWVolume(BlockingVolume["RWVolume"]):
    """What a working copy can do."""

    def open(
        self,
        *,
        meta_dir: Directory = None,
        cache_dir: Directory = None,
        read_only: bool = False,
        upload_delay: str | float | None = None,
        max_uploads: int = 50,
        timeout: float | None = None,
    ) -> Files:
        """See `RWVolume.open`."""
        options = self._options(meta_dir, cache_dir, read_only, upload_delay, max_uploads)
        with registry.changing(self._key), within(timeout):
            plain = options == self._options(None, None, False, None, 50)
            opened = registry.find(self._key) if plain else self._again(options)
            if opened is None:
                opened = self._begin(options)
                tell(self._volume, options.meta_dir)
            return opened.files

    def mount(
        self,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        cache_dir: Directory = None,
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
        """See `RWVolume.mount`."""
        path = directory(mount_path) or default_mount_path(self._volume.name)
        # What the daemon will do with it is tried here: an error that it would only report costs its start.
        self._options(meta_dir, cache_dir, read_only, upload_delay, max_uploads)
        opening: dict[str, Any] = {"read_only": read_only, "max_uploads": max_uploads}
        if not read_only:
            opening |= {"meta_dir": directory(meta_dir) or registry.preferred_meta_dir(self._key)}
            opening |= {"upload_delay": upload_delay if writeback else None}
        if cache_dir is not None:
            opening["cache_dir"] = directory(cache_dir)
        told = evolve(
            options or MountOptions(),
            attr_cache=attr_cache,
            entry_cache=entry_cache,
            dir_entry_cache=dir_entry_cache,
            writeback=writeback,
        )
        return mount(self._volume, path, opening, told, timeout=timeout)

    def close(self, *, discard: bool = False) -> None:
        """See `RWVolume.close`."""
        with registry.changing(self._key):
            if registry.mount_of(self._key) is not None:
                self.unmount()
            opened = registry.find(self._key)
            if opened is not None:
                registry.remove(self._key, "was closed", self._volume.locator)
                if opened.options.meta_dir is not None and not discard and opened.session.files.changed_inodes:
                    # What is not committed is there, and belongs to whoever opens it again.
                    registry.prefer_meta_dir(self._key, opened.options.meta_dir)
                    registry.note_uncommitted(self._key)
                opened.session.close(discard=discard)

    def commit(
        self,
        message: str | None = None,
        *,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        timeout: float | None = None,
    ) -> ROVolume:
        """See `RWVolume.commit`."""
        where = self._mounted_at(mount_path)
        if where is not None:
            return self._published_by(ask(where, "commit", message=text_of(message), timeout=timeout))
        with within(timeout), self._writing(meta_dir) as opened:
            return self._volume._version(opened.session.commit(said(message)))

    def finalize(
        self,
        message: str | None = None,
        *,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        timeout: float | None = None,
    ) -> ROVolume:
        """See `RWVolume.finalize`."""
        where = self._mounted_at(mount_path)
        if where is not None:
            try:
                version = self._published_by(ask(where, "finalize", message=text_of(message), timeout=timeout))
            except BaseException:
                if not control_answers(where):
                    registry.note_unmount(
                        self._key, where, "was unmounted, and what could not be published is in its journal"
                    )
                raise
            await_end(where)
            registry.note_unmount(self._key, where, f"was finalized as {version.locator}")
            return version
        with registry.changing(self._key), within(timeout), self._writing(meta_dir) as opened:
            version = self._volume._version(opened.session.commit(said(message)))
            registry.remove(self._key, f"was finalized as {version.locator}", version.locator)
            opened.session.close()
            return version

    def fork(
        self,
        name: str | None = None,
        as_: Literal["rw", "ro"] = "rw",
        *,
        mount_path: Directory = None,
        meta_dir: Directory = None,
        timeout: float | None = None,
    ) -> RWVolume | ROVolume:
        """See `RWVolume.fork`."""
        if as_ not in ("rw", "ro"):
            raise ConfigError(f"as_ is {as_!r}", hint="'rw' makes a working copy, 'ro' a version")
        with within(timeout):
            root = self._root()
            forked = fork_name(root, self._volume.name, name)
            opened = registry.find(self._key)
            where = self._mounted_at(mount_path)
            if where is not None:
                version = VolumeAddress.parse(ask(where, "fork", name=forked)["locator"]).version_name
            elif opened is None:
                version = self._newest()
                root.make_volume(forked, version)
            else:
                version = opened.session.branch(forked, said(None))
            manifest = root.load(version)
            if as_ == "ro":
                return self._volume._version(manifest, forked)
            return forked_into(self._volume._working_copy(manifest, forked), meta_dir)

    def merge(
        self, other: Volume | str, *, conflicts: Conflicts | str = Conflicts.FAIL, message: str | None = None
    ) -> Merge:
        """See `RWVolume.merge`."""
        if conflicts not in tuple(Conflicts):
            raise ConfigError(f"conflicts is {conflicts!r}", hint="'fail', 'ours' or 'theirs'")
        theirs = self._resolved(other)
        with self._between_sessions() as root, self._chunks(root) as chunks:
            from stowstore.versions.successors import merge_version

            merged = merge_version(
                root,
                chunks,
                self._volume.name,
                theirs,
                conflicts=Conflicts(conflicts),
                message=message,
                produced_by=current_producer(),
            )
            return Merge(version=self._volume._version(root.load(merged.version)), conflicts=merged.conflicts)

    def restore(self, version: Volume | str, *, message: str | None = None) -> ROVolume:
        """See `RWVolume.restore`."""
        with self._between_sessions() as root, self._chunks(root) as chunks:
            from stowstore.versions.successors import restore_version

            made = restore_version(
                root,
                chunks,
                self._volume.name,
                self._resolved(version),
                message=message,
                produced_by=current_producer(),
            )
            return self._volume._version(root.load(made))

    def recover(
        self, name: str, *, meta_dir: Directory = None, cache_dir: Directory = None, message: str | None = None
    ) -> ROVolume:
        """See `RWVolume.recover`."""
        options = SessionOptions(
            meta_dir=directory(meta_dir) or self._default_dir("meta"),
            cache_dir=directory(cache_dir) or self._default_dir("cache"),
            metadata_store_type=self._volume.metadata_store_type,
            permissions=PermissionChecks.KERNEL,
            key=registry.key_source(self._volume.bucket),
        )
        with registry.changing(self._key):
            if registry.find(self._key) is not None or registry.mount_of(self._key) is not None:
                raise VolumeError(
                    f"volume {self._volume.name!r} is open", hint="close it, and recover its journal then"
                )
            made = recover_journal(
                self._root(), self._volume.name, name, options, message=message, produced_by=current_producer()
            )
        return self._volume._version(made, name)

    def migrate_metadata_store_type(
        self, new_metadata_store_type: str, meta_dir: Directory = None, new_meta_dir: Directory = None
    ) -> RWVolume:
        """See `Volume.migrate_metadata_store_type`."""
        with registry.changing(self._key):
            if registry.find(self._key) is not None:
                raise VolumeError(f"volume {self._volume.name!r} is open", hint="close it before its store is moved")
            old = directory(meta_dir) or self._default_dir("meta")
            new = directory(new_meta_dir) or old
            root = self._root(create=True)
            kind = choose_kind(self._volume.metadata_store_type)
            with self._chunks(root) as chunks:
                made = migrate_volume(
                    root,
                    chunks,
                    self._volume.name,
                    kind=kind,
                    meta_dir=old,
                    new_kind=new_metadata_store_type,
                    new_meta_dir=new,
                    produced_by=current_producer(),
                )
            moved = self._volume._evolved(metadata_store_type=new_metadata_store_type)
            if made is not None:
                moved = moved._working_copy(made)
            if new is not None and new_meta_dir is not None:
                registry.prefer_meta_dir(self._key, new)
            return moved

    def __enter__(self) -> Files:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mounted_at(self, path: Directory) -> Path | None:
        """Where the volume is mounted: as it was said, or by this process."""
        return directory(path) or registry.mount_of(self._key)

    def _published_by(self, answer: dict[str, Any]) -> ROVolume:
        """The version that a daemon says it has published."""
        registry.note_version(self._key, answer["locator"])
        return self._volume._version(published(self._volume, answer["locator"]))

    def _newest(self) -> VersionName:
        opened = registry.find(self._key)
        if opened is not None:
            if opened.session.base is None:
                raise NotCommitted(f"volume {self._volume.name!r} has no version yet", hint="commit first")
            return opened.session.base.name
        try:
            return self._root().head(self._volume.name)
        except NoSuchVolume as error:
            raise NotCommitted(f"volume {self._volume.name!r} has no version yet", hint="commit first") from error

    def _options(
        self,
        meta_dir: Directory,
        cache_dir: Directory,
        read_only: bool,
        upload_delay: str | float | None,
        max_uploads: int,
    ) -> OpenOptions:
        checked_uploads(max_uploads)
        if checked_switch(read_only, "read_only"):
            return OpenOptions(cache_dir=directory(cache_dir), read_only=True, max_uploads=max_uploads)
        return OpenOptions(
            meta_dir=directory(meta_dir) or self._default_dir("meta"),
            cache_dir=directory(cache_dir) or self._default_dir("cache"),
            upload_delay=seconds_of(upload_delay),
            max_uploads=max_uploads,
        )

    def _default_dir(self, part: str) -> Path | None:
        """Below the user's cache directory, one for each volume of each root; what is in memory is kept there."""
        if part == "meta" and (preferred := registry.preferred_meta_dir(self._key)) is not None:
            return preferred
        if self._volume.storage == "mem":
            return None
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.blake2b(self._volume.bucket.encode(), digest_size=6).hexdigest()
        return cache / "stowstore" / "volumes" / f"{self._volume.name}-{digest}" / part

    def _begin(self, options: OpenOptions) -> OpenVolume:
        """Opens a volume that is not open."""
        volume = self._volume
        if options.read_only:
            name = self._newest()
            return self._open_session(options, lambda how: Session.read(self._root(), name, how))
        root = self._root(create=volume.index is None)
        head = root.load(root.head(volume.name)) if root.has_volume(volume.name) else None
        if head is not None and volume.index is None and not registry.was_open(self._key):
            raise RootInUse(
                f"there is a volume {volume.name!r} in {volume.bucket} already",
                hint=f"go on with it by Volume.at({f'{volume.bucket}#{volume.name}'!r}), or choose another name",
            )
        if head is not None and head.metadata_store_type not in (None, choose_kind(volume.metadata_store_type)):
            raise VolumeError(
                f"volume {volume.name!r} was moved to the metadata store {head.metadata_store_type!r}",
                hint=f"use what the migration returned, or Volume.at({f'{volume.bucket}#{volume.name}'!r})",
            )
        opened = self._open_session(options, lambda how: Session.write(root, volume.name, how))
        if head is None and opened.session.base is None:
            hand_over(opened.session.files)
        return opened

    @contextmanager
    def _writing(self, meta_dir: Directory) -> Iterator[OpenVolume]:
        """The open volume; with a ``meta_dir`` and nothing open, what the journal there holds, for this once."""
        wanted = directory(meta_dir)
        opened = registry.find(self._key)
        if opened is None and wanted is not None:
            self.open(meta_dir=wanted)
            try:
                yield registry.require(self._key)
            finally:
                self.close()
            return
        opened = registry.require(self._key)
        if wanted is not None and opened.options.meta_dir != wanted:
            raise VolumeError(
                f"volume {self._volume.name!r} is open with its journal in {opened.options.meta_dir}, not in {wanted}",
                hint="leave meta_dir out",
            )
        yield opened

    @contextmanager
    def _between_sessions(self) -> Iterator[Root]:
        """With everything committed and nobody writing, for a version that is made elsewhere; opens again after it."""
        with registry.changing(self._key):
            where = registry.mount_of(self._key)
            if where is not None:
                raise VolumeError(f"volume {self._volume.name!r} is mounted at {where}", hint="unmount it first")
            opened = registry.find(self._key)
            was_open = opened is not None
            if opened is None:
                self.open()
                opened = registry.require(self._key)
            session = opened.session
            if session.read_only:
                raise VolumeError(f"volume {self._volume.name!r} is open for reading only", hint="close it first")
            if session.files.open_handles:
                raise VolumeError(f"volume {self._volume.name!r} has open files", hint="close them first")
            if session.base is None or session.files.changed_inodes:
                session.commit(said(None))
            registry.remove(self._key, "is between two versions", self._volume.locator)
            session.close()
            try:
                yield session.root
            finally:
                if was_open:
                    again = self._begin(opened.options)
                    # Whoever holds the files of the volume goes on with them.
                    registry.add(evolve(again, files=opened.files))
                else:
                    newest = VolumeAddress.locator(
                        self._volume.bucket, self._volume.name, session.root.head(self._volume.name)
                    )
                    registry.remove(self._key, "was closed", str(newest))


def hand_over(files: FileSystem) -> None:
    """Gives the root directory of a new volume to the user who makes it."""
    uid, gid = os.geteuid(), os.getegid()
    found = files.getattr(ROOT_INODE)
    if (found.uid, found.gid) == (0, 0) != (uid, gid) and stat.S_ISDIR(found.mode):
        files.setattr(ROOT_INODE, AttributeChanges(uid=uid, gid=gid), ROOT)
