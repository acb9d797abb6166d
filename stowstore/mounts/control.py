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
from typing import Any, Final

from datastore import errors as store_errors
from datastore.context import remaining
from datastore.errors import DeadlineExceeded, StoreError
from stowstore.fuse import device
from stowstore.mounts import table
from stowstore.versions import errors as volume_errors
from stowstore.versions.errors import VolumeError

__all__ = ["PROTOCOL", "NotServed", "as_failure", "ask", "raised"]

PROTOCOL: Final = 1

#: What one answer may hold; more is no answer of ours.
_MAX_ANSWER: Final = 64 << 20


class NotServed(VolumeError):
    """A mount's daemon does not answer: it has died, or nothing is mounted there."""


def ask(path: str | os.PathLike[str], do: str, **arguments: Any) -> dict[str, Any]:
    """Has the daemon of a mount do something and waits for it, no longer than the context's deadline.

    Raises:
        NotServed: there is no daemon.
        DeadlineExceeded: it did not answer in time; it may yet do it.
        StoreError, OSError: whatever the daemon raised.
    """
    record = table.find(path)
    if record is None:
        raise NotServed(f"no volume is mounted at {os.fspath(path)}", hint="see `stowstore mounts`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(remaining())
        try:
            connection.connect(record.socket)
            connection.sendall(json.dumps({"version": PROTOCOL, "do": do, "with": arguments}).encode() + b"\n")
            answer = _line(connection)
        except TimeoutError:
            raise DeadlineExceeded(f"the daemon of {record.path} did not answer in time", hint="it goes on") from None
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
        failure |= {"message": error.message, "hint": error.hint, "above": above}
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
    for name in (kind, *failure.get("above", ())):
        for module in (volume_errors, store_errors, device):
            found = getattr(module, name, None)
            if isinstance(found, type) and issubclass(found, StoreError):
                with contextlib.suppress(TypeError):
                    return found(message, hint=hint)
    return StoreError(message if kind == "StoreError" else f"{kind}: {message}", hint=hint)


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
