"""Sending the files of a record: only what the store does not have, each under a name nothing else has.

An object is never overwritten with other content: the first commit puts files under their own paths, and what changes
later goes under its digest.  So readers of an older manifest, and another writer, are never disturbed.  What was sent
is noted in the store now and then, and an interrupted upload goes on from there, from whichever machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from datastore.errors import StoreError
from datastore.events import get_logger
from datastore.protocol import Store
from stowstore.records.condemned import read_condemned
from stowstore.records.directory import RecordDirectory
from stowstore.records.layout import Layout
from stowstore.records.model import FileKind, Manifest, Placement, RecordFile
from stowstore.records.parallel import Progress, TransferState, each
from stowstore.records.scanning import DigestCache, Found, Scan, Stamp
from stowstore.records.send_notes import encode_notes, read_notes
from stowstore.records.sending_files import Content, FileSender, Sent, Terms

if TYPE_CHECKING:
    from stowstore.records.sending_spread import Spread

__all__ = ["Sender"]

_NOTE_EVERY_SECONDS: Final = 5.0
_TELL_EVERY_SECONDS: Final = 0.1

_log = get_logger(component="records")


class Sender:
    """Brings the files of one record into the store, in as many calls of `send` as its commit takes.

    Used by one thread.  Files are read and sent by threads of this process, or by the workers of ``spread``.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        record: RecordDirectory,
        *,
        placement: Placement,
        token: str,
        parallel: int,
        cache: DigestCache | None,
        progress: Progress | None,
        spread: Spread | None = None,
    ) -> None:
        self._store = store
        self._layout = layout
        self._record = record
        self._placement = placement
        self._token = token
        self._parallel = parallel
        self._cache = cache
        self._progress = progress
        self._spread = spread
        self._own_notes = layout.progress(record.uuid, token)
        self._keys: dict[Content, str] = {}
        self._notes: list[tuple[str, int, str]] = []
        self._old_notes: list[str] = []
        self._before: Mapping[str, RecordFile] = {}
        self.moved_files = 0
        self.moved_bytes = 0

    def send(self, found: Scan, previous: Manifest | None) -> tuple[RecordFile, ...]:
        """Sends what ``previous`` does not have; returns all files of the record, by path.

        Raises:
            FileChanged: a file would not keep still.
            StoreError: the store failed; what was sent is noted, and not sent again.
        """
        sender = self._file_sender(previous)
        known = {} if self._cache is None else self._cache.load(self._record.path)
        done: list[RecordFile] = []
        kept: dict[str, tuple[Stamp, str]] = {}
        changed: list[Found] = []
        for entry in found.entries:
            unchanged = self._unchanged(entry, known)
            if unchanged is None:
                changed.append(entry)
            else:
                done.append(unchanged)
                if entry.kind is FileKind.FILE:
                    kept[entry.path] = known[entry.path]
        done += self._send_all(sender, changed, done, kept)
        if self._cache is not None and kept != known:
            self._cache.save(self._record.path, kept)
        done.sort(key=lambda file: file.path)
        return tuple(done)

    def end(self) -> None:
        """Removes the notes of this upload and of those it went on from: its manifest says it all now."""
        keys = [*self._old_notes, self._own_notes]
        self._store.delete_many([self._layout.reference(key) for key in keys])

    def _file_sender(self, previous: Manifest | None) -> FileSender:
        """What sends the files of one attempt, knowing what the store has already."""
        self._before = {} if previous is None else {file.path: file for file in previous.files}
        # A file that was moved needs no sending.
        for file in self._before.values():
            if file.kind is FileKind.FILE:
                self._keys.setdefault((file.sha256, file.size), file.key)
        condemned = read_condemned(self._store, self._layout)
        uuid = self._record.uuid
        noted, self._old_notes = read_notes(self._store, self._layout, uuid, condemned, own=self._own_notes)
        for content, key in noted.items():
            self._keys.setdefault(content, key)
        for digest, size, key in self._notes:
            self._keys.setdefault((digest, size), key)
        return FileSender(
            self._store,
            self._layout,
            self._record.path,
            uuid,
            Terms(self._placement, self._token, previous is None),
            before=self._before,
            condemned=condemned,
            keys=self._keys,
        )

    def _unchanged(self, entry: Found, known: Mapping[str, tuple[Stamp, str]]) -> RecordFile | None:
        """The entry as the store has it, if nothing has to be read to know that."""
        if entry.kind is FileKind.LINK:
            # A link has no mode of its own, and manifests none for it.
            return RecordFile(path=entry.path, kind=entry.kind, target=entry.target)
        if entry.kind is not FileKind.FILE:
            return RecordFile(path=entry.path, kind=entry.kind, mode=entry.mode)
        before = self._before.get(entry.path)
        stamp, digest = known.get(entry.path, (None, ""))
        if before is None or stamp != entry.stamp or before.sha256 != digest or before.size != entry.stamp.size:
            return None
        return before if before.mode == entry.mode else before._replace(mode=entry.mode)

    def _send_all(
        self, sender: FileSender, changed: list[Found], done: list[RecordFile], kept: dict[str, tuple[Stamp, str]]
    ) -> list[RecordFile]:
        files, total = len(done), len(done) + len(changed)
        sizes = sum(file.size for file in done)
        total_bytes = sizes + sum(entry.stamp.size for entry in changed)
        sent: list[RecordFile] = []
        told = noted = time.monotonic()
        try:
            for result in self._results(sender, changed):
                if result is None:
                    continue
                file, moved, stamp = result
                sent.append(file)
                if stamp is not None:
                    kept[file.path] = stamp
                if moved:
                    self.moved_files += 1
                    self.moved_bytes += moved
                now = time.monotonic()
                if now - noted > _NOTE_EVERY_SECONDS:
                    self._write_notes(sender)
                    noted = time.monotonic()
                sizes += file.size
                if self._progress is not None and now - told > _TELL_EVERY_SECONDS:
                    told = now
                    self._tell(files + len(sent), total, sizes, total_bytes)
        except BaseException:
            self._write_notes(sender)
            raise
        self._notes += sender.notes
        if self._progress is not None:
            self._tell(total, total, sizes, sizes)
        return sent

    def _results(self, sender: FileSender, changed: list[Found]) -> Iterator[Sent | None]:
        """What comes of each file, None of one that is gone."""
        if self._spread is None or not changed:
            yield from each(changed, sender.send, min(self._parallel, len(changed)))
            return
        for result in self._spread.send(self._record, changed, sender.terms):
            if result is not None:
                sender.note(result.file)
            yield result

    def _write_notes(self, sender: FileSender) -> None:
        notes = self._notes + sender.notes
        if not notes:
            return
        try:
            self._store.write_bytes(self._layout.reference(self._own_notes), encode_notes(notes))
        except StoreError as error:
            # Notes only save work: what keeps them from being written will be told by the transfer itself.
            _log.warning("records.notes_failed", uuid=self._record.uuid, error=str(error))

    def _tell(self, files: int, total: int, sizes: int, total_bytes: int) -> None:
        assert self._progress is not None
        self._progress(
            TransferState(
                uuid=self._record.uuid,
                files=files,
                total_files=total,
                bytes=sizes,
                total_bytes=total_bytes,
                moved_files=self.moved_files,
                moved_bytes=self.moved_bytes,
            )
        )
