"""Mounting a volume: the daemon that serves it is started, asked and ended from here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from datastore.context import deadline
from datastore.errors import Unsupported
from stowstore.chunks.encryption import KeySource, Passphrase, load_key
from stowstore.mounts import control
from stowstore.mounts.options import MountOptions, MountRequest
from stowstore.mounts.starting import start
from stowstore.mounts.unmounting import unmount
from stowstore.versions.address import VolumeAddress
from stowstore.versions.errors import VolumeError
from stowstore.versions.manifest import Manifest
from stowstore.volumes.arguments import checked_timeout, within
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.registry import Key, registry
from stowstore.volumes.watching import tell

__all__ = ["ask", "await_end", "control_answers", "default_mount_path", "mount", "published", "take_down"]


def mount(volume: Any, path: Path, opening: Mapping[str, Any], options: MountOptions, *, timeout: float | None) -> Path:
    """Starts a daemon for a volume and returns the path once it answers."""
    key: Key = volume._key()
    if timeout is not None:
        checked_timeout(timeout)
    if volume.storage == "mem":
        raise Unsupported(
            f"{volume.bucket} is in the memory of this process, where no daemon reaches it",
            hint="use a root on local disk (file:///...), or the volume's `files` without a mount",
        )
    with registry.changing(key):
        read_only = key.version is not None or bool(opening.get("read_only"))
        for where, reads in registry.mounts_of(key).items():
            # Readers stand beside each other, and beside the writer.
            if not (reads or read_only) and control_answers(where):
                raise VolumeError(f"volume {volume.name!r} is mounted at {where} already", hint="unmount it first")
        opened = registry.find(key)
        if opened is not None and not opened.session.read_only:
            raise VolumeError(f"volume {volume.name!r} is open in this process", hint="close it before it is mounted")
        request = MountRequest(
            path=path,
            volume=volume.to_dict(),
            opening={name: _plain(value) for name, value in opening.items()},
            seen=registry.was_open(key),
            access=dict(registry.options_of(volume.bucket)),
            key=_portable(registry.key_source(volume.bucket)),
            options=options,
        )
        start(request, timeout=timeout)
        registry.note_mount(key, path, registry.last_locator(key) or volume.index, read_only=read_only)
        tell(volume, opening.get("meta_dir"))
        return path


def take_down(volume: Any, path: Path | None, *, timeout: float | None, force: bool = False) -> None:
    """Unmounts what `mount` has mounted: at a path, or everywhere."""
    key: Key = volume._key()
    with registry.changing(key):
        mounted = registry.mounts_of(key)
        if not mounted or (path is not None and path not in mounted):
            at = "" if path is None else f" at {path}"
            raise VolumeError(
                f"volume {volume.name!r} is not mounted{at} by this process", hint="see `stowstore mounts`"
            )
        for where in mounted if path is None else [path]:
            unmount(where, timeout=30.0 if timeout is None else checked_timeout(timeout), force=force)
            registry.note_unmount(key, where, "was unmounted")
            if not mounted[where]:
                registry.note_uncommitted(key)


def ask(path: Path, do: str, *, timeout: float | None = None, **arguments: Any) -> dict[str, Any]:
    """Has the daemon at a path do something on behalf of the present producer."""
    if do in ("commit", "finalize", "fork"):
        arguments["produced_by"] = current_producer()
    with within(timeout):
        return control.ask(path, do, **arguments)


def published(volume: Any, locator: str) -> Manifest:
    """The version that a daemon has published."""
    address = VolumeAddress.parse(locator)
    return registry.root(address.root, volume.region).load(address.version_name)


def default_mount_path(name: str) -> Path:
    """Where a volume is mounted when nothing is said: below the user's home."""
    return Path.home() / "volumes" / name


def control_answers(path: Path) -> bool:
    """Whether a daemon serves a path."""
    try:
        with deadline(5.0):
            control.ask(path, "ping")
    except (VolumeError, OSError):
        return False
    return True


def await_end(path: Path, seconds: float = 10.0) -> None:
    """Waits until a daemon that has been told to end has done so, and cleans up after one that hangs."""
    with suppress(control.NotServed):
        # It may end before it is looked at, or while it is.
        unmount(path, timeout=seconds)


def _plain(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _portable(source: KeySource | None) -> tuple[str, str] | None:
    """A key in a form that goes through a pipe."""
    if source is None:
        return None
    if isinstance(source, Passphrase):
        return "passphrase", source.read().decode()
    return "key", load_key(source).hex()
