"""What an operator allows on a host, from the environment."""

from __future__ import annotations

import os
from typing import Self

from attrs import frozen

from datastore.errors import ConfigError
from stowstore.named.errors import InvalidSize
from stowstore.named.sizes import DEFAULT_SIZE, parse_size

__all__ = ["VARIABLES", "Settings"]

#: Every variable and what it says.
VARIABLES = {
    "STOWSTORE_VOLUMES_DEFAULT_SIZE": "the size of a volume that is created without one",
    "STOWSTORE_VOLUMES_MAX_VOLUMES": "how many volumes there may be",
    "STOWSTORE_VOLUMES_MAX_SIZE": "the largest size of a volume",
    "STOWSTORE_VOLUMES_MAX_MEMORY_VOLUMES": "how many of them may be in memory",
    "STOWSTORE_VOLUMES_MAX_MEMORY": "what those in memory may have together",
}


@frozen(kw_only=True)
class Settings:
    """Limits of a registry; None is no limit.  Sizes in bytes."""

    default_size: str = DEFAULT_SIZE
    max_volumes: int | None = None
    max_size: int | None = None
    max_memory_volumes: int | None = None
    max_memory: int | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """What the environment says.

        Raises:
            ConfigError: a variable has no number or size.
        """
        default = os.environ.get("STOWSTORE_VOLUMES_DEFAULT_SIZE") or DEFAULT_SIZE
        _size("STOWSTORE_VOLUMES_DEFAULT_SIZE")
        return cls(
            default_size=default,
            max_volumes=_number("STOWSTORE_VOLUMES_MAX_VOLUMES"),
            max_size=_size("STOWSTORE_VOLUMES_MAX_SIZE"),
            max_memory_volumes=_number("STOWSTORE_VOLUMES_MAX_MEMORY_VOLUMES"),
            max_memory=_size("STOWSTORE_VOLUMES_MAX_MEMORY"),
        )


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"${variable} is {text!r}", hint="give a number, or unset it")
    return int(text)


def _size(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return parse_size(text)
    except InvalidSize as error:
        raise ConfigError(f"${variable}: {error.message}", hint=error.hint) from error
