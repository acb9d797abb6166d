"""The keeper: the parent of one server's processes, and their end.

    python -m tests.servers.keeper NAME --watch=PID [--root=DIRECTORY] [--port=PORT]

Starts the server, prints its address as one JSON object, then obeys the socket `control` in the server's directory
(one word a connection) until it is told to stop, gets SIGTERM or SIGINT, or the watched process ends. Should the
keeper itself be killed, the kernel kills its children.
"""

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers import KINDS
from tests.servers.kind import Kind
from tests.servers.model import ServerError
from tests.servers.processes import Processes, reserve_ports
from tests.servers.server import CONTROL

MARK = "stowstore-test-server"
#: Unix socket paths end at 107 characters; servers put theirs a few levels below the root.
LONGEST_ROOT = 60


class _Unwanted(Exception):
    """Nobody wants the server any more."""


def main() -> None:
    """Keeps one server until it is not wanted any more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(KINDS))
    parser.add_argument("--watch", type=int, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    kind = KINDS[options.name]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with contextlib.suppress(_Unwanted):
        try:
            with (
                _watching(options.watch) as watched,
                _directory(options.root) as root,
                reserve_ports(kind.port_offsets, options.port) as ports,
            ):
                _keep(kind, Processes(root=root, ports=ports), watched)
        except ServerError as error:
            _report({"error": f"{kind.name}: {error}"})
            sys.exit(1)


def _keep(kind: Kind, processes: Processes, watched: int) -> None:
    def check_wanted() -> None:
        if select.select([watched], [], [], 0)[0]:
            raise _Unwanted

    processes.check_wanted = check_wanted
    with contextlib.ExitStack() as ending:
        ending.callback(lambda: processes.end_all(0))
        kind.prepare(processes)
        kind.serve(processes)
        control = ending.enter_context(socket.socket(socket.AF_UNIX))
        path = processes.root / CONTROL
        control.bind(str(path))
        ending.callback(path.unlink, missing_ok=True)
        control.listen()
        _report({"address": kind.address(processes).to_json()})
        asked: socket.socket | None = None
        while asked is None:
            if watched in select.select([control.fileno(), watched], [], [])[0]:
                return
            asked = _obey(control.accept()[0], kind, processes)
        processes.end_all(0)
        path.unlink(missing_ok=True)
        _answer(asked, {})


def _obey(connection: socket.socket, kind: Kind, processes: Processes) -> socket.socket | None:
    """Carries out one request; hands the connection back when that is to stop, to be answered afterwards."""
    connection.settimeout(10)
    try:
        what = connection.makefile("r").readline().strip()
        if what == "stop":
            return connection
        _carry_out(what, kind, processes)
    except ServerError as error:
        _answer(connection, {"error": str(error)})
    except OSError as error:
        _answer(connection, {"error": repr(error)})
    else:
        _answer(connection, {})
    return None


def _carry_out(what: str, kind: Kind, processes: Processes) -> None:
    match what:
        case "stop_gateway":
            kind.halt(processes)
        case "start_gateway":
            if not processes.is_serving:
                kind.halt(processes)  # what is left of it, should some have crashed
                kind.serve(processes)
        case "pause":
            processes.signal_serving(signal.SIGSTOP)
        case "resume":
            processes.signal_serving(signal.SIGCONT)
        case _:
            raise ServerError(f"the keeper knows no {what!r}")


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """Makes an empty directory: the given one, which stays, or a temporary one."""
    if given is None:
        parent = tempfile.gettempdir()
        root = Path(tempfile.mkdtemp(prefix="stow-", dir=parent if len(parent) < LONGEST_ROOT - 15 else "/tmp"))
    else:
        root = given.absolute()
        if len(str(root)) > LONGEST_ROOT:
            raise ServerError(f"{root}: too long, sockets lie below it; take one of at most {LONGEST_ROOT} characters")
        if root.exists() and any(root.iterdir()) and not (root / MARK).exists():
            raise ServerError(f"{root} is neither empty nor left by an earlier server; name another directory")
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
    try:
        (root / MARK).touch()
        yield root
    finally:
        if given is None:
            shutil.rmtree(root, ignore_errors=True)
        else:
            for path in root.rglob("*"):  # those killed leave theirs
                if path.is_socket():
                    path.unlink()


@contextlib.contextmanager
def _watching(process: int) -> Iterator[int]:
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        raise _Unwanted from None
    try:
        yield watched
    finally:
        os.close(watched)


def _report(message: dict[str, object]) -> None:
    """Answers whoever started the keeper, once, and lets go of the pipe."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _answer(connection: socket.socket, message: dict[str, object]) -> None:
    with connection, contextlib.suppress(OSError):  # whoever asked may have gone
        connection.sendall(json.dumps(message).encode() + b"\n")


def _end(_number: int, _frame: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # once is enough: the way out must not be interrupted
        signal.signal(number, signal.SIG_IGN)
    raise _Unwanted


if __name__ == "__main__":
    main()
