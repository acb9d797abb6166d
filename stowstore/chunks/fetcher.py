"""The fetcher: ranges of packs from the store, and the tables at their ends."""

from __future__ import annotations

import threading
from collections import OrderedDict

from datastore.errors import NoSuchContainer, NotFound
from datastore.protocol import Store
from stowstore.chunks.block import CorruptBlock, PackKind
from stowstore.chunks.packs import TRAILER_BYTES, PackTable, footer_bytes
from stowstore.chunks.uploader import Placement

__all__ = ["PackFetcher"]

#: What is read of the end of a pack in the hope that it holds the table; that of a large block takes 400 bytes.
_TAIL = 16 << 10

_MAX_TABLES = 1024


class PackFetcher:
    """Reads packs of one kind; thread-safe.  ``requests`` counts what was asked of the store."""

    def __init__(self, store: Store, place: Placement, kind: PackKind) -> None:
        self.kind = kind
        self.requests = 0
        self._store = store
        self._place = place
        self._tables: OrderedDict[bytes, PackTable] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, pack: bytes, start: int, length: int) -> bytes:
        """A range of a pack, shorter where the pack ends before.

        Raises:
            CorruptBlock: there is no such pack.
        """
        return self._read(pack, start, length)[0]

    def table(self, pack: bytes) -> PackTable:
        """The table of a pack; kept, as packs never change.

        Raises:
            CorruptBlock: there is no such pack, or its table is damaged.
        """
        with self._lock:
            table = self._tables.get(pack)
            if table is not None:
                self._tables.move_to_end(pack)
                return table
        tail, size = self._read(pack, -_TAIL, None)
        wanted = footer_bytes(tail, size, pack) + TRAILER_BYTES
        if wanted > len(tail):
            tail, size = self._read(pack, -wanted, None)
        table = PackTable.parse(tail, size, pack, self.kind)
        with self._lock:
            self._tables[pack] = table
            if len(self._tables) > _MAX_TABLES:
                self._tables.popitem(last=False)
        return table

    def _read(self, pack: bytes, start: int, length: int | None) -> tuple[bytes, int]:
        """A range, and the size of the pack."""
        self.requests += 1
        reference = self._place(self.kind, pack)
        try:
            with self._store.read_raw(reference, start, length, max_bytes=0) as stream:
                return stream.read(), stream.metadata.size
        except NoSuchContainer:
            raise
        except NotFound as error:
            raise CorruptBlock(
                f"pack {pack.hex()} is missing, with every block in it",
                op="read",
                reference=str(reference),
                pack=pack,
                hint="if nobody deleted it, the root may be incomplete: run a check",
            ) from error
