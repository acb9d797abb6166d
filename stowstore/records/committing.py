"""Reading and committing the manifests of one base: the objects that decide what a record is."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from attrs import evolve, frozen

from datastore import context
from datastore.errors import AlreadyExists, NotFound, PreconditionFailed
from datastore.model import Cursor, Feature, WriteOptions
from datastore.protocol import Store
from stowstore.records.errors import RecordCollision, RecordConflict, RecordDamaged, RecordFormatTooNew
from stowstore.records.layout import Layout
from stowstore.records.manifest import (
    INLINE,
    cut,
    decode_manifest,
    decode_part,
    encode_manifest,
    encode_part,
    with_files,
)
from stowstore.records.model import FileKind, Manifest, Placement, RecordFile, Retired
from stowstore.records.parallel import each

__all__ = ["BaseDescription", "Manifests", "Stored"]

_FORMAT: Final = 1
_ATTEMPTS: Final = 12
#: Threads that read parts: decoding them holds the interpreter, so more only get in each other's way.
_READERS: Final = 4


class Stored(NamedTuple):
    """A manifest as it lies in the store."""

    manifest: Manifest
    etag: str


@frozen(kw_only=True)
class BaseDescription:
    """What a base says of itself, so that all its writers keep to it."""

    placement: Placement
    created_at_ns: int


class Manifests:
    """The manifests below one base; thread-safe.

    With conditional writes two writers of one record cannot lose each other's commit.  Without them (`atomic` False) a
    commit is read back, which notices most races but not all: such a store takes one writer a record.
    """

    def __init__(self, store: Store, layout: Layout, *, parallel: int, grace_ns: int) -> None:
        self._store = store
        self._layout = layout
        self._parallel = parallel
        self._grace_ns = grace_ns
        features = store.capabilities(layout.base).features
        self._creates = Feature.CREATE_IF_ABSENT in features
        self._replaces = Feature.REPLACE_IF_MATCH in features

    @property
    def atomic(self) -> bool:
        """Whether the backend lets several writers commit to one record safely."""
        return self._creates and self._replaces

    def describe(self, placement: Placement | None) -> BaseDescription:
        """The description of the base, written if there is none.

        Raises:
            RecordFormatTooNew: a newer release made it.
            RecordCollision: it places files otherwise than ``placement`` asks for.
        """
        reference = self._layout.reference(self._layout.description)
        wanted = BaseDescription(placement=placement or Placement.PLAIN, created_at_ns=time.time_ns())
        try:
            found = _decode_description(self._store.read_bytes(reference))
        except NotFound:
            data = {"format": _FORMAT, "placement": wanted.placement.value, "created_at_ns": wanted.created_at_ns}
            try:
                self._store.write_bytes(
                    reference, json.dumps(data).encode(), WriteOptions(if_absent=True) if self._creates else None
                )
                return wanted
            except AlreadyExists:
                found = _decode_description(self._store.read_bytes(reference))
        if placement is not None and found.placement is not placement:
            raise RecordCollision(
                f"the records below {self._layout.base} are placed as {found.placement.value}, not {placement.value}",
                hint="leave the placement out, or choose another base",
            )
        return found

    def read(self, uuid: str) -> Stored | None:
        """The manifest of a record, without the files of its parts; None if it was never committed, or deleted.

        Raises:
            RecordDamaged: what lies there is none, or cannot be trusted.
        """
        try:
            with self._store.read_raw(self._layout.reference(self._layout.manifest(uuid)), max_bytes=0) as stream:
                raw = stream.read()
                etag = stream.metadata.etag
        except NotFound:
            return None
        manifest = decode_manifest(raw, uuid)
        for file in manifest.files:
            self._check(uuid, file)
        for retired in manifest.retired:
            self._layout.check_owned(uuid, retired.key)
        return Stored(manifest, etag)

    def complete(self, manifest: Manifest) -> Manifest:
        """The manifest with all its files.

        Raises:
            RecordDamaged: a part is missing, or not what its name says.
        """
        if not manifest.parts:
            return manifest
        uuid = manifest.uuid

        def load(name: str) -> tuple[str, list[RecordFile]]:
            try:
                packed = self._store.read_bytes(self._layout.reference(self._layout.part(uuid, name)))
            except NotFound as error:
                raise RecordDamaged(f"a part of the manifest of the record {uuid} is missing") from error
            return name, decode_part(packed, name, uuid)

        parts = dict(each(dict.fromkeys(manifest.parts), load, min(self._parallel, len(manifest.parts), _READERS)))
        files = [file for name in manifest.parts for file in parts[name]]
        for file in files:
            self._check(uuid, file)
        return with_files(manifest, files)

    def commit(self, uuid: str, build: Callable[[Manifest | None], Manifest], token: str) -> tuple[Manifest, bool]:
        """Commits what ``build`` makes of the newest manifest, again and again until nobody was faster.

        ``build`` gets the manifest with its files, and brings the data into the store before it returns.  Returns what
        is committed now, and whether that took a write.

        Raises:
            RecordCollision: the uuid belongs to another record.
            RecordConflict: others were faster every time.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                context.sleep(random.random() * 0.05 * attempt)
            stored = self.read(uuid)
            before = None if stored is None else self.complete(stored.manifest)
            wanted = build(before)
            if before is not None:
                _check_same(before, wanted)
                if _says_the_same(before, wanted):
                    return before, False
            manifest = self._numbered(wanted, before, token)
            if self._write(manifest, stored):
                self._remove_pointers(manifest, before)
                return manifest, True
        raise RecordConflict(
            f"others wrote the record {uuid} {_ATTEMPTS} times while this commit was made", hint="try again"
        )

    def uuids(self) -> Iterator[str]:
        """The records there may be, ascending; some may not be committed."""
        cursor = Cursor.at_start()
        prefix = self._layout.reference("records")
        while not cursor.is_at_end:
            page = self._store.list_page(prefix, None, cursor, delimiter="/", directory=True)
            yield from (reference.name for reference in page.prefixes)
            cursor = page.cursor

    def _numbered(self, wanted: Manifest, before: Manifest | None, token: str) -> Manifest:
        """The manifest as it will be written: counted, in parts if it is long, with what it retires."""
        files = wanted.files
        parts, fresh = self._parts(files, before) if len(files) > INLINE else ([], {})
        keys = {file.key for file in files} | {self._layout.part(wanted.uuid, name) for name in parts}
        now = time.time_ns()
        retired: dict[str, int] = {}
        if before is not None:
            retired = {key: at for key, at in before.retired if now - at < self._grace_ns}
            needed = {file.key for file in before.files if file.kind is FileKind.FILE}
            needed |= {self._layout.part(wanted.uuid, name) for name in before.parts}
            for key in sorted(needed - keys):
                retired.setdefault(key, now)

        def write_part(part: tuple[str, bytes]) -> None:
            self._store.write_bytes(self._layout.reference(self._layout.part(wanted.uuid, part[0])), part[1])

        for _ in each(list(fresh.items()), write_part, min(self._parallel, len(fresh))):
            pass
        return evolve(
            wanted,
            generation=1 if before is None else before.generation + 1,
            commit=f"{token}-{secrets.token_hex(4)}",
            committed_at_ns=now,
            parts=tuple(parts),
            file_count=len(files),
            total_bytes=sum(file.size for file in files),
            retired=tuple(Retired(key, at) for key, at in retired.items() if key not in keys),
        )

    def _parts(self, files: Sequence[RecordFile], before: Manifest | None) -> tuple[list[str], dict[str, bytes]]:
        """The names of the parts of a list, and what has to be written of them: those there were are not made again."""
        known: dict[str, tuple[Sequence[RecordFile], str]] = {}
        if before is not None:
            pieces = list(cut(before.files))
            if len(pieces) == len(before.parts):
                known = {piece[0].path: (piece, name) for piece, name in zip(pieces, before.parts, strict=True)}
        suffix = secrets.token_hex(4)
        names: list[str] = []
        fresh: dict[str, bytes] = {}
        for piece in cut(files):
            old, name = known.get(piece[0].path, ((), ""))
            if old != piece:
                digest, packed = encode_part(piece)
                name = f"{digest}-{suffix}"
                fresh[name] = packed
            names.append(name)
        return names, fresh

    def _write(self, manifest: Manifest, stored: Stored | None) -> bool:
        """Writes pointers, then the manifest; False if somebody else was faster."""
        fresh = set(self._layout.pointers(manifest))
        if stored is not None:
            fresh -= set(self._layout.pointers(stored.manifest))
        for key in sorted(fresh):
            self._store.write_bytes(self._layout.reference(key), b"")
        reference = self._layout.reference(self._layout.manifest(manifest.uuid))
        options = None
        if stored is None and self._creates:
            options = WriteOptions(if_absent=True)
        elif stored is not None and self._replaces and stored.etag:
            options = WriteOptions(if_match=stored.etag)
        try:
            self._store.write_bytes(reference, encode_manifest(manifest), options)
        except (AlreadyExists, PreconditionFailed):
            # Ours after all, if an earlier answer was lost.
            return self._is_ours(manifest)
        except NotFound:
            # It was deleted since: some backends say so instead of what the condition says.
            if stored is None:
                raise
            return False
        return options is not None or self._is_ours(manifest)

    def _is_ours(self, manifest: Manifest) -> bool:
        now = self.read(manifest.uuid)
        return now is not None and now.manifest.commit == manifest.commit

    def _remove_pointers(self, manifest: Manifest, before: Manifest | None) -> None:
        if before is not None:
            stale = set(self._layout.pointers(before)) - set(self._layout.pointers(manifest))
            self._store.delete_many([self._layout.reference(key) for key in sorted(stale)])

    def _check(self, uuid: str, file: RecordFile) -> None:
        if file.kind is FileKind.FILE:
            self._layout.check_owned(uuid, file.key)


def _check_same(before: Manifest, wanted: Manifest) -> None:
    if before.header != wanted.header:
        raise RecordCollision(
            f"the uuid {wanted.uuid} is that of another record already: identity {before.header.identity_key} there,"
            f" {wanted.header.identity_key} here",
            hint="give one of them another uuid",
        )


def _says_the_same(before: Manifest, wanted: Manifest) -> bool:
    return (
        before.files == wanted.files
        and before.place == wanted.place
        and dict(before.model) == dict(wanted.model)
        and before.edges == wanted.edges
    )


def _decode_description(raw: bytes) -> BaseDescription:
    try:
        data = json.loads(raw)
        if data["format"] > _FORMAT:
            raise RecordFormatTooNew(
                f"the records are of format {data['format']}, and this release knows up to {_FORMAT}",
                hint="upgrade stowstore",
            )
        return BaseDescription(placement=Placement(data["placement"]), created_at_ns=int(data["created_at_ns"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RecordDamaged("records.json, which says how records are kept here, cannot be read") from error
