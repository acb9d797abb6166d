"""What keeps from collection the blocks that only a crash journal refers to.

Files may refer to blocks before a version does, and then the journal does, too.  While the session lasts its own lease
keeps them; but a journal outlives its session, by a crash or because nobody has committed.  For as long there is a
second lease in the root, which nobody waits for, and which like every lease keeps what is younger than its beginning.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from attrs import evolve

from datastore.errors import NotFound, StoreError
from datastore.events import get_logger
from datastore.reference import DataReference
from stowstore.namespace.interfaces import MetaStore
from stowstore.versions.errors import CorruptManifest
from stowstore.versions.lease import LeaseRecord, read_lease
from stowstore.versions.root import Root
from stowstore.versions.ulid import is_ulid, new_ulid

__all__ = ["JOURNAL_LEASE_SECONDS", "JournalLease"]

#: How long a journal can be left alone before what only it refers to may be collected.
JOURNAL_LEASE_SECONDS: Final = 30 * 86400.0

#: How often the lease is extended by a session that needs it.
_EXTEND_EVERY: Final = 86400.0

#: Names the lease in the journal.
_META: Final = "kept"

_log = get_logger(part="lease")


class JournalLease:
    """The lease of a journal's own, which is there while the journal may refer to blocks that no version has.

    ``session`` is the record of the session's lease: none of its blocks is older.  Thread-safe.

    Raises:
        StoreError: an earlier session's cannot be read.
    """

    def __init__(self, root: Root, metastore: MetaStore, session: LeaseRecord) -> None:
        self._root = root
        self._metastore = metastore
        self._lock = threading.Lock()
        self._record = evolve(session, base=None, process="")
        self._token: str | None = None
        self._extended = -_EXTEND_EVERY
        #: Leases that a commit which is under way, or has failed, was to make needless.
        self._before: list[str] = []
        self._adopt()

    def require(self) -> None:
        """Returns when the root has the lease; costs something once between two commits, and once a day.

        Raises:
            StoreError: it cannot be written; no file may refer to new blocks then.
        """
        if self._token is not None and time.monotonic() - self._extended < _EXTEND_EVERY:
            return
        with self._lock:
            now = time.monotonic()
            token = self._token or new_ulid()
            record = evolve(self._record, token=token, expires=time.time() + JOURNAL_LEASE_SECONDS)
            self._root.store.write_bytes(self._reference(token), record.encode())
            self._extended = now
            if self._token is None:
                # Named before any journal can rely on it.
                self._metastore.set_meta(_META, token.encode())
                self._token = token

    def extend(self) -> None:
        """Extends the lease where there is one; called now and then as long as the session lasts.

        Raises:
            StoreError: it cannot be written; the next call tries again.
        """
        if self._token is not None:
            self.require()

    def commit_begins(self) -> None:
        """Says that what the journal refers to now is about to be in a version; what it will refer to is not."""
        with self._lock:
            if self._token is not None:
                self._before.append(self._token)
                self._token = None

    def commit_done(self) -> None:
        """Says that it is: what kept it until now goes."""
        with self._lock:
            gone, self._before = self._before, []
        for token in gone:
            try:
                self._root.store.delete(self._reference(token))
            except NotFound:
                pass
            except StoreError as error:
                # It ends by itself.
                _log.warning("journal_lease.not_removed", token=token, error=str(error))

    def discard(self) -> None:
        """Gives everything up, with the journal."""
        self.commit_begins()
        self.commit_done()

    def _adopt(self) -> None:
        """Takes up what an earlier session has left, so that the next commit ends it."""
        token = (self._metastore.get_meta(_META) or b"").decode("ascii", "replace")
        if not is_ulid(token):
            return
        try:
            found = read_lease(self._root.store, self._reference(token))
        except CorruptManifest:
            found = None
        if found is not None:
            self._record = evolve(self._record, started=min(found.started, self._record.started))
            self._token = token
            self.extend()

    def _reference(self, token: str) -> DataReference:
        return self._root.base.join("leases", f"_journal-{token}")
