"""Sending single files of a record: each under a name nothing else has, once, as it was at one moment."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from datastore.errors import AlreadyExists, InvalidReference, NotFound, StoreError
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from stowstore.records import scanning
from stowstore.records.directory import EDGE_LOG
from stowstore.records.errors import FileChanged
from stowstore.records.layout import Layout
from stowstore.records.model import Placement, RecordFile
from stowstore.records.scanning import Found, Stamp
from stowstore.records.verified_file import OtherContent, VerifiedFile, read_whole

__all__ = ["Content", "FileSender", "Sent", "Terms"]

#: Files up to this many bytes are read once, into memory; larger ones twice, for their digest and to be sent.
_SMALL: Final = 4 << 20
#: Blobs from this size on are asked for before they are sent.
_WORTH_ASKING: Final = 64 << 10
_PIECE: Final = 1 << 20
_ATTEMPTS: Final = 4
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
#: What opening a file says when it is a link or a directory by now.
_REPLACED: Final = _GONE | {errno.ELOOP, errno.EISDIR}
_IF_ABSENT: Final = WriteOptions(if_absent=True)

#: Digest and size: what makes two contents the same.
Content = tuple[str, int]


class Sent(NamedTuple):
    """A file as the store has it now, how many bytes that took, and the stamp and digest of what was read."""

    file: RecordFile
    moved: int
    known: tuple[Stamp, str] | None


class Terms(NamedTuple):
    """On which terms files of a record are sent by whoever sends them: for one attempt of one commit.

    ``fresh`` says that there is no manifest yet.
    """

    placement: Placement
    token: str
    fresh: bool


class FileSender:
    """Sends files of one record; thread-safe.

    ``keys`` says where contents lie already, and grows.  ``before`` has the files of the newest manifest; keys in
    ``condemned`` are about to be removed.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        directory: str | os.PathLike[str],
        uuid: str,
        terms: Terms,
        *,
        before: Mapping[str, RecordFile],
        condemned: Mapping[str, int],
        keys: dict[Content, str],
    ) -> None:
        self._store = store
        self._layout = layout
        self._directory = directory
        self._uuid = uuid
        #: On which terms they are sent.
        self.terms = terms
        self._before = before
        self._condemned = condemned
        self._keys = keys
        self._lock = threading.Lock()
        self._creates = Feature.CREATE_IF_ABSENT in store.capabilities(layout.base).features
        self._notes: list[tuple[str, int, str]] = []

    @property
    def notes(self) -> list[tuple[str, int, str]]:
        """Digest, size and key of what was sent or found by now."""
        with self._lock:
            return list(self._notes)

    def note(self, file: RecordFile) -> None:
        """Takes down where a file lies that was sent, here or elsewhere."""
        self._note((file.sha256, file.size), file.key, shared=self._shares)

    @property
    def _shares(self) -> bool:
        """Whether equal contents have one object."""
        return self.terms.placement is Placement.BLOBS or not self.terms.fresh

    def send(self, entry: Found) -> Sent | None:
        """Sends a file; None if it is no longer there, which is a change like any other."""
        path = os.path.join(self._directory, entry.path)
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

    def _try_to_send(self, entry: Found, path: str, *, last: bool) -> Sent | None:
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
        return Sent(file._replace(key=key), moved, (stamp, local) if settled else None)

    def _put(self, file: RecordFile, data: bytes | None, path: str) -> tuple[str, int]:
        """Sees that the store has the content of a file; returns its key, and how many bytes were sent."""
        content = file.sha256, file.size
        with self._lock:
            key = self._keys.get(content)
        if key is not None:
            return key, 0
        if self.terms.placement is Placement.BLOBS:
            key = self._free_name(self._layout.blob(file.sha256))
            if file.size >= _WORTH_ASKING and self._is_there(key, file.size):
                self._note(content, key)
                return key, 0
            moved = self._write_named(key, file, data, path)
        else:
            browsable = self._layout.browsable(self._uuid, file.path) if self.terms.fresh else None
            if browsable in self._condemned:
                browsable = None
            key, moved = self._write_plain(browsable, file, data, path)
        self._note(content, key, shared=self._shares)
        return key, moved

    def _write_plain(self, browsable: str | None, file: RecordFile, data: bytes | None, path: str) -> tuple[str, int]:
        if browsable is not None:
            try:
                self._write(browsable, file, data, path, _IF_ABSENT if self._creates else None)
                return browsable, file.size
            except AlreadyExists:
                # Left over by an upload that was interrupted, or another writer's: the same content serves as well.
                if self._holds(browsable, file):
                    return browsable, 0
            except (InvalidReference, NotFound):
                # The backend cannot say this path.
                pass
        key = self._free_name(self._layout.versioned(self._uuid, file.sha256))
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
        return f"{key}-{self.terms.token}" if key in self._condemned else key

    def _write(self, key: str, file: RecordFile, data: bytes | None, path: str, options: WriteOptions | None) -> None:
        reference = self._layout.reference(key)
        if data is not None:
            self._store.write_raw(reference, len(data), options, data)
            return
        with VerifiedFile(path, file.size, file.sha256) as stream:
            self._store.write_raw(reference, file.size, options, stream)

    def _holds(self, key: str, file: RecordFile) -> bool:
        """Whether an object has the content of a file."""
        if not self._is_there(key, file.size):
            return False
        digest = sha256()
        try:
            with self._store.read_raw(self._layout.reference(key)) as stream:
                while piece := stream.read(_PIECE):
                    digest.update(piece)
        except NotFound:
            return False
        return digest.hexdigest() == file.sha256

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

    def _note(self, content: Content, key: str, *, shared: bool = True) -> None:
        with self._lock:
            self._notes.append((*content, key))
            if shared:
                self._keys[content] = key


def _only_grew(before: Stamp, after: Stamp) -> bool:
    return after.inode == before.inode and after.size > before.size


def _changed(path: str, what: str) -> FileChanged:
    return FileChanged(f"{path!r} {what}", hint="push again once nothing writes it")
