"""Names of volumes: checked before the disk is touched, since they become parts of paths."""

from __future__ import annotations

import re
from typing import Final

from stowstore.named.errors import InvalidName

__all__ = ["MAX_NAME", "check_name", "is_name"]

#: Letters a name may have at most.
MAX_NAME: Final = 63

_NEW: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
#: Upstream (joblet) lets names begin with a digit; such volumes can be read, and no new ones be made.
_KNOWN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def check_name(name: str) -> str:
    """A name that a new volume may have: a letter first, then letters, digits, ``-`` and ``_``, at most 63.

    The last is a letter or digit.  Case counts.

    Raises:
        InvalidName: it cannot be one.
    """
    if not name:
        raise InvalidName("volume name cannot be empty", hint="give a name such as training-data")
    if _NEW.fullmatch(name) is None:
        raise InvalidName(f"invalid volume name: {name[:80]!r}", hint=_hint(name))
    return name


def is_name(name: str) -> bool:
    """Whether a volume that exists may be called so."""
    return _KNOWN.fullmatch(name) is not None


def _hint(name: str) -> str:
    if len(name) > MAX_NAME:
        return f"it has {len(name)} characters; {MAX_NAME} are allowed"
    if not (name[0].isascii() and name[0].isalpha()):
        return "begin with a letter of a to z"
    return "use letters, digits, '-' and '_' only, and end with a letter or digit"
