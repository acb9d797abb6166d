"""User metadata as backends can hold them: what one cannot keep as it is travels packed in a few values that it can."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping

__all__ = ["pack", "unpack"]

#: Letters and digits alone are a name everywhere; Azure takes no dashes, many gateways no underscores.
_NAME = "stowstorepacked"
#: The shortest limit of a value among the backends is Swift's, 256 bytes.
_LENGTH = 240
#: Swift takes 90 names.
_MANY = 60


def pack(metadata: Mapping[str, str], is_plain: Callable[[str, str], bool]) -> dict[str, str]:
    """The same metadata, those that are not ``is_plain`` (or too many) packed."""
    many = len(metadata) > _MANY
    found: dict[str, str] = {}
    packed: list[str] = []
    for name, value in metadata.items():
        if not many and not name.startswith(_NAME) and is_plain(name, value):
            found[name] = value
        else:
            # Names have no "=", values no line ends.
            packed.append(f"{name}={value}")
    if packed:
        text = base64.urlsafe_b64encode(zlib.compress("\n".join(packed).encode())).decode()
        for number, first in enumerate(range(0, len(text), _LENGTH)):
            found[f"{_NAME}{number}"] = text[first : first + _LENGTH]
    return found


def unpack(metadata: Mapping[str, str]) -> dict[str, str]:
    """What was given to `pack`; names come back in lower case."""
    found: dict[str, str] = {}
    packed: dict[int, str] = {}
    for name, value in metadata.items():
        name = name.lower()
        number = name.removeprefix(_NAME)
        if number != name and number.isdigit():
            packed[int(number)] = value
        else:
            found[name] = value
    if packed:
        try:
            text = zlib.decompress(base64.urlsafe_b64decode("".join(packed[i] for i in sorted(packed)))).decode()
        except (ValueError, zlib.error):
            # Somebody else's metadata of that name.
            return found | {f"{_NAME}{number}": value for number, value in packed.items()}
        found.update((name, value) for name, _, value in (line.partition("=") for line in text.split("\n")))
    return found
