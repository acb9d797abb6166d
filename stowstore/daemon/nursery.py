"""The process that daemons are forked from: it loads what they need, and then forks one whenever it is told to."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from typing import Final, NoReturn

from stowstore.daemon.process import main
from stowstore.locations import local  # noqa: F401 - the location of most volumes, loaded once for all daemons
from stowstore.mounts.nursery import HELLO
from stowstore.mounts.options import MountRequest
from stowstore.namespace.metastore import sqlite  # noqa: F401 - likewise

__all__ = ["serve"]

#: A request, a pipe for the answer, a log.
_DESCRIPTORS: Final = 3


def serve(connection: socket.socket) -> NoReturn:
    """Forks daemons until the other side has gone.  Only a process of one thread may do so.

    Garbage is collected from here on, where that was put off for the loading.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        os._exit(1)
    # What is loaded stays shared with every daemon, and none of them is left as a zombie.
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        said, descriptors, _, _ = socket.recv_fds(connection, len(HELLO), _DESCRIPTORS)
        if said != HELLO or len(descriptors) != _DESCRIPTORS:
            # Whoever has closed the other side waits for the end, which need not be a tidy one.
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become_daemon(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(pid).encode())


def _become_daemon(told: int, answer: int, log: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(log)
        with open(told, "rb") as source_of_request:
            request = MountRequest.from_data(json.load(source_of_request))
        status = main(request, answer=answer, log=str(request.options.log_file), lifeline=None)
    finally:
        sys.stderr.flush()
        os._exit(status)
