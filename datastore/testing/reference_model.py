"""A store as simple as it can be said: a dictionary, sorted when asked.  What every store is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from datastore.model import Cursor

__all__ = ["ModelObject", "ModelPage", "ReferenceModel", "fold", "sorted_keys"]


@frozen
class ModelObject:
    """What the model keeps of one object."""

    content: bytes
    metadata: Mapping[str, str] = field(factory=dict)


@frozen
class ModelPage:
    """Keys and common prefixes (without their trailing delimiter) of one page, and where the next one starts."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]
    cursor: Cursor


class ReferenceModel:
    """The objects of one container by key.

    It does nothing cleverly: listings sort everything by UTF-8 bytes and filter, each time.
    """

    def __init__(self) -> None:
        self.objects: dict[str, ModelObject] = {}

    def write(self, key: str, content: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self.objects[key] = ModelObject(content, dict(metadata or {}))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def copy(self, source: str, destination: str, metadata: Mapping[str, str] | None = None) -> None:
        """Copies content and metadata, which ``metadata`` override name by name."""
        found = self.objects[source]
        self.objects[destination] = ModelObject(found.content, {**found.metadata, **(metadata or {})})

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """A range as Python slices it: a negative start counts from the end, everything is clipped."""
        rest = self.objects[key].content[start:] if start else self.objects[key].content
        return rest if length is None else rest[:length]

    def keys(self, prefix: str = "") -> list[str]:
        """Keys that start with a prefix, ascending by UTF-8 bytes."""
        return sorted_keys(key for key in self.objects if key.startswith(prefix))

    def page(self, prefix: str, limit: int, cursor: Cursor, delimiter: str = "") -> ModelPage:
        """One page of a listing, as `datastore.protocol.DataStore.list_page` defines it."""
        keys = [key for key in self.keys(prefix) if not _is_past(key, cursor, prefix, delimiter)]
        names = sorted_keys({fold(key, prefix, delimiter) for key in keys})
        taken, more = names[:limit], len(names) > limit
        return ModelPage(
            tuple(name for name in taken if name in self.objects),
            tuple(name.removesuffix("/") for name in taken if name not in self.objects),
            Cursor.after_key(taken[-1]) if more else Cursor.at_end(),
        )


def _is_past(key: str, cursor: Cursor, prefix: str, delimiter: str) -> bool:
    """Whether a listing that stopped at a cursor has seen a key, or the common prefix it is folded into."""
    after = cursor.after
    if cursor.is_at_start:
        return False
    if delimiter and after.endswith(delimiter) and len(after) > len(prefix) and key.startswith(after):
        return True
    return key.encode() <= after.encode()


def fold(key: str, prefix: str, delimiter: str) -> str:
    """The key itself, or the common prefix up to and with the first delimiter behind the prefix."""
    if not delimiter or delimiter not in key[len(prefix) :]:
        return key
    return key[: key.index(delimiter, len(prefix)) + len(delimiter)]


def sorted_keys(keys: Iterable[str]) -> list[str]:
    """Keys ascending by their UTF-8 bytes, which is the order of their code points and not of UTF-16."""
    return sorted(keys, key=str.encode)
