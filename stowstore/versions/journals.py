"""Crash journals of volumes: which volume and version a metadata store's records lie over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from stowstore.index.keys import SUPERBLOCK
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.metastore import choose_kind, open_metastore
from stowstore.versions.errors import VolumeError
from stowstore.versions.manifest import Manifest
from stowstore.versions.root import Root

__all__ = ["BASE", "PENDING", "has_changes", "journal_name", "open_journal"]

#: The version the records lie over.
BASE: Final = "base"

#: The version that is being published from them: should its head be found moved, they go with that one as well.
PENDING: Final = "pending"


def journal_name(root: Root, volume: str, manifest: Manifest | None) -> dict[str, bytes]:
    """What a journal says of itself."""
    return {
        "root": str(root.base).encode(),
        "volume": volume.encode(),
        BASE: b"" if manifest is None else manifest.id.encode(),
    }


def open_journal(kind: str | None, meta_dir: Path | None, name: Mapping[str, bytes]) -> MetaStore:
    """The journal of a session, held against the volume and version it has to lie over; in memory without a directory.

    Raises:
        VolumeError: it holds changes of another volume, or over another version than the newest.
    """
    metastore = open_metastore("memory" if meta_dir is None else choose_kind(kind), meta_dir)
    try:
        found = {key: metastore.get_meta(key) for key in name}
        if any(value is not None for value in found.values()) and found != name:
            # A crash between publishing and starting the journal over leaves records that the version has already.
            published = {**found, BASE: metastore.get_meta(PENDING)} == name
            if not published:
                if has_changes(metastore):
                    _refuse(found, name, meta_dir)
                metastore.clear()
        for key, value in name.items():
            metastore.set_meta(key, value)
    except BaseException:
        metastore.close()
        raise
    return metastore


def has_changes(metastore: MetaStore) -> bool:
    """Whether a journal holds anything uncommitted; counters alone are no change."""
    return any(key != SUPERBLOCK for key, _ in metastore.load())


def _refuse(found: Mapping[str, bytes | None], name: Mapping[str, bytes], meta_dir: Path | None) -> NoReturn:
    shown = {key: (value or b"").decode("utf-8", "replace") for key, value in found.items()}
    raise VolumeError(
        f"{meta_dir} holds uncommitted changes of {shown['volume']} in {shown['root']} over version "
        f"{shown[BASE] or 'none'}, not of {name['volume'].decode()} over {name[BASE].decode() or 'none'}",
        hint="use another meta_dir; or open that volume with it, and commit or discard the changes; or make them a "
        "volume of their own: `stowstore volume recover`",
    )
