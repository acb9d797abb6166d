"""The crash journal: what has changed since the last version, kept on the local disk in batches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from stowstore.index.keys import SUPERBLOCK, entry_key, inode_key, xattr_key
from stowstore.namespace.inodes import Inode
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.overlay import Unjournalled

if TYPE_CHECKING:
    from stowstore.namespace.core import Core

__all__ = ["BATCH_RECORDS", "INTERVAL_SECONDS", "Journal"]

_log = logging.getLogger(__name__)

#: How long a change stays out of the journal at most, unless somebody asks for fsync.
INTERVAL_SECONDS: Final = 2.0

#: How many changes are journalled before the interval is over.
BATCH_RECORDS: Final = 8192

_POLL_SECONDS: Final = 0.25


class Journal:
    """Writes a file system's changes to its metadata store, on request and from a thread of its own.

    A batch holds the present values of everything that has changed since the one before, taken in one moment, so a
    rename is never half in it.  Operations never wait for the store, only for the values to be taken.
    """

    def __init__(self, core: Core, metastore: MetaStore, *, interval: float = INTERVAL_SECONDS) -> None:
        self._core = core
        self._store = metastore
        self._interval = interval
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: Why the last batch could not be written, until one is.
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begins to journal in the background."""
        self._thread = threading.Thread(target=self._run, name="stowstore-journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the background thread and writes what is left."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.write()

    def write(self, *, durable: bool = False) -> None:
        """Brings the journal up to date; when it returns and ``durable`` is set, a crash loses nothing of it.

        Raises:
            OSError, StoreError: the store or the staging area could not take it; it will be tried again.
        """
        core = self._core
        with self._writing:
            with core._lock:
                taken = core._overlay.take_unjournalled()
                batch = self._values(taken) if taken else {}
                checkpoint = core.content.checkpoint()
            # What is given up below must not come back with an older batch, even when the power fails.
            durable = durable or bool(checkpoint)
            try:
                if batch or durable:
                    core.content.sync(durable=durable)
                if batch:
                    self._store.apply(batch)
                if durable:
                    self._store.sync()
            except BaseException:
                with core._lock:
                    self._give_back(taken)
                raise
            core.content.reclaim(checkpoint)
            self.failure = None

    def start_over(self, meta: Mapping[str, bytes]) -> None:
        """Keeps only what lies over the snapshot that has just been taken, and the values that name it."""
        core = self._core
        with self._writing:
            with core._lock:
                core._overlay.take_unjournalled()
                batch = self._values(self._everything())
                checkpoint = core.content.checkpoint()
            core.content.sync(durable=bool(checkpoint))
            self._store.replace(batch, meta)
            if checkpoint:
                self._store.sync()
            core.content.reclaim(checkpoint)

    def _run(self) -> None:
        waited = 0.0
        while not self._stopping.wait(min(_POLL_SECONDS, self._interval)):
            waited += _POLL_SECONDS
            unjournalled = self._core._overlay.unjournalled
            if not unjournalled or (waited < self._interval and len(unjournalled) < BATCH_RECORDS):
                continue
            waited = 0.0
            try:
                self.write()
            except Exception as error:  # noqa: BLE001 - the thread goes on; fsync and commit raise what is wrong
                if self.failure is None:
                    _log.warning("the journal cannot be written, and is tried again: %s", error)
                self.failure = error

    def _everything(self) -> Unjournalled:
        live = self._core._overlay.live
        found = Unjournalled()
        found.inodes = dict.fromkeys(live.inodes)
        found.entries = [(parent, name) for parent, changes in live.entries.items() for name in changes]
        found.xattrs = [(ino, name) for ino, values in live.xattrs.items() for name in values]
        return found

    def _values(self, taken: Unjournalled) -> dict[bytes, bytes | None]:
        """The present records of what changed; what a commit has taken meanwhile is left out."""
        overlay = self._core._overlay
        layers = [overlay.live] if overlay.frozen is None else [overlay.live, overlay.frozen]
        batch: dict[bytes, bytes | None] = {}
        for ino in taken.inodes:
            for layer in layers:
                if ino in layer.inodes:
                    self._add_inode(batch, ino, layer.inodes[ino])
                    break
        for parent, name in taken.entries:
            for layer in layers:
                changes = layer.entries.get(parent)
                if changes is not None and name in changes:
                    entry = changes[name]
                    batch[entry_key(parent, name)] = None if entry is None else entry.encode()
                    break
        for ino, name in taken.xattrs:
            for layer in layers:
                values = layer.xattrs.get(ino)
                if values is not None and name in values:
                    batch[xattr_key(ino, name)] = values[name]
                    break
        batch[SUPERBLOCK] = self._core._usage.record().encode()
        return batch

    @staticmethod
    def _add_inode(batch: dict[bytes, bytes | None], ino: int, node: Inode | None) -> None:
        if node is None:
            batch[inode_key(ino)] = None
        elif node.extents is None:
            batch[inode_key(ino)] = node.record().encode()
        else:
            encoded = node.extents.encode_for_journal(ino)
            batch.update(encoded.changes)
            batch[inode_key(ino)] = node.record(encoded.inline, encoded.many).encode()

    def _give_back(self, taken: Unjournalled) -> None:
        now = self._core._overlay.unjournalled
        assert now is not None
        now.inodes = {**taken.inodes, **now.inodes}
        now.entries[:0] = taken.entries
        now.xattrs[:0] = taken.xattrs
