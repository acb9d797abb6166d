"""Sessions: one open volume, written or only read.

A writing session holds the volume's lease, lies over its newest version, and journals what changes into ``meta_dir``
and ``cache_dir``, where the next session on this machine finds it after a crash.  `Session.commit` publishes: data
first, then the index, then the manifest, and the head last; whatever fails before that leaves the session as it was.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from datastore.errors import StoreError
from datastore.events import get_logger
from stowstore.chunks.store import ChunkStore
from stowstore.chunks.writer import BlockWriter
from stowstore.index.node import NodeCache
from stowstore.index.snapshot import MERGE_RECORDS, Snapshot, SnapshotRef, commit_changes, merge_deltas
from stowstore.index.tree import Tree, apply_changes
from stowstore.namespace.background import is_behind
from stowstore.namespace.content import FileContent
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.interfaces import AfterUpload, MetaStore
from stowstore.namespace.staging import StagingArea
from stowstore.versions.durability import DirectorySync, directory_sync
from stowstore.versions.errors import NoSuchVersion, NotCommitted, VolumeError
from stowstore.versions.journal_lease import JournalLease
from stowstore.versions.journals import BASE, PENDING, journal_name, open_journal
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import Manifest, Statistics, VersionName
from stowstore.versions.numbering import advanced, next_ino
from stowstore.versions.options import CommitOptions, SessionOptions, chunk_store
from stowstore.versions.root import Root

__all__ = ["Session"]


_log = get_logger(part="volume")


class Session:
    """An open volume; made by `Session.write` and `Session.read`.  Thread-safe, and a context manager.

    ``files`` is its file system.  ``base`` is the version it lies over: of a writing session the newest of the
    volume, None before the first commit.
    """

    def __init__(
        self,
        root: Root,
        volume: str,
        base: Manifest | None,
        chunks: ChunkStore,
        files: FileSystem,
        *,
        nodes: NodeCache,
        lease: Lease | None = None,
        metastore: MetaStore | None = None,
        options: SessionOptions | None = None,
    ) -> None:
        self.root = root
        self.volume = volume
        self.files = files
        self.chunks = chunks
        self._base = base
        self._nodes = nodes
        self._lease = lease
        self._metastore = metastore
        self._options = options or SessionOptions()
        self._publishing = threading.Lock()
        #: A version whose head was sent and not answered: it may have been published.
        self._unanswered: Manifest | None = None
        self._writer: BlockWriter | None = None
        self._durability: DirectorySync | None = None
        self._journal_lease: JournalLease | None = None
        if lease is not None:
            self._upload_early(lease)
        self._closed = False

    @classmethod
    def read(cls, root: Root, version: VersionName, options: SessionOptions | None = None) -> Session:
        """Opens a version for reading; reads its manifest and nothing else.

        Raises:
            NoSuchVersion: it is gone.
            CorruptManifest: it is not the one that was named.
        """
        options = options or SessionOptions()
        manifest = root.load(version)
        chunks = chunk_store(root, options)
        nodes = NodeCache(chunks.index_reader, options.node_cache_bytes)
        content = FileContent(StagingArea(max_bytes=0), chunks.reader)
        files = FileSystem(Snapshot(manifest.snapshot, nodes), content, read_only=True, permissions=options.permissions)
        return cls(root, version.volume, manifest, chunks, files, nodes=nodes, options=options)

    @classmethod
    def write(
        cls,
        root: Root,
        volume: str,
        options: SessionOptions | None = None,
        *,
        base: VersionName | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Session:
        """Opens a volume for writing, on its newest version, or on nothing where it has none yet.

        What an earlier session on this machine has journalled is taken up.  ``base`` is the version the caller believes
        to be the newest.

        Raises:
            LeaseHeld: another writer has it open; the message says who.
            VolumeError: the journal belongs to another version than the newest, or the volume has moved past ``base``.
        """
        options = options or SessionOptions()
        lease = Lease(root.store, root.lease_reference(volume), seconds=options.lease_seconds, on_lost=on_lost)
        try:
            head = root.head(volume) if root.has_volume(volume) else None
            if base is not None and head != base:
                raise VolumeError(
                    f"{volume} has moved on: its newest version is {head.id if head else 'none'}, not {base.id}",
                    hint="open the newest version, or fork the one you have",
                )
            manifest = None if head is None else root.load(head)
            if head is not None:
                lease.rebase(head.id)
            return cls._opened(root, volume, manifest, lease, options)
        except BaseException:
            lease.release()
            raise

    @classmethod
    def _opened(
        cls, root: Root, volume: str, manifest: Manifest | None, lease: Lease, options: SessionOptions
    ) -> Session:
        chunks = chunk_store(root, options)
        metastore = None
        try:
            nodes = NodeCache(chunks.index_reader, options.node_cache_bytes)
            metastore = open_journal(
                options.metadata_store_type, options.meta_dir, journal_name(root, volume, manifest)
            )
            files = _writable_files(volume, manifest, chunks, nodes, metastore, options)
            return cls(
                root,
                volume,
                manifest,
                chunks,
                files,
                nodes=nodes,
                lease=lease,
                metastore=metastore,
                options=options,
            )
        except BaseException:
            if metastore is not None:
                metastore.close()
            chunks.close()
            raise

    @property
    def base(self) -> Manifest | None:
        """The version this session lies over."""
        return self._base

    @property
    def read_only(self) -> bool:
        return self._lease is None

    @property
    def meta_dir(self) -> Path | None:
        """Where the journal lies on the local disk."""
        return self._options.meta_dir

    @property
    def cache_dir(self) -> Path | None:
        """Where blocks are cached on the local disk, and staged data lie."""
        return self._options.cache_dir

    def at(self, version: VersionName) -> Session:
        """Another version of the root, opened for reading in the same way."""
        return Session.read(self.root, version, self._options)

    def commit(self, options: CommitOptions | None = None) -> Manifest:
        """Publishes the present state as the newest version, and goes on.

        Operations stop for no longer than it takes to freeze a layer.  With nothing changed the version below is
        returned and nothing is written.

        Raises:
            LeaseLost: another writer has taken the volume; nothing was published.
            StoreError: the store failed and nothing is lost, try again.  Nothing was published either, unless it was
                the answer to the very last write that did not come.
        """
        options = options or CommitOptions()
        with self._publishing:
            lease = self._writing()
            try:
                return self._commit(lease, options)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            # The journal comes first, and what it names must be on the disk.  Once uploaded it needs no room there.
            self.files.upload()
            return self._commit(lease, options)

    def branch(self, volume: str, options: CommitOptions | None = None) -> VersionName:
        """Makes another volume of the present state; this one goes on as it was.

        With nothing uncommitted it is one small write, whatever the size.

        Raises:
            RootInUse: there is a volume of that name.
            NotCommitted: this session reads only and lies over nothing.
        """
        self.root.require_free(volume)
        if self.read_only:
            if self._base is None:
                raise NotCommitted("there is nothing to fork", hint="commit first")
            return self._point(volume, self._base)
        with self._publishing:
            self._writing()
            frozen = self.files.freeze()
            try:
                base = self._base
                if base is not None and frozen.is_empty:
                    return self._point(volume, base)
                manifest, _ = self._publish(frozen, volume, options or CommitOptions())
                self.root.write_manifest(manifest)
                return self._point(volume, manifest)
            finally:
                # Blocks are written and will be found again; the changes themselves stay this volume's.
                self.files.commit_failed()

    def close(self, *, discard: bool = False) -> None:
        """Ends the session; what is not committed stays in the journal, unless it is to be discarded."""
        if self._closed:
            return
        self._closed = True
        # Last first; each is ended whatever becomes of the others: a full disk must not keep the lease.
        with ExitStack() as ending:
            if self._lease is not None:
                ending.callback(self._lease.release)
            if self.chunks.disk is not None:
                ending.callback(self.chunks.disk.close)
            ending.callback(self.chunks.close)
            if self._metastore is not None:
                ending.callback(self._metastore.destroy if discard else self._metastore.close)
            if self._journal_lease is not None:
                ending.callback(self._let_journal_go, discard)
            ending.callback(self.files.content.close)
            if self._writer is not None:
                ending.callback(self._writer.close)
            ending.callback(self.files.close)
            ending.callback(self.files.content.stop_uploading)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _upload_early(self, lease: Lease) -> None:
        """Begins to upload while files are being written."""
        writer = self._writer = self.chunks.writer(max_uploads=self._options.max_uploads)
        self._durability = directory_sync(self.root, lambda: writer.stats.packs)
        journal = self.files.journal
        if self._durability is not None and journal is not None:
            journal.settle = self._durability.after_puts
        if self.meta_dir is not None:
            assert self._metastore is not None
            self._journal_lease = JournalLease(self.root, self._metastore, lease.record)
            lease.on_renewed = self._journal_lease.extend
        self.files.upload_early(
            writer,
            delay=self._options.upload_delay,
            keep=None if self._journal_lease is None else self._journal_lease.require,
            afterwards=self._after_upload(),
        )

    def _let_journal_go(self, discard: bool) -> None:
        """Ends what keeps blocks for the journal, if it holds nothing or is about to be discarded."""
        assert self._journal_lease is not None
        if discard or not self.files.changed_inodes:
            self._journal_lease.discard()

    def _after_upload(self) -> AfterUpload:
        """What becomes of what was uploaded before a commit asked for it.

        A mount's writers would have to wait for a background that stays behind them: measured, four times as long.
        """
        return AfterUpload.STAY if self._durability is None or is_behind() else AfterUpload.GO

    def _writing(self) -> Lease:
        if self._lease is None:
            raise VolumeError("the volume is open for reading only", hint="fork it, and write the fork")
        return self._lease

    def _commit(self, lease: Lease, options: CommitOptions) -> Manifest:
        self._settle()
        if self._journal_lease is not None:
            self._journal_lease.commit_begins()
        frozen = self.files.freeze()
        try:
            base = self._base
            if base is not None and base.volume == self.volume and frozen.is_empty and not options.parents:
                self.files.commit_failed()
                if self._journal_lease is not None:
                    self._journal_lease.commit_done()
                return base
            manifest, snapshot = self._publish(frozen, self.volume, options)
            self._announce(lease, manifest)
            self._make_durable(manifest)
        except BaseException:
            self.files.commit_failed()
            raise
        self._base = manifest
        self.files.commit_done(snapshot, {BASE: manifest.id.encode()})
        if self._journal_lease is not None:
            self._journal_lease.commit_done()
        self._rebase(lease, manifest)
        return manifest

    def _announce(self, lease: Lease, manifest: Manifest) -> None:
        """Makes a version the newest; what it names is in the store already."""
        assert self._metastore is not None
        self._metastore.set_meta(PENDING, manifest.id.encode())
        # Once the head has moved, a journal from before this would lie over a version it has never heard of.
        self._metastore.sync()
        lease.require()
        self.root.write_manifest(manifest)
        self._unanswered = manifest
        self.root.set_head(self.volume, manifest.name, None if self._base is None else self._base.name)
        self._unanswered = None

    def _make_durable(self, manifest: Manifest) -> None:
        """Has a local disk keep what was published before the journal lets go of what programs were promised."""
        journal = self.files.journal
        if self._durability is None or journal is None or not journal.has_promised:
            return
        self._unanswered = manifest
        self._durability.sync()
        self._unanswered = None

    def _settle(self) -> None:
        """Finds out whether a version was published whose answer was lost; then it is the one to build on.

        The changes that made it are still counted as such: over that version they change nothing.
        """
        manifest = self._unanswered
        if manifest is None:
            return
        assert self._metastore is not None
        if self.root.has_volume(self.volume) and self.root.head(self.volume) == manifest.name:
            self._metastore.set_meta(BASE, manifest.id.encode())
            self._base = manifest
        self._unanswered = None

    def _publish(self, frozen: Any, volume: str, options: CommitOptions) -> tuple[Manifest, Snapshot]:
        """Writes data and index of a frozen moment, and describes it; nothing names it yet."""
        assert self._writer is not None
        frozen.flush(self._writer)
        self._writer.flush()
        changes = frozen.records()
        snapshot = self.files.snapshot
        index = self.chunks.index_writer(max_uploads=self._options.max_uploads)
        try:
            ref = _committed(snapshot, changes, index)
            index.flush()
        finally:
            index.close()
        base = self._base
        parents = (() if base is None else (base.name,)) + options.parents
        superblock = frozen.superblock
        manifest = Manifest(
            volume=volume,
            snapshot=ref,
            parents=parents,
            message=options.message,
            statistics=Statistics(
                used_bytes=superblock.used_bytes,
                inode_count=superblock.inode_count,
                index_bytes=(0 if base is None else base.statistics.index_bytes) + index.stored_bytes,
            ),
            inode_offset=0 if volume == self.volume else advanced(superblock.next_ino),
            metadata_store_type=self._options.metadata_store_type,
            produced_by=options.produced_by,
            parent_produced_by=options.parent_produced_by
            if options.parent_produced_by is not None
            else (None if base is None else base.produced_by),
        )
        return manifest, snapshot.with_changes(ref, changes)

    def _point(self, volume: str, manifest: Manifest) -> VersionName:
        name = manifest.name
        self.root.make_volume(volume, name)
        if self.read_only:
            # Nothing held the version meanwhile: were it pruned just now, the fork would name nothing.
            try:
                self.root.load(name)
            except NoSuchVersion:
                self.root.delete_refs(volume)
                raise
        return name

    def _rebase(self, lease: Lease, manifest: Manifest) -> None:
        try:
            lease.rebase(manifest.id)
        except StoreError as error:
            # The heartbeat tries again; until then the lease names the version before, which its own head keeps.
            _log.warning("lease.not_rebased", volume=self.volume, error=str(error))


def _committed(snapshot: Snapshot, changes: Mapping[bytes, bytes | None], writer: Any) -> SnapshotRef:
    """Small commits write a segment; one that brings as much as a merge would is merged at once."""
    if len(changes) > MERGE_RECORDS:
        merged = sorted({**snapshot.unmerged, **changes}.items())
        return SnapshotRef(tree=apply_changes(Tree(snapshot.ref.tree, snapshot.cache), merged, writer))
    ref = commit_changes(snapshot, changes, writer)
    if ref.needs_merge:
        return merge_deltas(snapshot.with_changes(ref, changes), writer)
    return ref


def _writable_files(
    volume: str,
    manifest: Manifest | None,
    chunks: ChunkStore,
    nodes: NodeCache,
    metastore: MetaStore,
    options: SessionOptions,
) -> FileSystem:
    """The file system of a writing session over a version, with what its journal holds."""
    snapshot = Snapshot(SnapshotRef() if manifest is None else manifest.snapshot, nodes)
    first_ino = 0 if manifest is None else manifest.inode_offset
    if manifest is not None and manifest.volume != volume:
        # A fork nobody has written yet: the volume this version is of goes on counting from here as well.  What the
        # journal says counts for nothing, or numbers would move on with every opening.
        first_ino = advanced(max(first_ino, next_ino(snapshot)))
    staging = None if options.cache_dir is None else options.cache_dir / "staging"
    content = FileContent(StagingArea(staging, max_bytes=options.staging_bytes), chunks.reader)
    files = FileSystem(snapshot, content, metastore=metastore, permissions=options.permissions)
    files.number_from(first_ino)
    return files
