"""A store as simple as it can be said: a dictionary, sorted when asked.  What every store is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from datastore.model import Cursor

__all__ = ["ModelObject", "ModelPage", "ReferenceModel"]


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
        names = [name for name in self._names(prefix, delimiter) if self._is_after(name, cursor)]
        taken, more = names[:limit], len(names) > limit
        return ModelPage(
            tuple(name for name in taken if name in self.objects),
            tuple(name.removesuffix("/") for name in taken if name not in self.objects),
            Cursor.after_key(taken[-1]) if more else Cursor.at_end(),
        )

    def _names(self, prefix: str, delimiter: str) -> list[str]:
        """Keys and common prefixes (which end with the delimiter), each once, in order."""
        names = set()
        for key in self.keys(prefix):
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            names.add(prefix + head + found if found else key)
        return sorted_keys(names)

    def _is_after(self, name: str, cursor: Cursor) -> bool:
        return cursor.is_at_start or name.encode() > cursor.after.encode()


def sorted_keys(keys: Iterable[str]) -> list[str]:
    """Keys ascending by their UTF-8 bytes, which is the order of their code points and not of UTF-16."""
    return sorted(keys, key=str.encode)
