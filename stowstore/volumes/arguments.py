"""What callers of volumes give, checked and in the form the rest works with."""

from __future__ import annotations

import os
import secrets
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore.context import deadline
from datastore.errors import ConfigError
from stowstore.durations import parse_duration
from stowstore.versions.root import Root, check_volume_name
from stowstore.versions.session import CommitOptions
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.registry import registry

if TYPE_CHECKING:
    from stowstore.volumes.rw import RWVolume

__all__ = ["Directory", "directory", "fork_name", "forked_into", "said", "seconds_of", "text_of", "within"]

#: A directory on the local disk.
Directory = str | os.PathLike[str] | None


def fork_name(root: Root, volume: str, name: str | None) -> str:
    """The name of a fork: the one given, which must be free, or one made up."""
    if name is None:
        return f"{volume[:80]}-fork-{secrets.token_hex(4)}"
    root.require_free(check_volume_name(name))
    return name


def forked_into(volume: RWVolume, meta_dir: Directory) -> RWVolume:
    """A fork whose journal goes where its maker has said."""
    wanted = directory(meta_dir)
    if wanted is not None:
        registry.prefer_meta_dir(volume._key(), wanted)
    return volume


def said(message: str | None) -> CommitOptions:
    """What a version says of itself, by the present producer."""
    if message is not None and not isinstance(message, str):
        raise ConfigError(f"a message is text, not {type(message).__name__}")
    return CommitOptions(message=message, produced_by=current_producer())


def text_of(message: object) -> str | None:
    """A message that goes over a socket."""
    return said(message).message  # type: ignore[arg-type]


def directory(path: Directory) -> Path | None:
    """A path that stays what it is wherever the process goes."""
    return None if path is None else Path(path).expanduser().absolute()


def seconds_of(delay: str | float | None) -> float:
    """A delay in seconds."""
    if delay is None:
        return 0.0
    seconds = parse_duration(delay) / 1e9 if isinstance(delay, str) else float(delay)
    if seconds < 0:
        raise ConfigError(f"upload_delay is {delay!r}", hint="give a duration such as '30s', or none")
    return seconds


def within(timeout: float | None) -> Any:
    """A deadline, where one is given."""
    return nullcontext() if timeout is None else deadline(timeout)
