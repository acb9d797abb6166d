"""The list of objects a collection is about to remove: whoever sends anything reads it first, and uses none of them.

An object is removed no sooner than half a grace period after it was listed. Uploads that began before that have
committed by then, and what they named is spared; uploads that began later have seen the list. So no age has to be
guessed, and no object is ever removed under a writer's hands.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Final

from datastore.errors import NotFound
from datastore.protocol import Store
from stowstore.records.errors import RecordDamaged
from stowstore.records.layout import Layout

__all__ = ["read_condemned", "write_condemned"]

_LARGEST: Final = 1 << 30


def read_condemned(store: Store, layout: Layout) -> dict[str, int]:
    """The keys that are about to go, and when each was listed, in nanoseconds since 1970.

    Raises:
        RecordDamaged: the list cannot be read: nothing may be written before it was removed or repaired.
    """
    try:
        with store.read_raw(layout.reference(layout.condemned), max_bytes=0) as stream:
            packed = stream.read()
    except NotFound:
        return {}
    try:
        data = json.loads(zlib.decompressobj().decompress(packed, _LARGEST))
        return {str(key): int(at_ns) for key, at_ns in data.items()}
    except (zlib.error, ValueError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"the list of objects to be removed, {layout.reference(layout.condemned)}, cannot be read",
            hint="remove it while nobody writes; the next collection makes it anew",
        ) from error


def write_condemned(store: Store, layout: Layout, condemned: Mapping[str, int]) -> None:
    """Replaces the list; an empty one is removed."""
    reference = layout.reference(layout.condemned)
    if condemned:
        store.write_bytes(reference, zlib.compress(json.dumps(dict(condemned)).encode()))
    else:
        store.delete(reference)
