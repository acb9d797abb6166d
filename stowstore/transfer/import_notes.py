"""Notes of an import that is divided among workers: what they have put into the store before anything names it.

An import that is interrupted leaves its notes, and the next one of the same volume takes up what they say.  What they
name has to be kept from collection meanwhile: a lease of its own, ``leases/_import-<volume>``, which nobody waits for,
makes everything younger than the first of these imports stay.  It is good for a day; notes without it count no more.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from attrs import evolve

from datastore.errors import NotFound
from datastore.events import get_logger
from datastore.protocol import Store
from datastore.reference import DataReference
from stowstore.versions.errors import CorruptManifest
from stowstore.versions.lease import LeaseRecord, read_lease
from stowstore.versions.root import Root, check_volume_name
from stowstore.versions.ulid import new_ulid

__all__ = ["ImportNotes", "write_note"]

#: How long notes are good after the import that left them, seconds.
_KEPT: Final = 86400.0

#: How long before the end of their lease notes count no more: no clock is so wrong that they are collected before.
_MARGIN: Final = 300.0

#: How often an import that goes on and on extends the lease, seconds.
_EXTEND_EVERY: Final = 3600.0

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(dict[bytes, bytes])

_log = get_logger(part="import")


class ImportNotes:
    """The notes of imports into one volume; its writer alone has them.  Not thread-safe."""

    def __init__(self, root: Root, volume: str) -> None:
        self._root = root
        self._lease = root.base.join("leases", f"_import-{check_volume_name(volume)}")
        self._above = root.base.join("imports", volume)
        self._record = self._begin()
        self._extended = time.monotonic()
        #: Where notes of this import belong.
        self.base = self._above.join(self._record.token)

    def read(self) -> dict[bytes, bytes]:
        """What earlier imports have put: for the key of each piece of a file, where it lies.

        Raises:
            StoreError: the notes cannot be read.
        """
        found: dict[bytes, bytes] = {}
        for entry in self._root.store.walk(self.base, directory=True):
            try:
                found.update(_decoder.decode(self._root.store.read_bytes(entry.reference)))
            except (msgspec.MsgspecError, NotFound):
                # Notes only save work.
                _log.warning("import.note_unreadable", reference=str(entry.reference))
        return found

    def keep(self) -> None:
        """Extends the lease when it is time; called now and then."""
        if time.monotonic() - self._extended > _EXTEND_EVERY:
            self._record = evolve(self._record, expires=time.time() + _KEPT)
            self._write()
            self._extended = time.monotonic()

    def end(self) -> None:
        """Removes the notes and their lease: a version names everything now."""
        self._remove_notes()
        self._root.store.delete(self._lease)

    def _begin(self) -> LeaseRecord:
        now = time.time()
        try:
            found = read_lease(self._root.store, self._lease)
        except CorruptManifest:
            found = None
        if found is None or now > found.expires - _MARGIN:
            self._remove_notes()
            found = LeaseRecord(
                token=new_ulid(),
                holder="an import",
                host=socket.gethostname(),
                pid=os.getpid(),
                process="",
                base=None,
                started=now,
                expires=now + _KEPT,
            )
        self._record = evolve(found, expires=now + _KEPT)
        self._write()
        return self._record

    def _write(self) -> None:
        self._root.store.write_bytes(self._lease, self._record.encode())

    def _remove_notes(self) -> None:
        notes = [entry.reference for entry in self._root.store.walk(self._above, directory=True)]
        failed = self._root.store.delete_many(notes)
        for reference, error in failed.items():
            _log.warning("import.note_not_deleted", reference=str(reference), error=str(error))


def write_note(store: Store, base: DataReference, stored: Mapping[bytes, bytes]) -> None:
    """Notes what has been put; it must be in the store already."""
    store.write_bytes(base.join(new_ulid()), _encode(dict(stored)))
