"""Notes of uploads that did not come to their end: what they have sent, for the next one to go on from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Iterable, Iterator

from datastore.errors import NotFound
from datastore.protocol import Store
from stowstore.records.errors import InvalidRecord, RecordDamaged
from stowstore.records.layout import Layout
from stowstore.records.sending_files import Content

__all__ = ["encode_notes", "read_notes"]


def read_notes(
    store: Store, layout: Layout, uuid: str, condemned: Container[str], *, own: str
) -> tuple[dict[Content, str], list[str]]:
    """Where contents lie that uploads of a record have sent, and the keys of the notes; ``own`` are left out."""
    found: dict[Content, str] = {}
    keys: list[str] = []
    for entry in store.walk(layout.reference(f"{layout.record(uuid)}/u"), directory=True):
        key = layout.relative(entry.reference)
        if key == own:
            continue
        try:
            for digest, size, sent in _decode(store.read_bytes(entry.reference)):
                if sent not in condemned:
                    found.setdefault((digest, size), layout.check_owned(uuid, sent))
        except (NotFound, RecordDamaged, ValueError, TypeError, zlib.error):
            continue
        keys.append(key)
    return found, keys


def encode_notes(notes: Iterable[tuple[str, int, str]]) -> bytes:
    """Digest, size and key of what was sent, as an object holds them."""
    return zlib.compress(json.dumps(list(notes)).encode())


def _decode(raw: bytes) -> Iterator[tuple[str, int, str]]:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(raw, 64 << 20)
    if unpacker.unconsumed_tail:
        raise InvalidRecord("the notes are larger than notes can be")
    for digest, size, key in json.loads(text):
        yield str(digest), int(size), str(key)
