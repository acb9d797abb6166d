"""Crash journals of volumes: which volume and version a metadata store's records lie over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote, unquote, urlsplit

from stowstore.index.keys import SUPERBLOCK
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.metastore import choose_kind, open_metastore
from stowstore.versions.errors import VolumeError
from stowstore.versions.manifest import Manifest
from stowstore.versions.root import Root

__all__ = ["BASE", "PENDING", "ROOT", "has_changes", "journal_name", "lies_in", "open_journal"]

#: The root of the volume; of a directory the one its path leads to.
ROOT: Final = "root"

#: The version the records lie over.
BASE: Final = "base"

#: The version that is being published from them: should its head be found moved, they go with that one as well.
PENDING: Final = "pending"


def journal_name(root: Root, volume: str, manifest: Manifest | None) -> dict[str, bytes]:
    """What a journal says of itself."""
    return {
        ROOT: _place(root.address).encode(),
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
        if lies_in(found[ROOT] or b"", name[ROOT]):
            found[ROOT] = name[ROOT]
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


def lies_in(said: bytes, root: bytes) -> bool:
    """Whether what a journal says of its root is this one; earlier releases said the last part of a directory alone."""
    return said == root or (
        said.startswith(b"file://")
        and said.rpartition(b"/")[2] == root.rpartition(b"/")[2]
        and not (said.startswith(b"file:///") and root.startswith(b"file:///"))
    )


def has_changes(metastore: MetaStore) -> bool:
    """Whether a journal holds anything uncommitted; counters alone are no change."""
    return any(key != SUPERBLOCK for key, _ in metastore.load())


def _place(address: str) -> str:
    """A root as all that write into it on this machine call it: links on the way to a directory are followed."""
    parts = urlsplit(address)
    if parts.scheme != "file" or parts.netloc:
        return address
    above, _, name = unquote(parts.path).rpartition("/")
    return f"file://{quote(os.path.join(os.path.realpath(above or '/'), name))}"


def _refuse(found: Mapping[str, bytes | None], name: Mapping[str, bytes], meta_dir: Path | None) -> NoReturn:
    shown = {key: (value or b"").decode("utf-8", "replace") for key, value in found.items()}
    wanted = {key: value.decode() for key, value in name.items()}
    if (shown[ROOT], shown["volume"]) == (wanted[ROOT], wanted["volume"]):
        hint = f"make them a volume of their own: stowstore volume recover '{wanted[ROOT]}#{wanted['volume']}' NEWNAME"
        hint += f" --meta-dir '{meta_dir}'; or use another meta_dir"
        elsewhere = ""
    else:
        hint = "use another meta_dir; or open that volume with it, and commit or discard the changes"
        elsewhere = f"{wanted['volume']} in {wanted[ROOT]} "
    raise VolumeError(
        f"{meta_dir} holds uncommitted changes of {shown['volume']} in {shown[ROOT]} over version "
        f"{shown[BASE] or 'none'}, not {f'of {elsewhere}' if elsewhere else ''}over {wanted[BASE] or 'none'}",
        hint=hint,
    )
