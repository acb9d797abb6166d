"""What the namespace asks of content and of a metadata store.

The file system decides POSIX and holds one lock; content knows extents, staged data and blocks, and nothing of modes
or names.  Work that may wait (disk, network, back-pressure) is split from work on extents, so that the first runs
without the file system's lock and the second needs no lock of its own:

* writing: `Content.stage` (may wait) and then, under the lock, `Content.place`;
* reading: `Content.plan` under the lock and then `Content.fetch` (may wait).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, NamedTuple, Protocol

from stowstore.index.records import InodeRecord

__all__ = ["AfterUpload", "Content", "EncodedExtents", "Extents", "FileNode", "MetaStore", "Scan"]

#: Reads records of the version below in key order, from a key to below another.
Scan = Callable[[bytes, bytes | None], Iterator[tuple[bytes, bytes]]]


class AfterUpload(Enum):
    """What becomes of staged data that were uploaded before a commit asked for them."""

    STAY = "stay"
    """They stay staged until the commit, and are read from there: for stores that are further away."""
    GO = "go"
    """Files refer to the blocks at once: for stores on the same disk, which need not take everything twice."""


class EncodedExtents(NamedTuple):
    """Extents as records have them.

    ``inline`` goes into the inode record when there are few; otherwise ``many`` is set and ``changes`` holds the ``e``
    keys that differ from the version below (None deletes one).  A file that has become small again deletes its keys.
    """

    inline: bytes
    many: bool
    changes: Mapping[bytes, bytes | None]


class Extents(Protocol):
    """Where the bytes of one file lie: a sorted map over blocks and staged data.  The caller holds the lock."""

    @property
    def allocated(self) -> int:
        """Bytes that extents cover; what ``st_blocks`` and quotas count."""
        ...

    @property
    def staged(self) -> bool:
        """Whether any extent still lies in the staging area."""
        ...

    @property
    def is_large(self) -> bool:
        """Whether encoding takes long, so that it is better done of a fork and without the lock."""
        ...

    @property
    def is_loaded(self) -> bool:
        """Whether all extents are in memory; may be asked without the lock."""
        ...

    def is_loaded_in(self, start: int, stop: int) -> bool:
        """Whether those of a range are."""
        ...

    def covered(self, offset: int, length: int) -> int:
        """Bytes of a range that extents cover already, which writing there would not add."""
        ...

    def fork(self) -> Extents:
        """An independent map of the same extents as of now, in about constant time."""
        ...

    def encode(self, ino: int) -> EncodedExtents:
        """The records of extents that all lie in blocks.

        Raises:
            RuntimeError: some are staged still; `Content.flush` comes first.
        """
        ...

    def encode_for_journal(self, ino: int) -> EncodedExtents:
        """The same with staged references, which only `Content.load` of the same cache directory understands."""
        ...


class FileNode(Protocol):
    """What content needs to know of a live inode.  ``extents`` is loaded before any call but `Content.load`."""

    ino: int
    size: int
    extents: Any


class Content(Protocol):
    """The bytes of all files.  Thread-safe; "under the lock" says that the file system's lock is held."""

    @property
    def writer(self) -> Any:
        """The writer that was given to `upload_early`, or None."""
        ...

    def load(
        self, ino: int, record: InodeRecord, scan: Scan, journalled: Mapping[bytes, bytes | None] | None = None
    ) -> Extents:
        """The extents of a file (under the lock); a new file's from a record without any.

        Those of huge files are fetched with ``scan`` as they are needed.  ``journalled`` are ``e`` records recovered
        from a journal: they lie over the version below and count as changed.
        """
        ...

    def stage(self, data: bytes | bytearray | memoryview) -> Any:
        """Takes data into the staging area, without the lock; waits when too much is staged.

        Raises:
            OSError: ENOSPC where the staging area cannot take them.
        """
        ...

    def discard(self, staged: Any) -> None:
        """Gives back staged data that were never placed."""
        ...

    def place(self, node: FileNode, offset: int, staged: Any) -> None:
        """Puts staged data at an offset of a file, over what was there (under the lock).  Sets no size."""
        ...

    def plan(self, node: FileNode, offset: int, size: int) -> Any:
        """What it takes to read a range (under the lock); holes included, staged data kept until fetched."""
        ...

    def fetch(self, plan: Any) -> bytes:
        """The bytes of a plan, exactly as many as planned, zeros for holes; without the lock; once a plan."""
        ...

    def is_near(self, plan: Any) -> bool:
        """Whether a plan can be fetched without waiting for the store or the disk cache."""
        ...

    def truncate(self, node: FileNode, size: int) -> None:
        """Drops what lies at or behind ``size`` (under the lock)."""
        ...

    def punch(self, node: FileNode, offset: int, length: int) -> None:
        """Makes a range a hole (under the lock)."""
        ...

    def clone(self, source: FileNode, start: int, target: FileNode, offset: int, length: int) -> None:
        """Makes a range of the target share the extents of a range of the source, holes too (under the lock).

        Source and target may be the same node; the ranges do not overlap then.
        """
        ...

    def seek(self, node: FileNode, offset: int, whence: int) -> int:
        """The next data or hole (`os.SEEK_DATA`, `os.SEEK_HOLE`) at or behind an offset below the size.

        Under the lock.  The end of the file counts as a hole.

        Raises:
            OSError: ENXIO where no data follow.
        """
        ...

    def forget(self, extents: Extents) -> None:
        """Gives back the staged data of extents nobody needs any more (under the lock)."""
        ...

    def fetch_extents(self, ino: int, start: int, stop: int, scan: Scan) -> None:
        """Reads the records that extents of a range will be loaded from, without the lock; may wait for the store."""
        ...

    def recovered(self) -> None:
        """Says that every record of the journal has been loaded: staged data of no file are deleted."""
        ...

    def checkpoint(self) -> Any:
        """Says that everything changed so far is about to be journalled (under the lock); see `reclaim`."""
        ...

    def reclaim(self, checkpoint: Any) -> None:
        """Says that what was changed before a checkpoint is in the journal, or in the version below.

        Staged data that only older records of the journal referred to are kept until then, for a crash.
        """
        ...

    def upload_early(
        self,
        writer: Any,
        *,
        delay: float,
        lock: AbstractContextManager[object],
        moved: Callable[[int], None] | None = None,
        keep: Callable[[], None] | None = None,
        afterwards: AfterUpload = AfterUpload.STAY,
    ) -> None:
        """Begins to upload in the background; ``moved`` is told, under the lock, which files refer to blocks now.

        ``keep`` is called before they refer to blocks that no version has.
        """
        ...

    @property
    def staged_bytes(self) -> int:
        """Bytes that are not uploaded yet."""
        ...

    @property
    def held_bytes(self) -> int:
        """Those of them that are in memory, and are to be written to the local disk before a journal refers to them."""
        ...

    def upload(self) -> None:
        """Uploads what is staged, without the lock, and returns when the store has it."""
        ...

    def stop_uploading(self) -> None:
        """Begins no more uploads in the background; what is under way may go on until `close`."""
        ...

    def close(self) -> None:
        """Ends background work and gives the staging area up."""
        ...

    def sync(self, *, durable: bool = True) -> None:
        """Writes staged data out to the local disk, without the lock: before the journal refers to them.

        Then they outlive the process; with ``durable`` they outlive the machine's loss of power, too.
        """
        ...

    def flush(self, files: Sequence[tuple[int, int, Extents]], writer: Any) -> None:
        """Turns staged extents of ``(ino, size, extents)``, in directory order, into blocks of the writer.

        The extents are forks that nobody else changes.  When the writer has taken everything for good, they lie in
        blocks; when it raises, they are as before and the flush can be tried again.  Without the lock.
        """
        ...

    def settle(self, live: Extents, flushed: Extents) -> None:
        """Moves what a file still shares with a flushed fork of it from staging into blocks (under the lock).

        Called when the version that holds the fork has become the version below, which `Extents.encode` compares with.
        """
        ...


class MetaStore(Protocol):
    """A crash journal on the local disk: changed records by key, and small named values.  Thread-safe."""

    def load(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Every record kept, ascending by key; None stands for a deleted one."""
        ...

    def apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        """Keeps records, all or none of them after a crash; None is kept as a deletion."""
        ...

    def replace(self, batch: Mapping[bytes, bytes | None], meta: Mapping[str, bytes]) -> None:
        """Drops every record, keeps those of the batch and sets the named values, all in one transaction."""
        ...

    def sync(self) -> None:
        """Makes what was applied durable."""
        ...

    def clear(self) -> None: ...

    def get_meta(self, name: str) -> bytes | None: ...

    def set_meta(self, name: str, value: bytes) -> None: ...

    def close(self) -> None: ...

    def destroy(self) -> None: ...
