"""Whose object is it?  Asked when a conditional write is refused after an earlier try of it may have taken effect."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from datastore.errors import StoreError
from datastore.model import Metadata
from datastore.protocol import Reference, Store
from datastore.source import Source

__all__ = ["copied_by_us", "written_by_us"]

#: Up to this many bytes are read back where no digest of what is there is known.
_READ_BACK = 16 << 20

_UNCLEAR = "an earlier try of this very operation may have made it: its answer was lost. Compare before trying again"


def written_by_us(store: Store, reference: Reference, source: Source, refused: StoreError) -> Metadata:
    """The metadata of the object if it has the content of ``source``; else raises ``refused``.

    The hint of ``refused`` says so when that cannot be told.
    """
    found = store.head(reference)
    if not found.exists or not source.rewind():
        raise _unclear(refused)
    size, ours = _measure(source)
    if found.size != size:
        raise refused
    theirs = _digest(store, reference, found)
    if theirs is None:
        raise _unclear(refused)
    if theirs != ours:
        raise refused
    return Metadata(exists=True, size=size, etag=found.etag)


def copied_by_us(store: Store, source: Reference, destination: Reference, refused: StoreError) -> Metadata:
    """The same for a copy."""
    wanted, found = store.head(source), store.head(destination)
    if not wanted.exists or not found.exists:
        raise _unclear(refused)
    if found.size != wanted.size:
        raise refused
    ours, theirs = _digest(store, source, wanted), _digest(store, destination, found)
    if ours is None or theirs is None:
        raise _unclear(refused)
    if ours != theirs:
        raise refused
    return Metadata(exists=True, size=found.size, etag=found.etag)


def _unclear(refused: StoreError) -> StoreError:
    refused.hint = refused.hint or _UNCLEAR
    return refused


def _digest(store: Store, reference: Reference, known: Metadata) -> str | None:
    """The MD5 (base64) of what is there: the one its writer declared, or of the bytes; None if they are too many.

    The etag is no help: where it is not an MD5 it looks like one.
    """
    if known.content_md5:
        return known.content_md5
    if known.size > _READ_BACK:
        return None
    with store.read_raw(reference, max_bytes=0, if_match=known.etag or None) as stream:
        return _measure(stream)[1]


def _measure(pieces: Iterable[bytes]) -> tuple[int, str]:
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, base64.b64encode(digest.digest()).decode()
