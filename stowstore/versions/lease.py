"""Leases: one writer a volume, fenced.

A lease is a small object under ``leases/``, with a token, who holds it, the version it was taken on, and when it
ends.  Its holder renews it from a thread; whoever finds it expired, or its holder's process dead on this very
machine, takes it over.  A holder that cannot renew in time counts itself as without lease before anybody else may
count it so, and then no longer publishes.

Where the backend has conditional writes they decide who wins.  Elsewhere the lease is written, left to settle, and
read again: the writer whose token is still there holds it.  Versions have unique names either way, so the worst a
broken backend can do is let two writers each publish versions of their own, never mix them.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from datastore.errors import AlreadyExists, NotFound, PreconditionFailed, StoreError
from datastore.events import get_logger
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from stowstore.versions.errors import CorruptManifest, LeaseHeld, LeaseLost
from stowstore.versions.ulid import new_ulid

__all__ = ["DEFAULT_LEASE_SECONDS", "Lease", "LeaseRecord", "read_lease"]

DEFAULT_LEASE_SECONDS = 60.0

#: How long a written lease is left before it is read again, where the backend has no conditional writes.
_SETTLE_SECONDS = 0.2

#: What clocks of two machines may differ by, in seconds.
_SKEW_SECONDS = 5.0

_log = get_logger(part="lease")


@frozen(kw_only=True)
class LeaseRecord:
    """What the object says; times in seconds since 1970."""

    token: str
    holder: str
    host: str
    pid: int
    process: str
    base: str | None
    started: float
    expires: float

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def decode(cls, raw: bytes) -> LeaseRecord:
        """Reads a lease.

        Raises:
            CorruptManifest: it is none.
        """
        try:
            data = json.loads(raw)
            return cls(
                token=str(data["token"]),
                holder=str(data["holder"]),
                host=str(data["host"]),
                pid=int(data["pid"]),
                process=str(data["process"]),
                base=None if data["base"] is None else str(data["base"]),
                started=float(data["started"]),
                expires=float(data["expires"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptManifest("a lease cannot be read", hint="remove the object if nobody writes") from error

    @property
    def is_over(self) -> bool:
        """Whether anybody may take it over: it expired, or its process on this machine is gone."""
        if time.time() > self.expires + _SKEW_SECONDS:
            return True
        return self.host == _host() and self.process != _process_of(self.pid)

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds")
        return f"{self.holder} on {self.host.partition('/')[0]}, process {self.pid}, since {since}"


class Lease:
    """A lease that is held, and renewed by a thread until it is released; thread-safe.

    ``on_lost`` is called once, from that thread, when it could not be kept; `on_renewed` whenever it was.
    """

    def __init__(
        self,
        store: Store,
        reference: DataReference,
        *,
        base: str | None = None,
        seconds: float = DEFAULT_LEASE_SECONDS,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._reference = reference
        self._seconds = seconds
        self._on_lost = on_lost
        #: May raise `StoreError`, which is logged.
        self.on_renewed: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        now = time.time()
        self._record = LeaseRecord(
            token=new_ulid(),
            holder=_user(),
            host=_host(),
            pid=os.getpid(),
            process=_process_of(os.getpid()),
            base=base,
            started=now,
            expires=now + seconds,
        )
        self._etag = ""
        self._good_until = 0.0
        self._acquire()
        self._thread = threading.Thread(target=self._keep, name=f"lease {reference.name}", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            # Interrupted while the thread began: nobody would have the lease to release it.
            self._stop.set()
            self._withdraw()
            raise

    @property
    def record(self) -> LeaseRecord:
        """What it says of itself now."""
        return self._record

    @property
    def token(self) -> str:
        return self._record.token

    @property
    def remaining(self) -> float:
        """Seconds until the lease is no longer counted on, never below zero."""
        return max(0.0, self._good_until - time.monotonic())

    def require(self) -> None:
        """Refuses to go on without a lease: asked just before a version is published.

        Raises:
            LeaseLost: it ran out, or somebody else has taken it.
        """
        if self.remaining <= 0:
            raise self._lost("it could not be renewed in time")
        found = read_lease(self._store, self._reference)
        if found is None or found.token != self.token:
            raise self._lost("it is now held by " + (str(found) if found else "nobody"))

    def rebase(self, base: str | None) -> None:
        """Names another version as the one this writer stands on, so that collection keeps it."""
        with self._lock:
            self._record = _evolved(self._record, base=base)
            self._renew()

    def release(self) -> None:
        """Ends the lease; doing it again does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._good_until = 0.0
            self._withdraw()

    def _withdraw(self) -> None:
        """Removes the lease if it is this one."""
        try:
            found = read_lease(self._store, self._reference)
            if found is not None and found.token == self.token:
                self._store.delete(self._reference)
        except StoreError as error:
            # It will run out by itself.
            _log.warning("lease.not_released", reference=str(self._reference), error=str(error))

    def _acquire(self) -> None:
        began = time.monotonic()
        found = read_lease(self._store, self._reference)
        if found is not None and not found.is_over:
            raise self._held(found)
        able = self._store.capabilities(self._reference)
        try:
            if found is None and Feature.CREATE_IF_ABSENT in able:
                self._write(WriteOptions(if_absent=True))
            elif found is not None and Feature.REPLACE_IF_MATCH in able:
                self._write(WriteOptions(if_match=self._etag_of(found)))
            else:
                self._write(WriteOptions())
        except (AlreadyExists, PreconditionFailed, NotFound) as error:
            raise self._held(read_lease(self._store, self._reference)) from error
        except BaseException:
            # It may be there all the same, its answer lost: then it would keep everybody out until it ends.
            self._withdraw()
            raise
        if Feature.ATOMIC_CREATE not in able or Feature.REPLACE_IF_MATCH not in able:
            time.sleep(_SETTLE_SECONDS)
            now = read_lease(self._store, self._reference)
            if now is None or now.token != self.token:
                raise self._held(now)
        self._good_until = began + self._seconds

    def _etag_of(self, expected: LeaseRecord) -> str:
        """The etag of a lease, if it is still the one there."""
        etag = self._store.head(self._reference).etag
        found = read_lease(self._store, self._reference)
        if found is None or found.token != expected.token:
            raise self._held(found)
        return etag

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                with self._lock:
                    self._renew()
                if self.on_renewed is not None:
                    self.on_renewed()
            except LeaseLost:
                if self._on_lost is not None:
                    self._on_lost()
                return
            except StoreError as error:
                _log.warning("lease.not_renewed", reference=str(self._reference), error=str(error))
                if self.remaining <= 0:
                    if self._on_lost is not None:
                        self._on_lost()
                    return

    def _renew(self) -> None:
        began = time.monotonic()
        self._record = _evolved(self._record, expires=time.time() + self._seconds)
        able = self._store.capabilities(self._reference)
        if Feature.REPLACE_IF_MATCH in able:
            try:
                try:
                    self._write(WriteOptions(if_match=self._etag))
                except PreconditionFailed:
                    # A renewal before this one may have arrived, its answer lost: then the lease is there, and ours.
                    self._write(WriteOptions(if_match=self._etag_of(self._record)))
            except (PreconditionFailed, NotFound, LeaseHeld) as error:
                self._good_until = 0.0
                raise self._lost("it was taken over") from error
        else:
            found = read_lease(self._store, self._reference)
            if found is None or found.token != self.token:
                self._good_until = 0.0
                raise self._lost("it was taken over")
            self._write(WriteOptions())
        self._good_until = began + self._seconds

    def _write(self, options: WriteOptions) -> None:
        content = self._record.encode()
        self._etag = self._store.write_raw(self._reference, len(content), options, content).etag

    def _held(self, found: LeaseRecord | None) -> LeaseHeld:
        return LeaseHeld(
            f"another writer holds the volume: {found}" if found else "another writer has just taken the volume",
            reference=str(self._reference),
            hint="one writer at a time: wait for it, fork the volume, or open it read-only",
        )

    def _lost(self, why: str) -> LeaseLost:
        return LeaseLost(
            f"the lease is lost: {why}",
            reference=str(self._reference),
            hint="what was not published is still in this session's journal; open the volume again to go on",
        )


def read_lease(store: Store, reference: DataReference) -> LeaseRecord | None:
    """The lease of a volume, over or not; None when there is none."""
    try:
        with store.read_raw(reference, max_bytes=1 << 16) as stream:
            return LeaseRecord.decode(stream.read())
    except NotFound:
        return None


def _evolved(record: LeaseRecord, **changes: Any) -> LeaseRecord:
    return LeaseRecord(**{**asdict(record), **changes})


def _host() -> str:
    """This machine, and which start of it: a process of an earlier one is surely gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


def _process_of(pid: int) -> str:
    """When a process began, in the kernel's ticks, as numbers of processes are used again; "" when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # One that has died and was not waited for writes no more.
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
