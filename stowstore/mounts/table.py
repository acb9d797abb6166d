"""What is mounted on this host by this user: one file a mount, beside its control socket.

A mount whose daemon is gone stays listed as dead until it is unmounted or replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from datastore.errors import PermissionDenied, StoreError
from stowstore.fuse.device import find_mount, mount_point, mounts

__all__ = ["MountRecord", "find", "forget", "known", "names_of", "remember", "runtime_directory"]


@frozen(kw_only=True)
class MountRecord:
    """One mount: where, of what, and by which process.  ``started`` is the daemon's start in clock ticks since boot."""

    path: str
    volume: str
    pid: int
    started: int
    socket: str
    log: str
    read_only: bool
    metrics_port: int | None = None
    since: float = field(default=0.0)

    @property
    def is_alive(self) -> bool:
        """Whether the daemon still runs."""
        return started_at(self.pid) == self.started

    @property
    def is_mounted(self) -> bool:
        """Whether the kernel has the mount."""
        return find_mount(self.path) is not None


def runtime_directory() -> Path:
    """Where sockets and records lie: 0700, and this user's.

    Raises:
        PermissionDenied: somebody else has made it.
    """
    named = os.environ.get("STOWSTORE_RUNTIME_DIR")
    if named:
        directory = Path(named)
    elif os.geteuid() == 0:
        directory = Path("/run/stowstore")
    elif os.environ.get("XDG_RUNTIME_DIR"):
        directory = Path(os.environ["XDG_RUNTIME_DIR"]) / "stowstore"
    else:
        directory = Path(tempfile.gettempdir()) / f"stowstore-{os.geteuid()}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionDenied(
            f"{directory} is not a directory of this user alone",
            hint="remove it, or name another one by STOWSTORE_RUNTIME_DIR",
        )
    return directory


def names_of(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The record and the socket of a mount; their names are short, since sockets have room for 107 bytes."""
    digest = hashlib.blake2b(os.fsencode(mount_point(path)), digest_size=8).hexdigest()
    directory = runtime_directory()
    return directory / f"{digest}.json", directory / f"{digest}.sock"


def remember(record: MountRecord) -> None:
    """Lists a mount."""
    target, _ = names_of(record.path)
    draft = target.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(asdict(record)))
    draft.chmod(0o600)
    draft.replace(target)


def forget(path: str | os.PathLike[str]) -> None:
    """Takes a mount off the list, with its socket."""
    for name in names_of(path):
        name.unlink(missing_ok=True)


def find(path: str | os.PathLike[str]) -> MountRecord | None:
    """The record of a mount."""
    return _read(names_of(path)[0])


def known() -> list[MountRecord]:
    """Every mount on the list, ascending by path; those that are neither mounted nor served are dropped."""
    mounted = {str(one.path) for one in mounts()}
    found: list[MountRecord] = []
    for name in runtime_directory().glob("*.json"):
        record = _read(name)
        if record is None:
            continue
        if record.path not in mounted and not record.is_alive:
            forget(record.path)
        else:
            found.append(record)
    return sorted(found, key=lambda record: record.path)


def started_at(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None when there is none, or it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return int(fields[19])
    return None


def _read(name: Path) -> MountRecord | None:
    try:
        data: dict[str, Any] = json.loads(name.read_bytes())
        return MountRecord(**data)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Half-written by a process that was killed, or by another release.
        return None
    except OSError as error:
        raise StoreError(f"{name} cannot be read: {error.strerror}") from error
