"""Whether this host can provide a backing: found out by doing it, and remembered until the next boot."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["boot_id", "probed"]

_PROBED: Final = ".probed.json"


def probed(base: Path, kind: str, attempt: Callable[[Path], None]) -> None:
    """Returns if ``attempt``, given a scratch directory, has succeeded since the last boot, or does now.

    A failure is never remembered: whoever installs what was missing need not tell anybody.

    Raises:
        BackingUnsupported: what ``attempt`` raises.
    """
    known = base / _PROBED
    mark = f"{kind} {boot_id()} {os.geteuid()} {_namespace()}"
    found = _read(known)
    if mark in found:
        return
    base.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=base) as scratch:
        attempt(Path(scratch))
    with contextlib.suppress(OSError):
        draft = base / f"{_PROBED}.{os.getpid()}"
        boot = boot_id()
        draft.write_text(json.dumps([*(one for one in found if boot in one), mark]))
        draft.replace(known)


def boot_id() -> str:
    """What is different after every boot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"


def _namespace() -> str:
    """The mount namespace: what root of the host may do, root of a container may not."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/mnt")
    return "unknown"


def _read(path: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        if isinstance(found, list):
            return [one for one in found if isinstance(one, str)]
    return []
