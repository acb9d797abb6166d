"""Several daemons for little more than the price of one: a process that has loaded what they need, and forks each.

A daemon spends most of its start on loading modules.  Within `nursery` the first mount starts a process that does so
once, and this and every further mount of the block is a fork of it.  It ends with the block, its daemons go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Final

from stowstore.mounts.options import MountRequest

__all__ = ["HELLO", "Nursery", "current", "nursery"]

#: What is said with the descriptors of a mount: its request, where to answer, and its log.
HELLO: Final = b"mount"

_current: ContextVar[Nursery | None] = ContextVar("stowstore_nursery", default=None)


@contextlib.contextmanager
def nursery() -> Iterator[None]:
    """Mounts within the block, and in threads that have its context, are forked from one process."""
    opened = Nursery()
    token = _current.set(opened)
    try:
        yield
    finally:
        _current.reset(token)
        opened.close()


def current() -> Nursery | None:
    """The nursery of the block that this is in."""
    return _current.get()


class Nursery:
    """The process that forks daemons, from the outside; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False

    def fork(self, request: MountRequest, log: int, environment: Mapping[str, str]) -> tuple[int, int] | None:
        """Has a daemon forked; its number and a descriptor that it answers on, or None when that cannot be.

        The request has to name its log.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        told = os.memfd_create("stowstore-mount")
        try:
            os.write(told, json.dumps(request.to_data()).encode())
            os.lseek(told, 0, os.SEEK_SET)
            with self._lock:
                pid = self._ask([told, writing, log], environment)
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
                self._process.wait()

    def _ask(self, descriptors: list[int], environment: Mapping[str, str]) -> int | None:
        if self._is_over:
            return None
        try:
            if self._connection is None:
                self._connection = self._start(environment)
            socket.send_fds(self._connection, [HELLO], descriptors)
            answer = self._connection.recv(32)
        except OSError:
            answer = b""
        if not answer:
            # It has died, or may not fork: daemons are started in the ordinary way.
            self._give_up()
            return None
        return int(answer)

    def _start(self, environment: Mapping[str, str]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stowstore.daemon", "--nursery"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                env=dict(environment),
            )
        return ours

    def _give_up(self) -> None:
        self._is_over = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
