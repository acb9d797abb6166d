"""RecordReader: the reading half of a record store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from datastore.events import get_logger
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from stowstore.records.closures import closure, require_all
from stowstore.records.committing import Manifests
from stowstore.records.directory import RecordDirectory
from stowstore.records.errors import InvalidRecord, NoSuchRecord, RecordDamaged
from stowstore.records.fetching import Fetcher, Placed
from stowstore.records.index import RecordIndex
from stowstore.records.layout import Layout
from stowstore.records.model import Manifest, Match, Related
from stowstore.records.parallel import Progress, each
from stowstore.records.scanning import DigestCache
from stowstore.records.searching import Criteria, candidates, search
from stowstore.records.verifying import Verification, verify

__all__ = ["RecordLike", "RecordReader", "directory_of"]

RecordLike = RecordDirectory | str | os.PathLike[str]

_log = get_logger(component="records")


class RecordReader:
    """Records below one reference of a store, as they were committed: found, verified and brought here.

    Nothing is ever written to the store.  Thread-safe.
    """

    def __init__(
        self,
        store: Store,
        base: Reference,
        *,
        parallel: int = 16,
        cache: DigestCache | None = None,
        index: RecordIndex | None = None,
        progress: Progress | None = None,
        address: str | None = None,
        grace_ns: int = 0,
    ) -> None:
        self.store = store
        self.base = base if isinstance(base, DataReference) else DataReference(base)
        self.base.require_prefix()
        self.index = index
        self.parallel = parallel
        self._cache = cache
        self._progress = progress
        self._address = address
        self.layout = Layout(self.base, store.capabilities(self.base).max_key_bytes)
        self.manifests = Manifests(store, self.layout, parallel=parallel, grace_ns=grace_ns)

    def root(self) -> str:
        """The URI of the base."""
        return self._address or str(self.base)

    def home_uri(self, uuid: str) -> str:
        """Where a record lies, or would lie."""
        parts = urlsplit(self.root())
        return parts._replace(path=f"{parts.path.rstrip('/')}/{self.layout.record(uuid)}").geturl()

    # Getting records out.

    def contains(self, uuid: str) -> bool:
        """Whether the store holds a committed record."""
        return self.store.head(self.layout.reference(self.layout.manifest(uuid))).exists

    def manifest(self, uuid: str) -> Manifest:
        """The manifest of a record with all its files.

        Raises:
            NoSuchRecord: there is none.
        """
        stored = self.manifests.read(uuid)
        if stored is None:
            raise NoSuchRecord(f"there is no record {uuid} in {self.root()}", hint="'record ls' lists what there is")
        return self.manifests.complete(stored.manifest)

    def retrieve(self, uuid: str, directory: str | os.PathLike[str]) -> bool:
        """Puts a record, its run records included, at a directory; True only if all of it was verified and is there.

        False without a trace for a record that is unknown or damaged; what is damaged is logged, and `verify` tells.

        Raises:
            AlreadyExists: the directory holds something else.
        """
        try:
            self._retrieve(uuid, Path(directory))
        except NoSuchRecord:
            return False
        except RecordDamaged as error:
            _log.warning("records.damaged", uuid=uuid, error=str(error))
            return False
        return True

    def pull(self, uuid: str, into: str | os.PathLike[str] | None = None) -> str | None:
        """The URI of the local copy made at ``into``, or of the stored record if that is None; None if not verified."""
        if into is None:
            return self.home_uri(uuid) if self.contains(uuid) and self.verify(uuid) else None
        return Path(into).absolute().as_uri() if self.retrieve(uuid, into) else None

    def download(
        self,
        uuid: str,
        destination: str | os.PathLike[str],
        related: Related | str | int = Related.DIRECT,
        *,
        skip_missing: bool = False,
    ) -> list[Path]:
        """Retrieves a record and those related to it below a directory, each once; the given one comes first.

        Run records lie in the directories of their parents and are not retrieved twice.

        Raises:
            NoSuchRecord: the record itself is not there.
            RelatedMissing: related ones are not; all others were retrieved. Not with ``skip_missing``.
            RecordDamaged: one is not what its manifest says.
        """
        below = Path(destination)
        missing: list[str] = []
        directories: list[Path] = []
        nested: set[str] = set()

        def visit(wanted: str) -> tuple[str, ...]:
            try:
                records = self._placed(wanted)
            except NoSuchRecord:
                if wanted == uuid:
                    raise
                missing.append(wanted)
                return ()
            if wanted not in nested:
                self._retrieve(wanted, below / wanted, records)
                directories.append(below / wanted)
                nested.update(manifest.uuid for manifest, _ in records)
            # The runs' own relations are the record's: whoever gets a run needs what it used.
            return tuple(dict.fromkeys(end for manifest, _ in records for end in manifest.related()))

        closure(uuid, visit, Related.of(related))
        require_all(missing, skip_missing)
        return directories

    def verify(self, uuid: str, *, deep: bool = False) -> Verification:
        """Compares the stored files of a record with its manifest: their sizes, with ``deep`` every byte.

        Raises:
            NoSuchRecord: there is none.
        """
        try:
            manifest = self.manifest(uuid)
        except RecordDamaged as error:
            return Verification(uuid=uuid, problems=(error.message,))
        return verify(self.store, self.layout, manifest, deep=deep, parallel=self.parallel)

    # Finding records.

    def walk(self) -> Iterator[Manifest]:
        """The manifests of all records, as they come, without the files of long ones; nothing else is read.

        Damaged ones are logged and left out.
        """

        def load(uuid: str) -> Manifest | None:
            try:
                stored = self.manifests.read(uuid)
            except (RecordDamaged, InvalidRecord) as error:
                _log.warning("records.damaged", uuid=uuid, error=str(error))
                return None
            return None if stored is None else stored.manifest

        for manifest in each(self.manifests.uuids(), load, self.parallel):
            if manifest is not None:
                yield manifest

    def search_for(self, record: RecordLike, match: Match = Match.IDENTITY) -> list[str]:
        """The uuids of committed records like this one: one listing."""
        header = directory_of(record).header
        return self.search(
            identity_key=header.identity_key,
            predicate_key=header.predicate_key if match is Match.PREDICATE else None,
        )

    def search(
        self,
        *,
        identity_key: str | None = None,
        predicate_key: str | None = None,
        label: str | None = None,
        parent: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """The uuids of committed records that fit all that is given: one listing, and a look at each that it names.

        Times are those at which records were made, ``until`` is not included.  Without identity, label or parent the
        newest come first.  For questions about configurations and predicates ask a `RecordIndex`.

        Raises:
            ValueError: a predicate key without an identity key.
        """
        criteria = Criteria(
            identity_key=identity_key, predicate_key=predicate_key, label=label, parent=parent, since=since, until=until
        )
        return search(self.store, self.layout, self.manifests, criteria, limit)

    def _retrieve(self, uuid: str, directory: Path, records: list[Placed] | None = None) -> None:
        placed = records or self._placed(uuid)
        complete = [Placed(self.manifests.complete(manifest), place) for manifest, place in placed]
        fetcher = Fetcher(self.store, self.layout, parallel=self.parallel, cache=self._cache, progress=self._progress)
        fetcher.fetch(complete, directory)
        if self.index is not None:
            for manifest, place in complete:
                self.index.add(manifest, home_uri=self.home_uri(manifest.uuid), directory=directory / place)

    def _placed(self, uuid: str) -> list[Placed]:
        """A record and the run records below it."""
        stored = self.manifests.read(uuid)
        if stored is None:
            raise NoSuchRecord(f"there is no record {uuid} in {self.root()}", hint="'record ls' lists what there is")
        found = [Placed(stored.manifest, "")]
        seen = {uuid}
        for above in found:
            children = candidates(self.store, self.layout, self.layout.by_parent(above.manifest.uuid))
            for child in children:
                inner = None if child in seen else self.manifests.read(child)
                seen.add(child)
                if inner is None or inner.manifest.place is None or inner.manifest.header.parent != above.manifest.uuid:
                    continue
                place = f"{above.place}/{inner.manifest.place}" if above.place else inner.manifest.place
                found.append(Placed(inner.manifest, place))
        return found


def directory_of(record: RecordLike) -> RecordDirectory:
    """The directory of a record, opened if it is given by its path."""
    return record if isinstance(record, RecordDirectory) else RecordDirectory.open(record)
