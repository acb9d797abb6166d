"""The server: reads the kernel's requests, has them answered, and writes the replies.

One thread reads, and answers at once what needs nothing but memory and the local disk.  What would have to wait goes to
worker threads, so that one slow fetch holds nobody else up.  A server lives in a process of its own: a program that
maps or executes a file of a mount it serves itself hangs for good.

    device = mount(...)                       # stowstore.fuse.device
    server = FuseServer(files, device, FuseOptions())
    server.run()                              # until it is unmounted
"""

from __future__ import annotations

import gc
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Callable
from errno import EAGAIN, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOSYS
from functools import partial
from typing import Final

from attrs import frozen

from datastore.context import CancelToken
from datastore.errors import Cancelled, StoreError
from datastore.events import get_logger
from stowstore.chunks.patience import WouldWait, never_waiting
from stowstore.fuse.interrupts import Interrupts
from stowstore.fuse.notify import Notifier
from stowstore.fuse.operations import Handler, Operations, Payload
from stowstore.fuse.options import FuseOptions
from stowstore.fuse.passing import PassingOperations
from stowstore.fuse.passthrough import Passthrough
from stowstore.fuse.wire import HEADER_SIZE, IN_HEADER, INTERRUPT, OUT_HEADER, Opcode
from stowstore.fuse.workers import Workers
from stowstore.namespace.filesystem import FileSystem

__all__ = ["FuseServer", "FuseStatistics"]

#: Replies up to this size are joined with their header, larger ones are gathered by the system call.
_JOINED: Final = 4096

#: How long a thread may hold the interpreter while others want it, seconds: a worker must not delay the reader.
_SWITCH_INTERVAL: Final = 0.0005

#: Requests make few cycles and many inodes that stay, which each collection would look through.
_COLLECTION_THRESHOLDS: Final = (50_000, 20, 20)

_OUT_SIZE: Final = OUT_HEADER.size

_log = get_logger(part="mount")


@frozen(kw_only=True)
class FuseStatistics:
    """What a server has done: requests by name, failures, bytes read and written, and requests waiting in workers."""

    requests: dict[str, int]
    failures: int
    handed_over: int
    in_workers: int
    read_bytes: int
    written_bytes: int


class FuseServer:
    """Serves one file system on one device, from `run` until it is unmounted.

    ``on_flush`` is told, on a worker, the inode of a file that was closed or synced before the answer goes out.
    Methods other than `run` may be called from any thread.
    """

    def __init__(
        self,
        files: FileSystem,
        device: int,
        options: FuseOptions | None = None,
        *,
        on_flush: Callable[[int], None] | None = None,
    ) -> None:
        self.device = device
        self.options = options or FuseOptions()
        self.notify = Notifier(device)
        #: The files that the kernel reads without us, where it may.
        self.passthrough: Passthrough | None = None
        if self.options.passthrough is not None:
            self.passthrough = Passthrough(device, self.options.passthrough, max_bytes=self.options.passthrough_bytes)
        self._operations = Operations(files, self.options, on_flush=on_flush, passthrough=self.passthrough)
        self._handlers = self._operations.handlers()
        if self.passthrough is not None:
            PassingOperations(self._operations, self.passthrough).replace_in(self._handlers)
        self._workers = Workers(self.options.workers)
        self._counts = [0] * 64
        self._failures = 0
        self._handed_over = 0
        self._interrupts = Interrupts()
        #: Set when the kernel has begun to send requests.
        self.started = threading.Event()

    @property
    def statistics(self) -> FuseStatistics:
        return FuseStatistics(
            requests={opcode.name.lower(): self._counts[opcode] for opcode in Opcode if self._counts[opcode]},
            failures=self._failures,
            handed_over=self._handed_over,
            in_workers=len(self._interrupts),
            read_bytes=self._operations.read_bytes,
            written_bytes=self._operations.written_bytes,
        )

    def barrier(self, descriptor: int) -> threading.Event:
        """Set when all has been read that the kernel queues until a directory of the mount is closed; see `Barriers`.

        What was read is done, or among `in_hand`.

        Raises:
            OSError: the descriptor is no directory of this mount.
        """
        return self._operations.barriers.place(descriptor)

    def in_hand(self) -> frozenset[int]:
        """The requests that workers have."""
        return self._interrupts.under_way()

    def replace(self, files: FileSystem) -> None:
        """Answers from another file system from now on; tell the kernel what differs by `notify`."""
        self._operations.replace(files)

    def run(self) -> None:
        """Serves until the file system is unmounted, then waits for what workers still do.

        Raises:
            OSError: the device failed.
        """
        interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        thresholds = gc.get_threshold()
        gc.set_threshold(*_COLLECTION_THRESHOLDS)
        gc.collect()
        gc.freeze()
        try:
            with never_waiting():
                self._serve(self._reader())
        finally:
            if self.passthrough is not None:
                self.passthrough.close()
            self._workers.close()
            sys.setswitchinterval(interval)
            gc.set_threshold(*thresholds)
            gc.unfreeze()

    def _serve(self, receive: Callable[[list[bytearray]], int]) -> None:
        handlers, counts = self._handlers, self._counts
        buffer = bytearray(self.options.max_write + (8 << 10))
        view, buffers = memoryview(buffer), [buffer]
        device, write, pack = self.device, os.write, OUT_HEADER.pack
        unpack, reply, fail = IN_HEADER.unpack_from, self._reply, self._fail
        while True:
            try:
                length = receive(buffers)
            except OSError as error:
                if error.errno == ENODEV:
                    return
                if error.errno in (EINTR, EAGAIN, ENOENT):
                    # ENOENT: the caller was interrupted before we had read its request.
                    continue
                raise
            if length < HEADER_SIZE:
                raise OSError(EIO, f"the kernel sent {length} bytes where a request begins with {HEADER_SIZE}")
            _, opcode, unique, node, uid, gid, thread, _ = unpack(buffer)
            handler = handlers[opcode] if opcode < 64 else None
            if handler is None:
                if opcode == Opcode.INTERRUPT:
                    self._interrupts.interrupt(*INTERRUPT.unpack_from(view, HEADER_SIZE))
                elif opcode == Opcode.DESTROY:
                    reply(unique, b"")
                    return
                else:
                    fail(unique, ENOSYS)
                continue
            counts[opcode] += 1
            try:
                payload = handler(node, view[HEADER_SIZE:length], uid, gid)
                if payload.__class__ is bytes and len(payload) <= _JOINED:
                    # What `_answer` does, without its frames.
                    try:
                        write(device, pack(_OUT_SIZE + len(payload), 0, unique) + payload)
                    except OSError as error:
                        self._not_delivered(unique, error)
                else:
                    self._answer(unique, payload)
                payload = None
            except WouldWait as waits:
                token = self._interrupts.begin(unique, thread)
                self._hand_over(token, handler, unique, node, view[HEADER_SIZE:length], uid, gid, waits)
            except Exception as error:  # noqa: BLE001 - a request without an answer hangs its caller for good
                fail(unique, self._errno_of(error, opcode))
            if opcode == Opcode.INIT:
                self.started.set()

    def _reader(self) -> Callable[[list[bytearray]], int]:
        """How requests are waited for: asleep in the system call, or asking again for a while first."""
        device, readv = self.device, os.readv
        spin = self.options.spin
        if not spin:
            os.set_blocking(device, True)
            return partial(readv, device)
        os.set_blocking(device, False)
        poller = select.poll()
        poller.register(device, select.POLLIN)
        clock = time.monotonic

        def receive(buffers: list[bytearray]) -> int:
            until = clock() + spin
            while True:
                try:
                    return readv(device, buffers)
                except BlockingIOError:
                    if clock() >= until:
                        poller.poll()

        return receive

    def _hand_over(
        self,
        token: CancelToken,
        handler: Handler,
        unique: int,
        node: int,
        body: memoryview,
        uid: int,
        gid: int,
        waits: WouldWait,
    ) -> None:
        """Has a request done by a worker; the buffer is about to be used again, so its body is copied."""
        work: Callable[[], Payload]
        if waits.rest is not None:
            work = waits.rest
        else:
            kept = memoryview(bytes(body))
            work = lambda: handler(node, kept, uid, gid)  # noqa: E731
        self._handed_over += 1
        self._workers.submit(token, lambda: self._work(unique, work))

    def _work(self, unique: int, work: Callable[[], Payload]) -> None:
        try:
            payload = work()
        except Exception as error:  # noqa: BLE001 - as above
            # Before the reply: the kernel may use the number again at once.
            self._interrupts.finish(unique)
            self._fail(unique, self._errno_of(error, 0))
        else:
            self._interrupts.finish(unique)
            self._answer(unique, payload)

    def _errno_of(self, error: Exception, opcode: int) -> int:
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            return error.errno or EIO
        if isinstance(error, Cancelled):
            return EINTR
        if isinstance(error, (struct.error, ValueError)):
            _log.warning("mount.bad_request", opcode=opcode, error=str(error))
            return EINVAL
        if isinstance(error, StoreError):
            _log.error("mount.store_failed", opcode=opcode, error=str(error))
        else:
            _log.error("mount.bug", opcode=opcode, exc_info=error)
        return EIO

    def _answer(self, unique: int, payload: Payload) -> None:
        if isinstance(payload, int):
            self._fail(unique, payload)
        elif payload is not None:
            self._reply(unique, payload)

    def _reply(self, unique: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        header = OUT_HEADER.pack(OUT_HEADER.size + size, 0, unique)
        try:
            if size > _JOINED:
                os.writev(self.device, (header, payload))
            else:
                os.write(self.device, header + payload)
        except OSError as error:
            self._not_delivered(unique, error)

    def _fail(self, unique: int, number: int) -> None:
        self._failures += 1
        try:
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size, -number, unique))
        except OSError as error:
            self._not_delivered(unique, error)

    def _not_delivered(self, unique: int, error: OSError) -> None:
        if error.errno in (ENOENT, ENODEV):
            # The caller was killed while we worked, or the mount is gone.
            return
        _log.error("mount.reply_refused", error=str(error))
        if error.errno == EINVAL:
            # The kernel did not understand us; the caller still waits.
            try:
                os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size, -EIO, unique))
            except OSError:
                _log.error("mount.no_answer", unique=unique)
