"""Several daemons for little more than the price of one: a process that has loaded what they need, and forks each.

A daemon spends most of its start on loading modules.  Within `nursery` the first mount starts a process that does so
once, and this and every further mount of the block is a fork of it.  It ends with the block, its daemons go on.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stowstore.mounts.options import MountRequest

__all__ = ["HELLO", "Nursery", "begin", "current", "environment", "nursery"]

#: What is said with the descriptors of a mount: its request, where to answer, and its log.
HELLO: Final = b"mount"

_current: ContextVar[Nursery | None] = ContextVar("stowstore_nursery", default=None)
_begun: list[Nursery] = []


@contextlib.contextmanager
def nursery() -> Iterator[None]:
    """Mounts within the block, and in threads that have its context, are forked from one process."""
    opened = _begun.pop() if _begun else Nursery()
    token = _current.set(opened)
    try:
        yield
    finally:
        _current.reset(token)
        opened.close()


def current() -> Nursery | None:
    """The nursery of the block that this is in."""
    return _current.get()


def begin() -> None:
    """Starts the process of the next block already now, so that it loads its modules beside this one.

    This module needs nothing but the standard library for that reason.
    """
    opened = Nursery()
    opened.begin()
    _begun.append(opened)
    atexit.register(opened.close)


def environment() -> dict[str, str]:
    """The environment of daemons: this process's own, with where it found the package."""
    here = str(Path(__file__).parents[2])
    known = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *known]), "PYTHONSAFEPATH": "1"}


class Nursery:
    """The process that forks daemons, from the outside; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False

    def begin(self) -> None:
        """Starts the process; without, that is done for the first daemon."""
        with self._lock:
            if self._connection is None and not self._is_over:
                self._connection = self._start()

    def fork(self, request: MountRequest, log: int) -> tuple[int, int] | None:
        """Has a daemon forked; its number and a descriptor that it answers on, or None when that cannot be.

        The request has to name its log.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        told = os.memfd_create("stowstore-mount")
        try:
            os.write(told, json.dumps(request.to_data()).encode())
            os.lseek(told, 0, os.SEEK_SET)
            with self._lock:
                pid = self._ask([told, writing, log])
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(told)
            os.close(writing)
        if pid is None:
            os.close(reading)
            return None
        return pid, reading

    def close(self) -> None:
        """Lets the process end."""
        with self._lock:
            self._give_up()
            if self._process is not None:
                # It has nothing to lose, and may still be loading.
                self._process.kill()
                self._process.wait()

    def _ask(self, descriptors: list[int]) -> int | None:
        if self._is_over:
            return None
        try:
            if self._connection is None:
                self._connection = self._start()
            socket.send_fds(self._connection, [HELLO], descriptors)
            answer = self._connection.recv(32)
        except OSError:
            answer = b""
        if not answer:
            # It has died, or may not fork: daemons are started in the ordinary way.
            self._give_up()
            return None
        return int(answer)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stowstore.daemon", "--nursery"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                env=environment(),
            )
        return ours

    def _give_up(self) -> None:
        self._is_over = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
