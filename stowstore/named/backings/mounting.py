"""Mounts of the kernel's own file systems, by mount(8): it sets a loop device up and mounts it in one step."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from stowstore.named.backings.base import Usage
from stowstore.named.errors import BackingUnsupported, VolumeInUse

__all__ = ["is_mounted", "mount_points", "run", "unmount", "used_of"]


def mount_points() -> set[str]:
    """Where anything is mounted, as this process sees it."""
    found = set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            path = line.split(" ", 5)[4]
            # The kernel writes blanks and backslashes in octal.
            found.add(path if "\\" not in path else _unescaped(path))
    return found


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at a path."""
    return str(path) in mount_points()


def run(*command: str, allowed: tuple[int, ...] = (0,)) -> None:
    """Runs a program of the system.

    Raises:
        BackingUnsupported: it is missing, or fails; the message has its last words.
    """
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise BackingUnsupported(f"{command[0]} is not installed", hint="as root: `apt-get install e2fsprogs mount`")
    done = subprocess.run(
        [program, *command[1:]],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode not in allowed:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
        raise BackingUnsupported(f"{command[0]}: {said}")


def unmount(path: Path, name: str, *, force: bool) -> None:
    """Unmounts what is at a path; with ``force`` whoever works in it keeps it until the end.

    Raises:
        VolumeInUse: somebody works in it.
    """
    if not is_mounted(path):
        return
    try:
        run("umount", *(["-l"] if force else []), str(path))
    except BackingUnsupported as error:
        if not is_mounted(path):
            return
        raise VolumeInUse(
            f"volume is currently in use: somebody works in {path}, and {name} cannot be unmounted: {error.message}",
            hint="`fuser -m` says who; or use --force",
        ) from error


def used_of(path: Path) -> Usage:
    """What a mounted file system holds: blocks that are not free, so that what is set aside does not count."""
    found = os.statvfs(path)
    return Usage(used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize, inodes=found.f_files - found.f_ffree)


def _unescaped(text: str) -> str:
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
