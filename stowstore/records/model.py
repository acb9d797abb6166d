"""What a record is in a store: frozen, plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from stowstore.records.errors import InvalidRecord

__all__ = [
    "Deletion",
    "Edge",
    "FileKind",
    "Manifest",
    "Match",
    "Placement",
    "RecordFile",
    "RecordHeader",
    "Related",
    "Retired",
    "check_key",
    "check_uuid",
]

_UUID: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_uuid(uuid: object) -> str:
    """The uuid itself, if it can be one: letters, digits, inner hyphens and underscores, at most 64.

    Raises:
        InvalidRecord: it is something else, such as a path.
    """
    if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
        raise InvalidRecord(f"{uuid!r} is no uuid of a record", hint="a uuid is letters and digits, 12 as a rule")
    return uuid


def check_key(key: object, what: str) -> str:
    """An identity or predicate key that can be a part of a path.

    Raises:
        InvalidRecord: it is empty, ``.``, ``..``, too long, or has other characters.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key) or key in (".", ".."):
        raise InvalidRecord(f"{key!r} is no {what} of a record", hint="it is letters, digits, '.', '_' and '-'")
    return key


def _identity_key(key: object) -> str:
    return check_key(key, "identity key")


def _predicate_key(key: object) -> str:
    return check_key(key, "predicate key")


class Related(StrEnum):
    """Which other records go along."""

    NONE = "none"
    DIRECT = "direct"
    """Every record an edge of this one names, in either direction."""
    ALL = "all"
    """Their relations too, and so on; each record once."""

    @classmethod
    def of(cls, value: Related | str | int | None) -> Related:
        """What machinable's argument means: 0 or False none, 1 or True direct, 2 all; names stand for themselves.

        Raises:
            ValueError: anything else.
        """
        if isinstance(value, str):
            return cls(value)
        if value is None or value in (0, 1, 2):
            return (cls.NONE, cls.DIRECT, cls.ALL)[int(value or 0)]
        raise ValueError(f"related is none, direct or all (0, 1 or 2), not {value!r}")


class Placement(StrEnum):
    """Where the bytes of files lie in a store."""

    PLAIN = "plain"
    """Below each record, under the path they have: a person finds them without this package."""
    BLOBS = "blobs"
    """Under their digest, once for all records."""


class Match(StrEnum):
    """How alike records are that a search finds."""

    IDENTITY = "identity"
    """The same code and configuration."""
    PREDICATE = "predicate"
    """The same circumstances, too."""


class Deletion(StrEnum):
    """What becomes of a record that is deleted."""

    TRASH = "trash"
    """It can be restored until a collection finds it older than the grace period."""
    NOW = "now"
    """Its objects are removed at once."""


class FileKind(StrEnum):
    """What an entry of a record is."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"
    """An empty directory; the others follow from the paths in them."""


class RecordFile(NamedTuple):
    """One entry of a record: ``path`` is relative to it, ``key`` is where its bytes lie below the base.

    A tuple, since records have very many: making and comparing them is what an upload without changes does.
    """

    path: str
    kind: FileKind = FileKind.FILE
    size: int = 0
    sha256: str = ""
    mode: int = 0o644
    target: str = ""
    key: str = ""


class Edge(NamedTuple):
    """One line of an edge log; ``fn`` is the relation's name on the side that wrote it."""

    name: str
    uuid: str
    related_uuid: str
    fn: str = ""


class Retired(NamedTuple):
    """An object that no file needs any more, kept for readers of an older manifest until a grace period has passed."""

    key: str
    at_ns: int


@frozen(kw_only=True)
class RecordHeader:
    """The identity of a record: ``id.json``, written once."""

    uuid: str = field(converter=check_uuid)
    kind: str = "Interface"
    identity_key: str = field(converter=_identity_key)
    predicate_key: str = field(converter=_predicate_key)
    parent: str | None = None

    def to_data(self) -> dict[str, Any]:
        """The content of ``id.json``."""
        return {
            "format": 1,
            "uuid": self.uuid,
            "kind": self.kind,
            "identity_key": self.identity_key,
            "predicate_key": self.predicate_key,
            "parent": self.parent,
        }

    @classmethod
    def from_data(cls, data: Any) -> RecordHeader:
        """Reads the content of ``id.json``.

        Raises:
            InvalidRecord: it is none of format 1.
        """
        if not isinstance(data, Mapping) or data.get("format") != 1:
            raise InvalidRecord("the header is none of format 1", hint="'machinable migrate' upgrades older records")
        parent = data.get("parent")
        return cls(
            uuid=data.get("uuid"),
            kind=str(data.get("kind") or "Interface"),
            identity_key=data.get("identity_key"),
            predicate_key=data.get("predicate_key"),
            parent=None if parent is None else check_uuid(parent),
        )


@frozen(kw_only=True)
class Manifest:
    """What commits a record: what it is, and every file of it.

    ``commit`` is the writer's own mark of this very write; ``place`` is where a run record lies in its parent's
    directory; ``model`` and ``edges`` repeat small files of the record, so that catalogues need not fetch them.
    """

    header: RecordHeader
    generation: int
    commit: str
    committed_at_ns: int
    updated_at: str = ""
    place: str | None = None
    model: Mapping[str, Any] = field(factory=dict)
    edges: tuple[Edge, ...] = ()
    files: tuple[RecordFile, ...] = ()
    parts: tuple[str, ...] = ()
    file_count: int = 0
    total_bytes: int = 0
    retired: tuple[Retired, ...] = ()

    @property
    def uuid(self) -> str:
        return self.header.uuid

    @property
    def label(self) -> str | None:
        """What a person calls the record."""
        label = self.model.get("label")
        return label if isinstance(label, str) and label else None

    @property
    def module(self) -> str | None:
        """The code the record is of."""
        module = self.model.get("module")
        return module if isinstance(module, str) else None

    @property
    def created_at_ns(self) -> int:
        """When the record was made, in nanoseconds since 1970; when it was first stored, if it does not say."""
        created = self.model.get("created_at_ns")
        return created if isinstance(created, int) and created > 0 else self.committed_at_ns

    def related(self) -> tuple[str, ...]:
        """The uuids its edges and its place name, each once, in their order."""
        found = dict.fromkeys(
            uuid for edge in self.edges for uuid in (edge.uuid, edge.related_uuid) if uuid != self.uuid
        )
        if self.place is not None and self.header.parent is not None:
            found.setdefault(self.header.parent)
        return tuple(found)
