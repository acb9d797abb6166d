"""RecordStore: durable homes for record directories, over any store."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from attrs import evolve, frozen

from datastore.events import get_logger
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from stowstore.records.closures import closure, require_all
from stowstore.records.committing import BaseDescription
from stowstore.records.condemned import read_condemned
from stowstore.records.directory import EDGE_LOG, RecordDirectory
from stowstore.records.errors import InvalidRecord, NoSuchRecord
from stowstore.records.index import RecordIndex
from stowstore.records.manifest import decode_manifest
from stowstore.records.model import Deletion, Edge, Manifest, Placement, RecordFile, Related
from stowstore.records.parallel import Progress
from stowstore.records.reading import RecordLike, RecordReader, directory_of
from stowstore.records.scanning import DigestCache, scan
from stowstore.records.sending import Sender
from stowstore.records.verifying import has_all

if TYPE_CHECKING:
    from stowstore.records.sending_spread import Spread

__all__ = ["Receipt", "RecordStore", "fetch"]

#: Finds the directory of a record by its uuid.
Locate = Callable[[str], Path | None]

_GRACE: Final = timedelta(days=1)

_log = get_logger(component="records")
_connected: ContextVar[tuple[RecordStore, ...]] = ContextVar("stow_connected_records", default=())


@frozen(kw_only=True)
class Receipt:
    """What a commit did; ``nested`` are those of the run records in the same directory."""

    uuid: str
    generation: int
    changed: bool
    files: int
    bytes: int
    moved_files: int
    moved_bytes: int
    nested: tuple[Receipt, ...] = ()

    @property
    def all_moved_bytes(self) -> int:
        """Bytes that were sent, those of nested records included."""
        return self.moved_bytes + sum(receipt.all_moved_bytes for receipt in self.nested)


class RecordStore(RecordReader):
    """Records below one reference of a store, in the words of machinable's ``Storage``.

    Data are written before the manifest that commits them, and a manifest is removed before its data, so whoever reads
    sees a record as it was committed, or none.  Thread-safe.  As a context manager it is one of the ``connected``
    stores, which `fetch` asks, and closes its store at the end if it was opened by `open_records`.

    ``placement`` None takes what the base says, plain for a new one.  ``grace`` is how long objects nobody needs any
    more stay for those who read an older manifest; it must be longer than any upload.  ``index`` is told of all that
    is committed, retrieved and deleted.  ``spread`` has the workers that send files, threads of this process without.
    """

    def __init__(
        self,
        store: Store,
        base: Reference,
        *,
        placement: Placement | None = None,
        parallel: int = 16,
        grace: timedelta = _GRACE,
        cache: DigestCache | None = None,
        index: RecordIndex | None = None,
        progress: Progress | None = None,
        address: str | None = None,
        owns_store: bool = False,
        spread: Spread | None = None,
    ) -> None:
        grace_ns = int(grace.total_seconds() * 1e9)
        super().__init__(
            store,
            base,
            parallel=parallel,
            cache=cache,
            index=index,
            progress=progress,
            address=address,
            grace_ns=grace_ns,
        )
        self.grace = grace
        self._placement = placement
        self._owns_store = owns_store
        self._spread = spread
        self._description: BaseDescription | None = None

    # Where things are.

    @classmethod
    def connected(cls) -> tuple[RecordStore, ...]:
        """The stores that are open as contexts here, outermost first."""
        return _connected.get()

    def ensure_materialized(self) -> BaseDescription:
        """What the base says of itself; written with the first use.

        Raises:
            RecordCollision: it keeps its files otherwise than this object was told to.
        """
        if self._description is None:
            self._description = self.manifests.describe(self._placement)
        return self._description

    # Bringing records in.

    def commit(self, record: RecordLike) -> Receipt:
        """Brings the store to the state of a directory, run records in it first; only what it does not have is sent.

        A file removed from the directory is not in the committed record; edge logs are united.  Two commits of one
        record leave one of the two states, whole.

        Raises:
            InvalidRecord: the directory is no record, or holds what none can.
            RecordCollision: the uuid is that of another record in the store.
            FileChanged: a file would not keep still.
        """
        directory = directory_of(record)
        placement = self.ensure_materialized().placement
        found = scan(directory.path, directory.uuid)
        nested = tuple(self.commit(RecordDirectory.open(path)) for path in found.nested)
        token = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
        sender = Sender(
            self.store,
            self.layout,
            directory,
            placement=placement,
            token=token,
            parallel=self.parallel,
            cache=self._cache,
            progress=self._progress,
            spread=self._spread,
        )

        def build(before: Manifest | None) -> Manifest:
            model, updated_at = directory.model(), directory.updated_at
            files = sender.send(found, before)
            return Manifest(
                header=directory.header,
                generation=0,
                commit=token,
                committed_at_ns=0,
                updated_at=updated_at,
                place=directory.place() or (None if before is None else before.place),
                model=model,
                edges=self._united_edges(directory, files, before),
                files=files,
                file_count=len(files),
            )

        manifest, changed = self.manifests.commit(directory.uuid, build, token)
        sender.end()
        if self.index is not None:
            self.index.add(manifest, home_uri=self.home_uri(manifest.uuid), directory=directory.path)
        return Receipt(
            uuid=manifest.uuid,
            generation=manifest.generation,
            changed=changed,
            files=len(manifest.files),
            bytes=sum(file.size for file in manifest.files),
            moved_files=sender.moved_files,
            moved_bytes=sender.moved_bytes,
            nested=nested,
        )

    update = commit

    def push(self, local: str | os.PathLike[str], uuid: str) -> str:
        """Commits the directory of a record and returns its URI.

        Raises:
            InvalidRecord: the directory is missing, no record, or another one.
        """
        directory = RecordDirectory.open(local)
        if directory.uuid != uuid:
            raise InvalidRecord(f"{directory.path} is the record {directory.uuid}, not {uuid}")
        self.commit(directory)
        return self.home_uri(uuid)

    def upload(
        self,
        record: RecordLike,
        related: Related | str | int = Related.DIRECT,
        *,
        locate: Locate | None = None,
        skip_missing: bool = False,
    ) -> list[Receipt]:
        """Commits a record and those related to it, each once, the given one first.

        ``locate`` finds their directories by uuid; the index does without it.  One that is not local is fine if the
        store has it.

        Raises:
            RelatedMissing: some are in neither place; all others were committed. Not with ``skip_missing``.
        """
        find = locate or (self.index.locate if self.index is not None else _nowhere)
        receipts: list[Receipt] = []
        missing: list[str] = []
        first = directory_of(record)
        nested: set[str] = set()

        def visit(uuid: str) -> tuple[str, ...]:
            path = first.path if uuid == first.uuid else find(uuid)
            if path is None:
                if not self.contains(uuid):
                    missing.append(uuid)
                return ()
            directory = RecordDirectory.open(path)
            if uuid not in nested:
                receipt = self.commit(directory)
                receipts.append(receipt)
                nested.update(_nested_uuids(receipt))
            above = (directory.header.parent,) if directory.header.parent and directory.place() else ()
            ends = (end for edge in directory.edges() for end in (edge.uuid, edge.related_uuid))
            return tuple(dict.fromkeys((*ends, *above)))

        closure(first.uuid, visit, Related.of(related))
        require_all(missing, skip_missing)
        return receipts

    def set_label(self, uuid: str, label: str | None) -> bool:
        """Names a record in the store, without a local copy of it; False if it had that name.

        Raises:
            NoSuchRecord: there is none.
        """
        self.manifest(uuid)
        token = f"{time.time_ns():020d}-{secrets.token_hex(6)}"

        def build(before: Manifest | None) -> Manifest:
            if before is None:
                raise NoSuchRecord(f"the record {uuid} was deleted meanwhile")
            model = {**before.model, "label": label}
            content = json.dumps(model, ensure_ascii=False).encode()
            digest = hashlib.sha256(content).hexdigest()
            if dict(before.model) == model:
                return before
            key = f"{self.layout.versioned(uuid, digest)}-{token}"
            self.store.write_bytes(self.layout.reference(key), content)
            named = RecordFile(path="model.json", size=len(content), sha256=digest, key=key)
            others = [file for file in before.files if file.path != "model.json"]
            files = tuple(sorted((*others, named), key=lambda file: file.path))
            return evolve(before, model=model, files=files)

        manifest, changed = self.manifests.commit(uuid, build, token)
        if self.index is not None:
            self.index.add(manifest, home_uri=self.home_uri(uuid))
        return changed

    # Letting go of records.

    def delete(self, uuid: str, deletion: Deletion = Deletion.NOW) -> bool:
        """Removes a record, its manifest first; True if there was one.  Missing pieces do not matter.

        Its run records are records of their own and stay.  A record that somebody commits at the same moment must be
        trashed, not deleted at once.
        """
        stored = self.manifests.read(uuid)
        if stored is None:
            if deletion is Deletion.NOW:
                self._remove_objects(uuid)
            return False
        if deletion is Deletion.TRASH:
            kept = self.layout.reference(self.layout.trashed(uuid, time.time_ns()))
            self.store.copy_raw(self.layout.reference(self.layout.manifest(uuid)), kept)
        self.store.delete(self.layout.reference(self.layout.manifest(uuid)))
        if deletion is Deletion.NOW:
            self._remove_objects(uuid)
        self.store.delete_many([self.layout.reference(key) for key in self.layout.pointers(stored.manifest)])
        if self.index is not None:
            self.index.mark_missing(uuid)
        return True

    def restore(self, uuid: str) -> bool:
        """Takes a record out of the trash, as it was when it was trashed last; False if it is not there any more.

        Raises:
            RecordCollision: another record has taken the uuid since.
        """
        trashed = [entry.reference for entry in self.store.walk(self._trash_of(uuid), directory=True)]
        if not trashed:
            return False
        if not self.contains(uuid):
            manifest = self.manifests.complete(decode_manifest(self.store.read_bytes(trashed[-1]), uuid))
            condemned = read_condemned(self.store, self.layout)
            if any(file.key in condemned for file in manifest.files):
                return False
            token = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
            self.manifests.commit(uuid, lambda before: manifest if before is None else before, token)
        self.store.delete_many(trashed)
        return True

    def evict(self, directory: str | os.PathLike[str], *, deep: bool = True) -> bool:
        """Removes a local copy that the store has, byte for byte; False if it has not, or the copy is not whole.

        With ``deep`` the stored bytes are read for that.  Run records in it have to be stored, too.
        """
        record = RecordDirectory.open(directory)
        if not self.is_evictable(record, deep=deep):
            return False
        shutil.rmtree(record.path)
        if self._cache is not None:
            self._cache.forget(record.path)
        if self.index is not None:
            self.index.mark_remote(record.uuid)
        return True

    def is_evictable(self, directory: RecordLike, *, deep: bool = True) -> bool:
        """Whether the store has every byte of a local copy, and of the run records in it."""
        record = directory_of(directory)
        for path in (record.path, *scan(record.path, record.uuid).nested):
            inner = RecordDirectory.open(path)
            try:
                if not has_all(self.manifest(inner.uuid), inner) or not self.verify(inner.uuid, deep=deep):
                    return False
            except NoSuchRecord:
                return False
        return True

    def close(self) -> None:
        """Closes the store, if this object opened it."""
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        _connected.set((*_connected.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack = list(_connected.get())
        if self in stack:
            stack.reverse()
            stack.remove(self)
            _connected.set(tuple(reversed(stack)))
        self.close()

    def __repr__(self) -> str:
        return f"RecordStore({self.root()!r})"

    def _united_edges(
        self, directory: RecordDirectory, files: tuple[RecordFile, ...], before: Manifest | None
    ) -> tuple[Edge, ...]:
        """The edges of the log as it was sent: of both writers, if another one has added some."""
        local = directory.edges()
        if before is None or not any(file.path == EDGE_LOG for file in files):
            return local
        return tuple(dict.fromkeys((*before.edges, *local)))

    def _remove_objects(self, uuid: str) -> None:
        # Shared blobs are left to the collection: other records may need them.
        prefix = self.layout.reference(self.layout.record(uuid))
        failed = self.store.delete_many([entry.reference for entry in self.store.walk(prefix, directory=True)])
        for error in failed.values():
            raise error

    def _trash_of(self, uuid: str) -> DataReference:
        return self.layout.reference(self.layout.trashed(uuid))


def fetch(uuid: str, directory: str | os.PathLike[str]) -> bool:
    """Retrieves a record from the first connected store that has it and whose copy is whole, outermost first."""
    return any(store.retrieve(uuid, directory) for store in RecordStore.connected())


def _nested_uuids(receipt: Receipt) -> Iterator[str]:
    for inner in receipt.nested:
        yield inner.uuid
        yield from _nested_uuids(inner)


def _nowhere(uuid: str) -> Path | None:
    return None
