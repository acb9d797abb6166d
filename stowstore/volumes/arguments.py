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
from stowstore.versions.options import CommitOptions
from stowstore.versions.root import Root, check_volume_name
from stowstore.volumes.lineage import current_producer
from stowstore.volumes.registry import registry

if TYPE_CHECKING:
    from stowstore.volumes.rw import RWVolume

__all__ = [
    "Directory",
    "checked_switch",
    "checked_timeout",
    "checked_uploads",
    "directory",
    "fork_name",
    "forked_into",
    "said",
    "seconds_of",
    "text_of",
    "within",
]

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
    if path is None:
        return None
    if not os.fspath(path):
        raise ConfigError("a path is empty", hint="name a directory, or leave it out")
    return Path(path).expanduser().absolute()


def seconds_of(delay: str | float | None) -> float:
    """A delay in seconds."""
    if delay is None:
        return 0.0
    if not isinstance(delay, (str, int, float)):
        raise ConfigError(f"upload_delay is {delay!r}", hint="give a duration such as '30s', or seconds")
    seconds = parse_duration(delay) / 1e9 if isinstance(delay, str) else float(delay)
    if not seconds >= 0:
        raise ConfigError(f"upload_delay is {delay!r}", hint="give a duration such as '30s', or none")
    return seconds


def within(timeout: float | None) -> Any:
    """A deadline, where one is given."""
    return nullcontext() if timeout is None else deadline(checked_timeout(timeout))


def checked_timeout(timeout: float) -> float:
    """A timeout that is one.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout >= 0:
        raise ConfigError(f"timeout is {timeout!r}", hint="give seconds, or None")
    return timeout


def checked_uploads(max_uploads: int) -> int:
    """How many uploads may run at the same time.

    Raises:
        ConfigError: it is no such number.
    """
    if type(max_uploads) is not int or max_uploads < 1:
        raise ConfigError(f"max_uploads is {max_uploads!r}", hint="give a number of 1 or more")
    return max_uploads


def checked_switch(value: bool, name: str) -> bool:
    """True or False, and nothing that only looks like it: the text ``"no"`` is true.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}", hint="True or False")
    return value
