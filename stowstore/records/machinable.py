"""machinable's storage on any store: ``Stow("s3://bucket/prefix")`` mirrors the records of a project and restores them.

    with Stow("s3://bucket/records?region=eu-west-1"), Storage("./storage"):
        experiment.launch()

Every connected storage gets what is materialised, and again when a run ends. This one also follows what is saved later:
it looks at the ``updated_at`` markers of the records it has seen, and brings the last state when it is left. Nothing
in machinable is replaced, so this works with the released package (5.1).
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, cast

from machinable import Index, Interface, Storage
from machinable.api.models import FindRequest
from machinable.utils import path_to_uri, sanitize_filename, uri_to_path
from pydantic import BaseModel

from datastore.errors import ConfigError, StoreError
from datastore.events import get_logger
from stowstore.records.directory import MARKER, RecordDirectory
from stowstore.records.errors import InvalidRecord
from stowstore.records.model import Manifest, Placement, Related
from stowstore.records.opening import open_records
from stowstore.records.scanning import DigestCache, scan
from stowstore.records.store import RecordStore

__all__ = ["Stow"]

_PAGE: Final = 1000
_TICK_NS: Final = 50_000_000
_log = get_logger(component="records")


class Stow(Storage):
    """Record directories in any store, as a mirror of the storages it is connected around, or as a home of its own.

    As a mirror it is connected first, outside the storage whose directories it follows. As the innermost storage it
    keeps the working directories below ``directory``, as the base class does, and their durable copies at ``url``.

    Secrets are not configuration, which is stored: they come from the environment, or from files named in the URL.
    """

    class Config(BaseModel):
        """``url`` is the base of the records; ``follow_seconds`` is how often late changes are looked for."""

        directory: str = "./storage"
        url: str = ""
        placement: str = ""
        parallel: int = 16
        follow_seconds: float = 2.0

    def __init__(self, version: Any = None) -> None:
        if isinstance(version, str) and "://" in version:
            version = {"url": version}
        super().__init__(version=version)
        self._records: RecordStore | None = None
        self._opening = threading.Lock()
        self._follower: _Follower | None = None

    @property
    def id(self) -> str:
        """What rows of the index call this storage."""
        return "stow"

    @property
    def records(self) -> RecordStore:
        """The records themselves, opened when first asked for."""
        with self._opening:
            if self._records is None:
                config = cast(Any, self.config)
                if not config.url:
                    raise ConfigError(
                        "stowstore's storage has no url", hint='write Stow("s3://bucket/prefix"), or file:///directory'
                    )
                self._records = open_records(
                    config.url,
                    placement=Placement(config.placement) if config.placement else None,
                    parallel=config.parallel,
                    cache=DigestCache(),
                )
            return self._records

    @property
    def pending(self) -> int:
        """How many of the records seen here have changes that are not in the store yet."""
        return 0 if self._follower is None else self._follower.pending

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._follower = _Follower(self.records, cast(Any, self.config).follow_seconds)
        return self

    def __exit__(self, *details: object) -> None:
        follower = self._follower
        try:
            if follower is not None:
                self._follow_changed(follower)
                follower.end(failing=bool(details and details[0]))
        finally:
            self._follower = None
            super().__exit__(*details)  # type: ignore[no-untyped-call]

    def home_uri(self, uuid: str) -> str:
        """Where a record lies in the store."""
        return self.records.home_uri(uuid)

    def commit(self, interface: Interface) -> None:
        """Brings a record's directory, as it is now, into the store; with a run, the record it is a run of."""
        if interface.kind == "Project":
            # The project itself is a row of the index, and has no record directory.
            return
        index = Index.get()
        if not interface.is_materialized():
            index.materialize_from(interface)
        uuid = cast(str, interface.uuid)
        directory = Path(interface.local_directory())
        if not (directory / MARKER).is_file():
            return
        self._commit_directory(_outermost(RecordDirectory.open(directory)))
        entry = index.get_by_id(uuid)
        if entry is not None and entry.storage_id != self.id:
            index.set_storage(uuid, entry.storage_uri, self.id)

    def update(self, interface: Interface) -> None:
        """Brings what has changed since."""
        self.commit(interface)

    def contains(self, uuid: str) -> bool:
        """Whether the store has the record's bytes."""
        return self.records.contains(uuid)

    def upload(self, interface: Interface, related: bool | int | str = True) -> None:
        """Commits a record and those related to it, each once."""
        kind = Related.of(related)
        self.commit(interface)
        if kind is Related.NONE:
            return
        for other in interface.related(deep=kind is Related.ALL).all():  # type: ignore[no-untyped-call]
            if other.kind == "Project" or other.uuid == interface.uuid:
                continue
            if os.path.isdir(other.local_directory()):
                self.commit(other)
            elif not self.contains(other.uuid):
                _log.warning("records.related_missing", uuid=other.uuid)

    def download(self, uuid: str, destination: str | None = None, related: bool | int | str = True) -> list[str]:
        """Retrieves a record and those related to it, each once; without a destination, into the index as well.

        Raises:
            NoSuchRecord: the record itself is not in the store.
        """
        below = Path(destination) if destination is not None else Path(self.root())
        found = self.records.download(uuid, below, Related.of(related), skip_missing=True)
        if destination is None:
            index = Index.get()
            for directory in found:
                for record in (directory, *scan(directory, directory.name).nested):
                    index.ingest_directory(str(record), storage_id=self.id, relations=bool(related))
        return [str(directory) for directory in found]

    def retrieve(self, uuid: str, local_directory: str) -> bool:
        """Puts a record at a directory; True only if all of it was verified and is there.

        A run whose record is not there either comes with it: it lies in its directory.
        """
        stored = self.records.manifests.read(uuid)
        if stored is None:
            return False
        place, parent = stored.manifest.place, stored.manifest.header.parent
        target = os.path.abspath(local_directory)
        if place is not None and parent is not None and target.endswith(f"/{place}"):
            above = target[: -len(place) - 1]
            if not os.path.exists(os.path.join(above, MARKER)) and self.records.retrieve(parent, above):
                return os.path.exists(os.path.join(target, MARKER))
        return self.records.retrieve(uuid, target)

    def pull(self, uuid: str, into: str | None = None) -> str | None:
        """The URI of a verified local copy at ``into``, or of the stored record; None if it is not there."""
        if into is None:
            return self.records.pull(uuid)
        return path_to_uri(into) if self.retrieve(uuid, into) else None

    def push(self, local: str, uuid: str) -> str:
        """Commits a directory, or the URI of one, and returns the URI of the stored record."""
        return self.records.push(local.removeprefix("file://"), uuid)

    def delete(self, uuid: str) -> bool:
        """Removes a record from the store; True if it was there."""
        return self.records.delete(uuid)

    def search_for(self, interface: Interface) -> list[str]:
        """The uuids of stored records of the same code and configuration."""
        return self.records.search(identity_key=sanitize_filename(interface.catalog_identity_key(), max_len=128))

    def walk(self) -> Iterator[str]:  # type: ignore[override] # as the base class's own is
        """Directories with what an index needs of each stored record; files are fetched when they are asked for.

        ``Index.reindex`` reads each as it comes. When it asks for the next one, the row is pointed at where the
        record will lie below `root`; a record whose local copy the index knows stays where it is.
        """
        manifests = {manifest.uuid: manifest for manifest in self.records.walk()}
        places = {uuid: self._place(uuid, manifests) for uuid in manifests}
        index = Index.get()
        with tempfile.TemporaryDirectory(prefix="stow-records-") as above:
            for uuid, manifest in manifests.items():
                known = index.get_by_id(uuid)
                local = None if known is None else Path(index.local_directory(uuid))
                if local is not None and (local / MARKER).is_file():
                    yield str(local)
                    continue
                stub = Path(above) / uuid
                self._write_stub(stub, manifest)
                yield str(stub)
                if index.get_by_id(uuid) is not None:
                    uri = path_to_uri(str(places[uuid]))
                    index.set_storage(uuid, uri, self.id)
                    index.register_location(uuid, uri)

    def _place(self, uuid: str, manifests: dict[str, Manifest]) -> Path:
        """Where a record will lie: a run in the directory of its record, any other below the root."""
        names: list[str] = []
        seen: set[str] = set()
        while uuid not in seen:
            seen.add(uuid)
            manifest = manifests[uuid]
            if manifest.place is None or manifest.header.parent is None or manifest.header.parent not in manifests:
                break
            names.append(manifest.place)
            uuid = manifest.header.parent
        return Path(self.root(), uuid, *reversed(names))

    def _write_stub(self, stub: Path, manifest: Manifest) -> None:
        (stub / "related").mkdir(parents=True)
        (stub / "id.json").write_text(json.dumps(manifest.header.to_data()), encoding="utf-8")
        (stub / "model.json").write_text(json.dumps(dict(manifest.model)), encoding="utf-8")
        (stub / "updated_at").write_text(manifest.updated_at, encoding="utf-8")
        lines = [json.dumps(edge._asdict(), sort_keys=True) + "\n" for edge in manifest.edges]
        (stub / "related" / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        (stub / MARKER).write_text(manifest.uuid, encoding="utf-8")

    def _commit_directory(self, record: RecordDirectory) -> None:
        if self._follower is None:
            self.records.commit(record)
        else:
            self._follower.commit(record)

    def _follow_changed(self, follower: _Follower) -> None:
        """Finds records that were only changed here, not made: their markers say so, and the index where they are."""
        index = Index.get()
        offset = total = 0
        while offset <= total:
            page = index.find(FindRequest(limit=_PAGE, offset=offset))
            for entry in page.items:
                uri = entry.local_uri or entry.storage_uri
                if entry.kind == "Project" or not uri.startswith("file://") or follower.follows(entry.record_id):
                    continue
                directory = Path(uri_to_path(uri))
                if _changed_since(directory, follower.began_ns) and self.contains(entry.record_id):
                    follower.follow(_outermost(RecordDirectory.open(directory)))
            offset, total = offset + _PAGE, page.total


class _Follower:
    """Looks at the markers of records and commits those that change; thread-safe."""

    def __init__(self, records: RecordStore, seconds: float) -> None:
        self.began_ns = time.time_ns()
        self._records = records
        self._seconds = seconds
        self._lock = threading.Lock()
        self._committing = threading.Lock()
        self._followed: dict[str, tuple[RecordDirectory, tuple[int, ...]]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def pending(self) -> int:
        """How many have changed since they were committed."""
        return len(self._changed())

    def follows(self, uuid: str) -> bool:
        with self._lock:
            return uuid in self._followed

    def follow(self, record: RecordDirectory) -> None:
        """Takes up a record whose state is not known to be in the store."""
        with self._lock:
            self._followed.setdefault(record.uuid, (record, ()))

    def commit(self, record: RecordDirectory) -> None:
        """Commits a record and follows it from here on."""
        with self._committing:
            # Looked at before: a change made while it is sent makes it pending.
            stamps = _stamps(record)
            self._records.commit(record)
        with self._lock:
            self._followed[record.uuid] = record, stamps
            if self._thread is None and self._seconds > 0:
                self._thread = threading.Thread(target=self._run, name="stow-records-follower", daemon=True)
                self._thread.start()

    def end(self, *, failing: bool) -> None:
        """Commits the last state of every record; an error is only logged if another one is on its way already."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            followed = [record for record, _ in self._followed.values()]
        failure: Exception | None = None
        for record in followed:
            # All of them, not only those marked: programs may write files without a word to machinable.
            try:
                if (record.path / MARKER).is_file():
                    self.commit(record)
            except (StoreError, OSError) as error:
                _log.warning("records.mirror_failed", uuid=record.uuid, error=str(error))
                failure = failure or error
        if failure is not None and not failing:
            raise failure

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            for record in self._changed():
                if self._ended.is_set():
                    return
                try:
                    self.commit(record)
                except (StoreError, OSError) as error:
                    # It stays pending, and is told when the storage is left if it still fails then.
                    _log.warning("records.mirror_failed", uuid=record.uuid, error=str(error))

    def _changed(self) -> list[RecordDirectory]:
        with self._lock:
            followed = list(self._followed.values())
        return [record for record, stamps in followed if _stamps(record) != stamps]


def _changed_since(directory: Path, at_ns: int) -> bool:
    try:
        # Times of files are those of the last tick of the clock.
        return (directory / "updated_at").stat().st_mtime_ns >= at_ns - _TICK_NS and (directory / MARKER).is_file()
    except OSError:
        return False


def _stamps(record: RecordDirectory) -> tuple[int, ...]:
    """What changes with every official change of a record or of a run in it."""
    found: list[int] = []
    # Runs lie two levels down, by their runner's identity and their time.
    for path in (record.path, *sorted(marker.parent for marker in record.path.glob(f"*/*/{MARKER}"))):
        try:
            found.append((path / "updated_at").stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


def _outermost(record: RecordDirectory) -> RecordDirectory:
    """The record in whose directory a run lies, or the record itself.

    A run may have the header of another one: an execution of several interfaces writes its last one into the directory
    of its first. So what counts is where it lies.
    """
    for above in Path(os.path.abspath(record.path)).parents:
        if (above / MARKER).is_file():
            try:
                record = RecordDirectory.open(above)
            except InvalidRecord:
                continue
    return record
