"""The file system of a volume: POSIX by inode number, in process, over a snapshot that is read as it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from stowstore.index.keys import XATTR, after_prefix
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.interfaces import AfterUpload, Content, MetaStore
from stowstore.namespace.journal import INTERVAL_SECONDS, Journal
from stowstore.namespace.loading import LoadOperations
from stowstore.namespace.permissions import PermissionChecks

__all__ = ["FileSystem"]


class FileSystem(LoadOperations):
    """Everything Linux does with inodes and names; errors are `OSError` with Linux's numbers.

    The root directory is inode 1.  Names are bytes, times nanoseconds since 1970; atime stays what it was set to.
    Numbers of inodes are never used again.  Operations are atomic and thread-safe: one lock, which is never held while
    content is staged or fetched.  Metadata that lookups, ``getattr`` and listings need are fetched before it is taken.

    Opening reads the superblock of the snapshot and the journal, with ``read_only`` nothing at all.  A snapshot without
    anything becomes an empty file system.  With a metadata store, changes are journalled in the background and by
    `fsync`; a file system opened over a store that has records continues from them.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        content: Content,
        *,
        metastore: MetaStore | None = None,
        read_only: bool = False,
        permissions: PermissionChecks = PermissionChecks.HERE,
        journal_interval: float | None = INTERVAL_SECONDS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(
            snapshot, content, metastore=metastore, read_only=read_only, permissions=permissions, clock=clock
        )
        if metastore is not None and not read_only:
            self.journal = Journal(self, metastore, interval=journal_interval or INTERVAL_SECONDS)
            if journal_interval is not None:
                self.journal.start()

    @property
    def snapshot(self) -> Snapshot:
        """The committed state that changes lie over."""
        return self._overlay.snapshot

    @property
    def has_stored_xattrs(self) -> bool:
        """Whether any inode of the version below has extended attributes; one look into its index."""
        return next(self.snapshot.scan(XATTR, after_prefix(XATTR)), None) is not None

    @property
    def block_writer(self) -> Any:
        """The writer that commits use, for blocks that `load_files` is to refer to; None where nothing is uploaded."""
        return self.content.writer

    def upload_early(
        self,
        writer: Any,
        *,
        delay: float,
        keep: Callable[[], None] | None = None,
        afterwards: AfterUpload = AfterUpload.STAY,
    ) -> None:
        """Begins to upload what has been written, in the background, to the writer that commits use as well.

        ``keep`` is called before files refer to blocks that no version has; ``afterwards`` says whether that happens as
        soon as a block is in the store, or when a commit asks for it.
        """
        self.content.upload_early(
            writer, delay=delay, lock=self._lock, moved=self._uploaded, keep=keep, afterwards=afterwards
        )

    def upload(self) -> None:
        """Returns when the bytes of all files written so far are in the store; they are published by a commit only.

        Raises:
            StoreError: the store failed; nothing is lost, and it can be tried again.
        """
        self.content.upload()

    def _uploaded(self, ino: int) -> None:
        """Told under the lock that a file's staged data now lie in blocks: the journal must refer to those."""
        if self._overlay.unjournalled is not None:
            self._overlay.unjournalled.inodes[ino] = None

    def number_from(self, ino: int) -> None:
        """Numbers the inodes made from now on from ``ino`` up, so that they differ from another fork's."""
        with self._lock:
            self._usage.next_ino = max(self._usage.next_ino, ino)

    def fsync(self, handle: int | None = None) -> None:
        """Returns when everything done so far survives the death of this process.

        One journal serves all files, so a handle is only checked to be open.

        Raises:
            OSError, StoreError: the journal or the staging area cannot be written.
        """
        if handle is not None:
            self._file(handle)
        if self.read_only:
            return
        if self.journal is None:
            self.content.sync()
        else:
            self.journal.write(durable=True)

    def close(self) -> None:
        """Ends the background thread; changes stay in the journal.  Handles are of no use afterwards."""
        if self.journal is not None:
            self.journal.close()
