"""Talking to a daemon: one JSON object a line over a unix socket that only its user may open.

{"version": 1, "do": "commit", "with": {"message": "epoch 1"}}
{"done": {"locator": "..."}}    or    {"failed": {"kind": "LeaseLost", "message": "...", "hint": "..."}}
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from struct import pack
from typing import Any, Final

from datastore import errors as store_errors
from datastore.context import remaining
from datastore.errors import DeadlineExceeded, StoreError
from stowstore.fuse import device
from stowstore.mounts import table
from stowstore.versions import errors as volume_errors
from stowstore.versions.errors import VolumeError

__all__ = ["PROTOCOL", "NotAnswering", "NotServed", "as_failure", "ask", "raised"]

PROTOCOL: Final = 1

#: How long a daemon may be silent before it is asked whether it is there at all, seconds.
_QUIET: Final = 5.0

#: How long it may take to say so, seconds: it may be busy, and its machine, too.
_PATIENCE: Final = 30.0

#: What one answer may hold; more is no answer of ours.
_MAX_ANSWER: Final = 64 << 20


class NotServed(VolumeError):
    """A mount's daemon does not answer: it has died, or nothing is mounted there."""


class NotAnswering(VolumeError):
    """A mount's daemon is there and answers nothing, not even a ping: it is stopped, or it hangs."""


def ask(path: str | os.PathLike[str], do: str, **arguments: Any) -> dict[str, Any]:
    """Has the daemon of a mount do something and waits for it, no longer than the context's deadline.

    Without a deadline that is as long as the daemon answers pings, which it does whatever else it does.

    Raises:
        NotServed: there is no daemon.
        NotAnswering: it does not answer pings; should it go on, it may yet do it.
        DeadlineExceeded: it did not answer in time; it may yet do it.
        StoreError, OSError: whatever the daemon raised.
    """
    record = table.find(path)
    if record is None:
        raise NotServed(f"no volume is mounted at {os.fspath(path)}", hint="see `stowstore mounts`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _send(connection, record, do, arguments)
            while not _has_answered(connection, _QUIET):
                if not _answers_ping(record) and not _has_answered(connection, 0.0):
                    raise _silent(record)
            connection.settimeout(_at_most(_PATIENCE))
            answer = _line(connection)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the daemon of {record.path} (process {record.pid}) did not answer in time",
                hint=f"it goes on, unless it is stopped or hangs: {_way_out(record)}",
            ) from None
        except BlockingIOError:
            raise _silent(record) from None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
                raise
            answer = b""
    if not answer:
        raise NotServed(
            f"the daemon of {record.path} (process {record.pid}) is gone; its log is {record.log}",
            hint=f"`stowstore umount {record.path}`, then mount again: what was fsynced is in the journal",
        )
    found = json.loads(answer)
    if "failed" in found:
        raise raised(found["failed"])
    done: dict[str, Any] = found["done"]
    return done


def as_failure(error: BaseException) -> dict[str, Any]:
    """An error as it goes over the socket."""
    failure: dict[str, Any] = {"kind": type(error).__name__, "message": str(error), "hint": None}
    if isinstance(error, StoreError):
        above = [kind.__name__ for kind in type(error).__mro__[1:] if issubclass(kind, StoreError)]
        about = {"op": error.op, "reference": error.reference}
        failure |= {"message": error.message, "hint": error.hint, "above": above, "about": about}
    elif isinstance(error, OSError):
        failure |= {"errno": error.errno, "message": error.strerror or str(error)}
        if error.filename is not None:
            failure["filename"] = os.fsdecode(error.filename)
    return failure


def raised(failure: dict[str, Any]) -> Exception:
    """The error that came over the socket, of the same kind where it is one of ours, else of the nearest above it."""
    kind, message, hint = str(failure.get("kind")), str(failure.get("message")), failure.get("hint")
    if failure.get("errno") is not None:
        return OSError(int(failure["errno"]), message, failure.get("filename"))
    about = failure.get("about", {})
    for name in (kind, *failure.get("above", ())):
        for module in (volume_errors, store_errors, device):
            found = getattr(module, name, None)
            if isinstance(found, type) and issubclass(found, StoreError):
                with contextlib.suppress(TypeError):
                    return found(message, hint=hint, **about)
    return StoreError(message if kind == "StoreError" else f"{kind}: {message}", hint=hint, **about)


def _send(connection: socket.socket, record: table.MountRecord, do: str, arguments: dict[str, Any]) -> None:
    # Where many wait to be heard, connecting waits as well, and only a socket without Python's timeout does that.
    whole, part = divmod(_at_most(_PATIENCE), 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, pack("ll", int(whole), max(int(part * 1e6), 1)))
    try:
        connection.connect(record.socket)
    except BlockingIOError:
        if remaining() == 0.0:
            raise TimeoutError from None
        raise
    connection.sendall(json.dumps({"version": PROTOCOL, "do": do, "with": arguments}).encode() + b"\n")


def _has_answered(connection: socket.socket, seconds: float) -> bool:
    """Whether an answer has begun, or the connection has ended; raises TimeoutError when the context's time is over."""
    connection.settimeout(_at_most(seconds))
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        if remaining() == 0.0:
            raise
        return False
    return True


def _answers_ping(record: table.MountRecord) -> bool:
    """Whether a daemon answers another request meanwhile; one that takes none any more is about to end, and tells."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _send(connection, record, "ping", {})
            return _has_answered(connection, _PATIENCE)
        except BlockingIOError:
            return False
        except (FileNotFoundError, ConnectionError):
            return True


def _at_most(seconds: float) -> float:
    """So long, or what is left of the context's time; never 0, which would be not to wait for the system either."""
    left = remaining()
    return max(seconds if left is None else min(seconds, left), 0.001)


def _silent(record: table.MountRecord) -> NotAnswering:
    return NotAnswering(
        f"the daemon of {record.path} (process {record.pid}) does not answer: it is stopped, or it hangs;"
        f" its log is {record.log}",
        hint=_way_out(record),
    )


def _way_out(record: table.MountRecord) -> str:
    return (
        f"`kill -CONT {record.pid}` has a stopped one go on; `stowstore umount --force {record.path}` ends it,"
        " and what was fsynced is in the journal"
    )


def _line(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        part = connection.recv(1 << 16)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)
        if size > _MAX_ANSWER:
            raise StoreError("a daemon's answer has no end")
