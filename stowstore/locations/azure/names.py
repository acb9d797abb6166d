"""Names on Azure: of containers, accounts, keys and user metadata."""

from __future__ import annotations

import re

from datastore.errors import InvalidReference

__all__ = ["check_container_name", "check_key", "incoming_name", "outgoing_name"]

_CONTAINER = re.compile(r"\$root|\$web|\$logs|(?=.{3,63}\Z)[a-z0-9](?:-?[a-z0-9])*")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPED = re.compile(r"_([_d])")


def check_container_name(name: str) -> None:
    """Raises `InvalidReference` for names no container can have."""
    if not _CONTAINER.fullmatch(name):
        raise InvalidReference(
            f"Azure has no container named {name!r}",
            reason="container_name",
            hint="3 to 63 lower case letters and digits, with single '-' between them",
        )


def check_key(key: str) -> None:
    """Raises `InvalidReference` for keys the service would change."""
    if "\\" in key:
        raise InvalidReference("the key has a backslash, which Azure turns into a slash", reason="backslash")


def outgoing_name(name: str) -> str:
    """A user metadata name as Azure takes it.

    Azure wants C# identifiers and does not keep their case.  Names with '-' or a digit first begin with '_', which no
    name of ours does, and in them '_' is written '__' and '-' is written '_d'.
    """
    if _IDENTIFIER.fullmatch(name):
        return name
    return "_" + name.replace("_", "__").replace("-", "_d")


def incoming_name(name: str) -> str:
    """What `outgoing_name` was given."""
    if not name.startswith("_"):
        return name
    return _ESCAPED.sub(lambda found: "_" if found[1] == "_" else "-", name[1:])
