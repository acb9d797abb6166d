"""Comparing what a store has of a record with its manifest, and with a local copy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import field, frozen

from datastore.errors import NotFound
from datastore.protocol import Store
from stowstore.records.directory import EDGE_LOG, RecordDirectory
from stowstore.records.layout import Layout
from stowstore.records.model import FileKind, Manifest, RecordFile
from stowstore.records.parallel import each
from stowstore.records.scanning import digest_of, scan

__all__ = ["Verification", "has_all", "verify"]


@frozen(kw_only=True)
class Verification:
    """What is wrong with the copy of a record in a store; nothing, if ``problems`` is empty."""

    uuid: str
    files: int = 0
    problems: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return not self.problems


def verify(store: Store, layout: Layout, manifest: Manifest, *, deep: bool, parallel: int) -> Verification:
    """Looks at every stored file of a manifest: at its size, with ``deep`` at every byte."""
    files = {file.key: file for file in manifest.files if file.kind is FileKind.FILE}
    check = _by_bytes(store, layout) if deep else _by_size(store, layout, manifest.uuid)
    found = each(list(files.values()), check, min(parallel, len(files)))
    problems = sorted(problem for problem in found if problem is not None)
    return Verification(uuid=manifest.uuid, files=len(files), problems=tuple(problems))


def has_all(manifest: Manifest, record: RecordDirectory) -> bool:
    """Whether a manifest has a local copy as it is now."""
    stored = {file.path: file for file in manifest.files}
    found = scan(record.path, record.uuid)
    if {entry.path for entry in found.entries} - stored.keys():
        return False
    for entry in found.entries:
        file = stored[entry.path]
        if entry.kind is not file.kind or entry.target != file.target:
            return False
        if entry.kind is not FileKind.FILE or entry.path == EDGE_LOG:
            continue
        if entry.stamp.size != file.size or digest_of(record.path / entry.path)[1] != file.sha256:
            return False
    return set(record.edges()) <= set(manifest.edges)


def _by_size(store: Store, layout: Layout, uuid: str) -> Callable[[RecordFile], str | None]:
    prefix = layout.reference(layout.record(uuid))
    sizes = {layout.relative(entry.reference): entry.size for entry in store.walk(prefix, directory=True)}

    def problem(file: RecordFile) -> str | None:
        size = sizes.get(file.key)
        if size is None and file.key.startswith("blobs/"):
            found = store.head(layout.reference(file.key))
            size = found.size if found.exists else None
        if size is None:
            return f"{file.path}: missing"
        return None if size == file.size else f"{file.path}: {size} bytes instead of {file.size}"

    return problem


def _by_bytes(store: Store, layout: Layout) -> Callable[[RecordFile], str | None]:
    def problem(file: RecordFile) -> str | None:
        digest, size = hashlib.sha256(), 0
        try:
            with store.read_raw(layout.reference(file.key), max_bytes=0) as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
                    size += len(piece)
        except NotFound:
            return f"{file.path}: missing"
        if size != file.size:
            return f"{file.path}: {size} bytes instead of {file.size}"
        return None if digest.hexdigest() == file.sha256 else f"{file.path}: other content than was committed"

    return problem
