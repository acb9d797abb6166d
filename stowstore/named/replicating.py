"""Copying versions from one root to another: what is there already is not copied again, and the head moves last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from attrs import frozen

from datastore.copying import stream_copy
from datastore.errors import AlreadyExists, PreconditionFailed, Unsupported
from datastore.model import Feature, WriteOptions
from datastore.reference import DataReference
from stowstore.versions.errors import RootInUse
from stowstore.versions.history import walk_history
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.marking import Marker
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.root import Root
from stowstore.volumes.registry import registry

__all__ = ["Replicated", "bring", "link_file", "replicate"]

_PARALLEL: Final = 16

#: Copies one object of the source to the target.
Transfer = Callable[[DataReference, DataReference], None]


@frozen(kw_only=True)
class Replicated:
    """What was copied: objects, and versions of the history."""

    version: VersionName
    copied: int
    present: int
    versions: int


def replicate(
    source: Root, target: Root, head: VersionName, *, name: str, new: bool = False, transfer: Transfer | None = None
) -> Replicated:
    """Makes a version and its history that of a volume of another root, which is made, or moved on from its past.

    Nothing is visible in the target before everything is there.  The target's volume is locked against other writers
    meanwhile.

    Raises:
        RootInUse: ``new`` is asked for, and there is a volume of that name.
        PreconditionFailed: the target's volume has versions that are not in this history.
        Unsupported: the roots are encrypted by different keys.
        LeaseHeld: somebody writes the target's volume.
    """
    _require_one_key(source, target)
    manifests = list(walk_history(source, head))
    lease = Lease(target.store, target.lease_reference(name))
    try:
        before = target.head(name) if target.has_volume(name) else None
        if before is not None and new:
            raise RootInUse(f"there is a volume {name!r} in {target.address} already", hint="choose another name")
        if before is not None and before.id not in {manifest.id for manifest in manifests}:
            raise PreconditionFailed(
                f"{name} in {target.address} has moved on: its newest version {before.id} is not in this history",
                hint="push under another name, or pull and merge first",
            )
        copied, present = _carry(source, target, manifests, transfer)
        lease.require()
        if before != head:
            target.set_head(name, head, before)
    finally:
        lease.release()
    return Replicated(version=head, copied=copied, present=present, versions=len(manifests))


def bring(source: Root, target: Root, head: VersionName, *, transfer: Transfer | None = None) -> None:
    """Copies a version and its history into another root, where no volume has it yet: to be merged there.

    Raises:
        Unsupported: the roots are encrypted by different keys.
    """
    _require_one_key(source, target)
    _carry(source, target, list(walk_history(source, head)), transfer)


def link_file(source: Path, target: Path) -> Transfer:
    """Copies between two roots on one disk by giving the same bytes a second name; both are directories of roots."""

    def move(reference: DataReference, there: DataReference) -> None:
        old = _at(source, reference)
        new = _at(target, there)
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old, new)
        except FileExistsError:
            pass
        except OSError:
            # Another disk, or one without links: a copy that appears whole.
            draft = new.with_name(f".{new.name}.{os.getpid()}")
            shutil.copyfile(old, draft)
            os.replace(draft, new)

    return move


def _require_one_key(source: Root, target: Root) -> None:
    if source.format.encryption != target.format.encryption:
        raise Unsupported(
            "the two roots are not encrypted by the same key, so versions cannot be copied between them",
            hint="back up into a tar file, and restore that",
        )


def _carry(source: Root, target: Root, manifests: Sequence[Manifest], transfer: Transfer | None) -> tuple[int, int]:
    """Copies packs first and manifests last; returns how many packs were copied, and how many were there."""
    with chunk_store(source, SessionOptions(key=registry.key_source(source.address))) as chunks:
        marker = Marker(chunks.index_reader)
        for manifest in reversed(manifests):
            marker.mark(manifest.snapshot)
        packs = [chunks.pack_reference(kind, pack) for kind, pack in marker.marks]
    move = transfer or _streamed(source, target)

    def copy(reference: DataReference) -> bool:
        there = target.base.join(*_below(source.base, reference).split("/"))
        if target.store.head(there).exists:
            return False
        move(reference, there)
        return True

    with ThreadPoolExecutor(_PARALLEL, "stow-replicate") as pool:
        copied = sum(pool.map(copy, packs))
    for manifest in reversed(manifests):
        at = target.base.join("versions", manifest.volume, manifest.id)
        if not target.store.head(at).exists:
            target.write_manifest(manifest)
    return copied, len(packs) - copied


def _at(directory: Path, reference: DataReference) -> Path:
    return directory / reference.key


def _streamed(source: Root, target: Root) -> Transfer:
    def move(reference: DataReference, there: DataReference) -> None:
        able = Feature.CREATE_IF_ABSENT in target.store.capabilities(there)
        try:
            stream_copy(source.store, reference, target.store, there, WriteOptions(if_absent=able))
        except AlreadyExists:
            # Somebody who pushes the same was faster.
            pass

    return move


def _below(base: DataReference, reference: DataReference) -> str:
    return reference.key[len(base.key) + 1 :] if base.key else reference.key
