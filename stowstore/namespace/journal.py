"""The crash journal: what has changed since the last version, kept on the local disk in batches."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from stowstore.namespace.background import make_way
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.journal_batch import JournalBatch
from stowstore.namespace.overlay import Unjournalled

if TYPE_CHECKING:
    from stowstore.namespace.core import Core

__all__ = ["BATCH_RECORDS", "INTERVAL_SECONDS", "Journal"]

_log = logging.getLogger(__name__)

#: How long a change stays out of the journal at most, unless somebody asks for fsync.
INTERVAL_SECONDS: Final = 2.0

#: How many changes are journalled before the interval is over; until then what changes again is journalled once.
BATCH_RECORDS: Final = 32768

_POLL_SECONDS: Final = 0.25


class Journal:
    """Writes a file system's changes to its metadata store, on request and from a thread of its own.

    A batch holds the present values of everything that has changed since the one before, taken in one moment, so a
    rename is never half in it.  Operations wait neither for the store nor for the values: see `JournalBatch`.
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
        #: Makes what a store was given as durable as this journal, for stores whose answers do not promise that.
        self.settle: Callable[[], None] | None = None
        #: Whether a program has been promised that something is durable; what was recovered may have been.
        self.has_promised = core._has_recovered

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
        try:
            self._write(durable=durable)
        except OSError as error:
            content = self._core.content
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not content.held_bytes:
                raise
            # The local disk has no room for what is in memory.  Once in blocks it needs none there.
            content.upload()
            self._write(durable=durable)

    def _write(self, *, durable: bool) -> None:
        core = self._core
        with self._writing:
            with core._lock:
                taken = core._overlay.take_unjournalled()
                began = JournalBatch(core._overlay, taken, core._usage.record()) if taken else None
                checkpoint = core.content.checkpoint()
            self.has_promised |= durable
            # What is given up below must not come back with an older batch, even when the power fails.
            durable = durable or bool(checkpoint)
            try:
                batch = began.finish(core._lock) if began is not None else {}
                if batch or durable:
                    core.content.sync(durable=durable)
                if durable and self.has_promised and self.settle is not None:
                    # The journal is about to refer to blocks instead of staged data.
                    self.settle()
                if batch:
                    self._store.apply(batch)
                if durable:
                    self._store.sync()
            except BaseException:
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
                taken = Unjournalled.of(core._overlay.live)
                began = JournalBatch(core._overlay, taken, core._usage.record())
                checkpoint = core.content.checkpoint()
            try:
                batch = began.finish(core._lock)
                core.content.sync(durable=bool(checkpoint))
                self._store.replace(batch, meta)
                if checkpoint:
                    self._store.sync()
            except BaseException:
                self._give_back(taken)
                raise
            core.content.reclaim(checkpoint)

    def _run(self) -> None:
        make_way()
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

    def _give_back(self, taken: Unjournalled) -> None:
        """What could not be journalled is journalled with the next batch."""
        with self._core._lock:
            unjournalled = self._core._overlay.unjournalled
            assert unjournalled is not None
            unjournalled.take(taken)
