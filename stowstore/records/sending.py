"""Sending the files of a record: only what the store does not have, each under a name nothing else has.

An object is never overwritten with other content: the first commit puts files under their own paths, and what changes
later goes under its digest.  So readers of an older manifest, and another writer, are never disturbed.  What was sent
is noted in the store now and then, and an interrupted upload goes on from there, from whichever machine.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from datastore.errors import AlreadyExists, InvalidReference, NotFound, StoreError
from datastore.events import get_logger
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from stowstore.records import scanning
from stowstore.records.condemned import read_condemned
from stowstore.records.directory import EDGE_LOG, RecordDirectory
from stowstore.records.errors import FileChanged, InvalidRecord, RecordDamaged
from stowstore.records.layout import Layout
from stowstore.records.model import FileKind, Manifest, Placement, RecordFile
from stowstore.records.parallel import Progress, TransferState, each
from stowstore.records.scanning import DigestCache, Found, Scan, Stamp
from stowstore.records.verified_file import OtherContent, VerifiedFile, read_whole

__all__ = ["Sender"]

#: Files up to this many bytes are read once, into memory; larger ones twice, for their digest and to be sent.
_SMALL: Final = 4 << 20
#: Blobs from this size on are asked for before they are sent.
_WORTH_ASKING: Final = 64 << 10
_ATTEMPTS: Final = 4
_NOTE_EVERY_SECONDS: Final = 5.0
_TELL_EVERY_SECONDS: Final = 0.1
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
#: What opening a file says when it is a link or a directory by now.
_REPLACED: Final = _GONE | {errno.ELOOP, errno.EISDIR}
_IF_ABSENT: Final = WriteOptions(if_absent=True)

_log = get_logger(component="records")

#: Digest and size: what makes two contents the same.
_Content = tuple[str, int]


class _Sent(NamedTuple):
    file: RecordFile
    moved: int
    known: tuple[Stamp, str] | None


class Sender:
    """Brings the files of one record into the store, in as many calls of `send` as its commit takes.

    Used by one thread.
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
    ) -> None:
        self._store = store
        self._layout = layout
        self._record = record
        self._placement = placement
        self._token = token
        self._parallel = parallel
        self._condemned: Mapping[str, int] = {}
        self._cache = cache
        self._progress = progress
        features = store.capabilities(layout.base).features
        self._creates = Feature.CREATE_IF_ABSENT in features
        self._lock = threading.Lock()
        self._keys: dict[_Content, str] = {}
        self._notes: list[tuple[str, int, str]] = []
        self._old_notes: list[str] = []
        self._before: Mapping[str, RecordFile] = {}
        self._fresh = True
        self.moved_files = 0
        self.moved_bytes = 0

    def send(self, found: Scan, previous: Manifest | None) -> tuple[RecordFile, ...]:
        """Sends what ``previous`` does not have; returns all files of the record, by path.

        Raises:
            FileChanged: a file would not keep still.
            StoreError: the store failed; what was sent is noted, and not sent again.
        """
        self._before = {} if previous is None else {file.path: file for file in previous.files}
        self._fresh = previous is None
        # A file that was moved needs no sending.
        for file in self._before.values():
            if file.kind is FileKind.FILE:
                self._keys.setdefault((file.sha256, file.size), file.key)
        self._condemned = read_condemned(self._store, self._layout)
        self._read_notes()
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
        done += self._send_all(changed, done, kept)
        if self._cache is not None and kept != known:
            self._cache.save(self._record.path, kept)
        done.sort(key=lambda file: file.path)
        return tuple(done)

    def end(self) -> None:
        """Removes the notes of this upload and of those it went on from: its manifest says it all now."""
        keys = [*self._old_notes, self._layout.progress(self._record.uuid, self._token)]
        self._store.delete_many([self._layout.reference(key) for key in keys])

    def _unchanged(self, entry: Found, known: Mapping[str, tuple[Stamp, str]]) -> RecordFile | None:
        """The entry as the store has it, if nothing has to be read to know that."""
        if entry.kind is not FileKind.FILE:
            return RecordFile(path=entry.path, kind=entry.kind, mode=entry.mode, target=entry.target)
        before = self._before.get(entry.path)
        stamp, digest = known.get(entry.path, (None, ""))
        if before is None or stamp != entry.stamp or before.sha256 != digest or before.size != entry.stamp.size:
            return None
        return before if before.mode == entry.mode else before._replace(mode=entry.mode)

    def _send_all(
        self, changed: list[Found], done: list[RecordFile], kept: dict[str, tuple[Stamp, str]]
    ) -> list[RecordFile]:
        files, total = len(done), len(done) + len(changed)
        sizes = sum(file.size for file in done)
        total_bytes = sizes + sum(entry.stamp.size for entry in changed)
        sent: list[RecordFile] = []
        told = noted = time.monotonic()
        try:
            for result in each(changed, self._send_one, min(self._parallel, len(changed))):
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
                    self._write_notes()
                    noted = time.monotonic()
                sizes += file.size
                if self._progress is not None and now - told > _TELL_EVERY_SECONDS:
                    told = now
                    self._tell(files + len(sent), total, sizes, total_bytes)
        except BaseException:
            self._write_notes()
            raise
        if self._progress is not None:
            self._tell(total, total, sizes, sizes)
        return sent

    def _send_one(self, entry: Found) -> _Sent | None:
        """Sends a file; None if it is no longer there, which is a change like any other."""
        path = os.path.join(self._record.path, entry.path)
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.02 * attempt)
            try:
                sent = self._try_to_send(entry, path, last=attempt == _ATTEMPTS - 1)
            except OSError as error:
                if isinstance(error, StoreError) or error.errno not in _REPLACED:
                    raise
                if error.errno in _GONE:
                    return None
                raise _changed(path, "was replaced while it was being read") from error
            if sent is not None:
                return sent
        raise _changed(path, "kept on changing while it was being read")

    def _try_to_send(self, entry: Found, path: str, *, last: bool) -> _Sent | None:
        """One attempt to send one state of a file; None if it changed meanwhile.

        A file that only grows, as logs of running programs do, is sent up to where it was: waiting for its end could
        take for ever.
        """
        looked_at = scanning.now_ns()
        if entry.stamp.size <= _SMALL:
            stamp, data = read_whole(path)
            digest = sha256(data).hexdigest()
        else:
            stamp, digest = scanning.digest_of(path)
            data = None
        local = digest
        if stamp != Stamp.of(os.lstat(path)) and not (last and _only_grew(stamp, Stamp.of(os.lstat(path)))):
            return None
        if entry.path == EDGE_LOG and data is not None:
            data = self._merged_log(entry.path, data)
            digest = sha256(data).hexdigest()
        size = stamp.size if data is None else len(data)
        file = RecordFile(path=entry.path, size=size, sha256=digest, mode=entry.mode)
        try:
            key, moved = self._put(file, data, path)
        except OtherContent:
            return None
        settled = scanning.settled(stamp, looked_at)
        return _Sent(file._replace(key=key), moved, (stamp, local) if settled else None)

    def _put(self, file: RecordFile, data: bytes | None, path: str) -> tuple[str, int]:
        """Sees that the store has the content of a file; returns its key, and how many bytes were sent."""
        content = file.sha256, file.size
        with self._lock:
            key = self._keys.get(content)
        if key is not None:
            return key, 0
        if self._placement is Placement.BLOBS:
            key = self._free_name(self._layout.blob(file.sha256))
            if file.size >= _WORTH_ASKING and self._is_there(key, file.size):
                self._note(content, key)
                return key, 0
            moved = self._write_named(key, file, data, path)
        else:
            browsable = self._layout.browsable(self._record.uuid, file.path) if self._fresh else None
            if browsable in self._condemned:
                browsable = None
            key, moved = self._write_plain(browsable, file, data, path)
        self._note(content, key, shared=self._placement is Placement.BLOBS or not self._fresh)
        return key, moved

    def _write_plain(self, browsable: str | None, file: RecordFile, data: bytes | None, path: str) -> tuple[str, int]:
        if browsable is not None:
            try:
                self._write(browsable, file, data, path, _IF_ABSENT if self._creates else None)
                return browsable, file.size
            except (AlreadyExists, InvalidReference, NotFound):
                # What lies there is another writer's, or left over; or the backend cannot say this path.
                pass
        key = self._free_name(self._layout.versioned(self._record.uuid, file.sha256))
        return key, self._write_named(key, file, data, path)

    def _write_named(self, key: str, file: RecordFile, data: bytes | None, path: str) -> int:
        """Writes content under its own name, unless it is there."""
        try:
            self._write(key, file, data, path, _IF_ABSENT if self._creates else None)
        except AlreadyExists:
            return 0
        return file.size

    def _free_name(self, key: str) -> str:
        """The name for some content: another one than usual while a collection is about to remove that."""
        return f"{key}-{self._token}" if key in self._condemned else key

    def _write(self, key: str, file: RecordFile, data: bytes | None, path: str, options: WriteOptions | None) -> None:
        reference = self._layout.reference(key)
        if data is not None:
            self._store.write_raw(reference, len(data), options, data)
            return
        with VerifiedFile(path, file.size, file.sha256) as stream:
            self._store.write_raw(reference, file.size, options, stream)

    def _is_there(self, key: str, size: int) -> bool:
        found = self._store.head(self._layout.reference(key))
        return found.exists and found.size == size

    def _merged_log(self, path: str, data: bytes) -> bytes:
        before = self._before.get(path)
        if before is None or before.sha256 == sha256(data).hexdigest():
            return data
        theirs = self._store.read_bytes(self._layout.reference(before.key))
        if sha256(theirs).hexdigest() != before.sha256:
            # A damaged copy has nothing to say.
            return data
        lines = dict.fromkeys(line for line in (*theirs.splitlines(), *data.splitlines()) if line.strip())
        return b"".join(line + b"\n" for line in lines)

    def _note(self, content: _Content, key: str, *, shared: bool = True) -> None:
        with self._lock:
            self._notes.append((*content, key))
            if shared:
                self._keys[content] = key

    def _read_notes(self) -> None:
        """Learns what uploads that did not come to their end have sent."""
        uuid = self._record.uuid
        own = self._layout.progress(uuid, self._token)
        self._old_notes = []
        for entry in self._store.walk(self._layout.reference(f"{self._layout.record(uuid)}/u"), directory=True):
            key = self._layout.relative(entry.reference)
            if key == own:
                continue
            try:
                notes = _decode_notes(self._store.read_bytes(entry.reference))
                for digest, size, sent in notes:
                    if sent not in self._condemned:
                        self._keys.setdefault((digest, size), self._layout.check_owned(uuid, sent))
            except (NotFound, RecordDamaged, ValueError, TypeError, zlib.error):
                continue
            self._old_notes.append(key)
        with self._lock:
            for digest, size, key in self._notes:
                self._keys.setdefault((digest, size), key)

    def _write_notes(self) -> None:
        with self._lock:
            notes = list(self._notes)
        if not notes:
            return
        try:
            key = self._layout.progress(self._record.uuid, self._token)
            self._store.write_bytes(self._layout.reference(key), zlib.compress(json.dumps(notes).encode()))
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


def _only_grew(before: Stamp, after: Stamp) -> bool:
    return after.inode == before.inode and after.size > before.size


def _changed(path: str, what: str) -> FileChanged:
    return FileChanged(f"{path!r} {what}", hint="push again once nothing writes it")


def _decode_notes(raw: bytes) -> Iterator[tuple[str, int, str]]:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(raw, 64 << 20)
    if unpacker.unconsumed_tail:
        raise InvalidRecord("the notes are larger than notes can be")
    for digest, size, key in json.loads(text):
        yield str(digest), int(size), str(key)
