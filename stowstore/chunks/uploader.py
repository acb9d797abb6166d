"""The uploader: packs on their way into the store, in parallel, bounded, and never lost by a failure."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from datastore import context
from datastore.errors import AlreadyExists
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from stowstore.chunks.block import PackKind
from stowstore.chunks.packs import TRAILER_BYTES, PackBuilder
from stowstore.chunks.scattered import Scattered

__all__ = ["PackUploader", "Placement"]

#: Where a pack is kept.
Placement = Callable[[PackKind, bytes], DataReference]

#: The least that may be under way: two open packs, one being sealed and one being sent.
_MIN_BYTES = 16 << 20

#: How soon a wait notices that its context was cancelled, seconds.
_POLL = 0.05


class PackUploader:
    """Puts packs into a store with at most ``max_uploads`` requests at once; thread-safe.

    A pack waits ``upload_delay`` seconds first, unless `flush` or lack of room hurries it.  ``max_bytes`` bounds what
    is under way: who produces data reserves room before, and waits for it.  What failed is kept, raised once, and
    tried again by the next `flush`, or by who next finds no room.
    """

    def __init__(
        self,
        store: Store,
        place: Placement,
        *,
        max_uploads: int = 50,
        upload_delay: float = 0.0,
        max_bytes: int = 64 << 20,
    ) -> None:
        if max_uploads < 1:
            raise ValueError(f"max_uploads is at least 1, not {max_uploads}")
        if not upload_delay >= 0:
            raise ValueError(f"upload_delay is a number of seconds, not {upload_delay!r}")
        self._store = store
        self._place = place
        self._max_uploads = max_uploads
        self._delay = upload_delay
        self._max_bytes = max(max_bytes, _MIN_BYTES)
        # A plain lock, which the condition shares: room is reserved for every block, and this is taken in C.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[_Upload] = deque()
        self._active: set[_Upload] = set()
        self._failed: list[_Upload] = []
        # The ids of packs that were submitted and are not in the store.
        self._not_put: set[bytes] = set()
        #: Called after each pack that was put, from the thread that put it; must not raise.
        self.on_put: Callable[[], None] | None = None
        self._held = 0
        #: How many callers wait for room, during which no pack waits for its delay.
        self._short = 0
        self._threads = 0
        self._watching = False
        self._closed = False
        #: Packs put, and their bytes, tables included.
        self.packs = 0
        self.pack_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes for which room is reserved: in buffers, in open packs, waiting or being sent."""
        return self._held

    def holds(self, pack: bytes) -> bool:
        """Whether a pack was submitted and is not in the store yet."""
        return pack in self._not_put

    def reserve(self, size: int) -> None:
        """Takes room for data, after waiting until there is some.

        Raises:
            StoreError: there is no room because packs could not be put; nothing is lost, the next call tries again.
            DeadlineExceeded, Cancelled: the context of the caller ended first.
        """
        with self._lock:
            if self._held + size > self._max_bytes and self._held:
                self._wait_for_room(size)
            self._held += size

    def release(self, size: int) -> None:
        """Gives room back that turned out not to be needed."""
        if size:
            with self._lock:
                self._held -= size
                self._changed.notify_all()

    def submit(self, pack: PackBuilder) -> None:
        """Queues a pack, whose `PackBuilder.size` is reserved already."""
        with self._lock:
            if not self._closed:
                due = 0.0 if self._short else time.monotonic() + self._delay
                self._not_put.add(pack.pack)
                self._queue.append(_Upload(pack, due))
                self._start()

    def flush(self) -> None:
        """Returns when all packs submitted before are in the store.

        Raises:
            StoreError: the first failure, after every other pack has settled; another flush tries again.
            DeadlineExceeded, Cancelled: the context of the caller ended first; the uploads go on.
        """
        with self._lock:
            self._check_open()
            self._try_again()
            self._hurry()
            waiting: Collection[_Upload] = {*self._queue, *self._active}
            while unsettled := [upload for upload in waiting if not upload.is_settled]:
                waiting = unsettled
                self._wait()
                self._check_open()
            self._report_failure()

    def close(self) -> None:
        """Takes no more packs and drops those that wait; what is being sent goes on."""
        with self._lock:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()

    def _wait_for_room(self, size: int) -> None:
        self._short += 1
        try:
            while self._held and self._held + size > self._max_bytes:
                self._check_open()
                if not self._queue and not self._active:
                    self._try_again()
                    if not self._queue:
                        self._report_failure()
                self._hurry()
                self._wait()
        finally:
            self._short -= 1

    def _try_again(self) -> None:
        """Queues what has failed and was told."""
        for upload in [upload for upload in self._failed if upload.is_reported]:
            self._failed.remove(upload)
            upload.error, upload.is_reported = None, False
            self._queue.append(upload)

    def _report_failure(self) -> None:
        for upload in self._failed:
            upload.is_reported = True
        if self._failed:
            error = self._failed[0].error
            assert error is not None
            raise error

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the uploader is closed")

    def _wait(self) -> None:
        limits = context.current_limits()
        if limits is None:
            self._changed.wait()
            return
        limits.check()
        left = limits.remaining()
        self._changed.wait(_POLL if left is None or limits.tokens else left)
        limits.check()

    def _hurry(self) -> None:
        for upload in self._queue:
            upload.due = 0.0
        if self._queue:
            self._changed.notify_all()
            self._start()

    def _start(self) -> None:
        # Threads live only while there are packs to put: an idle session has none.
        idle = self._watching and self._threads == len(self._active) + 1
        if idle:
            self._changed.notify_all()
        elif self._threads < min(self._max_uploads, len(self._active) + len(self._queue)):
            self._threads += 1
            threading.Thread(target=self._work, name="stowstore-upload", daemon=True).start()

    def _work(self) -> None:
        while (upload := self._next()) is not None:
            error: Exception | None = None
            try:
                self._put(upload)
            except Exception as failure:  # noqa: BLE001 - whatever it is, it is kept for flush to raise
                error = failure
            with self._lock:
                self._active.discard(upload)
                if error is None:
                    upload.is_done = True
                    self._not_put.discard(upload.pack.pack)
                    self._held -= upload.size
                else:
                    upload.error = error
                    self._failed.append(upload)
                self._changed.notify_all()
            if error is None and self.on_put is not None:
                self.on_put()

    def _next(self) -> _Upload | None:
        """The next pack that is due; None ends the thread.  One thread watches for packs that will be."""
        with self._lock:
            while self._queue:
                wait = self._queue[0].due - time.monotonic()
                if wait <= 0:
                    upload = self._queue.popleft()
                    self._active.add(upload)
                    if self._queue:
                        self._start()
                    return upload
                if self._watching:
                    break
                self._watching = True
                self._changed.wait(wait)
                self._watching = False
            self._threads -= 1
            return None

    def _put(self, upload: _Upload) -> None:
        builder = upload.pack
        reference = self._place(builder.kind, builder.pack)
        payload = upload.payload
        if payload is None:
            # Kept for a second try, which must send the same bytes: the first may have arrived unanswered.
            payload = upload.payload = builder.seal()
        size = sum(map(len, payload))
        if Feature.CREATE_IF_ABSENT in self._store.capabilities(reference):
            try:
                self._store.write_raw(reference, size, _IF_ABSENT, payload)
            except AlreadyExists:
                # Its name is ours alone, so this is an earlier try; the trailer has the digest of everything named.
                if (
                    self._store.read_bytes(reference, size - TRAILER_BYTES)
                    != Scattered(payload)[size - TRAILER_BYTES : size]
                ):
                    raise
        else:
            self._store.write_raw(reference, size, None, payload)
        upload.payload = None
        with self._lock:
            self.packs += 1
            self.pack_bytes += size


class _Upload:
    """A pack on its way."""

    __slots__ = ("due", "error", "is_done", "is_reported", "pack", "payload", "size")

    def __init__(self, pack: PackBuilder, due: float) -> None:
        self.pack = pack
        self.size = pack.size
        self.due = due
        self.payload: tuple[bytes, ...] | None = None
        self.error: Exception | None = None
        self.is_done = False
        #: Whether somebody was told of the error; only then may it be tried again.
        self.is_reported = False

    @property
    def is_settled(self) -> bool:
        return self.is_done or self.error is not None


_IF_ABSENT = WriteOptions(if_absent=True)
