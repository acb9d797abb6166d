"""Manifests: what makes a version.

A manifest is a small JSON object, written once and never changed.  It names the snapshot of the index, which names
everything else by content; so the digest of the manifest, which locators carry, verifies the whole volume.  It is
written last: until then a commit has left nothing but garbage.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final

from attrs import field, frozen

from stowstore.index.node import CorruptNode
from stowstore.index.snapshot import SnapshotRef
from stowstore.versions.errors import CorruptManifest, FormatTooNew
from stowstore.versions.ulid import is_ulid, new_ulid

__all__ = ["MANIFEST_FORMAT", "Manifest", "Statistics", "VersionName"]

MANIFEST_FORMAT: Final = 1

#: The largest manifest that is read: far more than a message and a few references need.
_MAX_BYTES = 1 << 20
_MAX_MESSAGE = 64 << 10


@frozen
class VersionName:
    """Which version is meant: its volume, its id, and the digest of its manifest."""

    volume: str
    id: str
    digest: str

    def to_data(self) -> dict[str, str]:
        return {"volume": self.volume, "id": self.id, "digest": self.digest}

    @classmethod
    def from_data(cls, data: object) -> VersionName:
        """Reads `to_data`.

        Raises:
            CorruptManifest: it is something else.
        """
        match data:
            case {"volume": str(volume), "id": str(identity), "digest": str(digest)} if is_ulid(identity):
                return cls(volume, identity, digest)
        raise CorruptManifest("a reference to a version is damaged")


@frozen(kw_only=True)
class Statistics:
    """How large a version is: logical bytes of its files, inodes, and stored bytes of its index."""

    used_bytes: int = 0
    inode_count: int = 1
    index_bytes: int = 0


@frozen(kw_only=True)
class Manifest:
    """One version of one volume.

    ``parents`` are the versions it was made from: one for a commit or fork, two for a merge, none for a first commit.
    ``inode_offset`` is where a writer on this version begins to number inodes if that is above what the snapshot
    says: forks and migrations move it by a random distance, so that two writers of one past never use the same number.
    ``produced_by`` is what the embedding framework says of the run that made it.
    """

    volume: str
    snapshot: SnapshotRef
    id: str = field(factory=new_ulid)
    parents: tuple[VersionName, ...] = ()
    created: datetime = field(factory=lambda: datetime.now(UTC))
    message: str | None = None
    statistics: Statistics = field(factory=Statistics)
    inode_offset: int = 0
    metadata_store_type: str | None = None
    produced_by: Any = None
    parent_produced_by: Any = None
    #: The text it was read from, which may say more than this release knows; one that is evolved has none.
    _text: bytes | None = field(init=False, default=None, eq=False, repr=False)

    def encode(self) -> bytes:
        """The JSON text, whose SHA-256 is the digest: the one it was read from, or else the canonical one."""
        if self._text is not None:
            return self._text
        data = {
            "format": MANIFEST_FORMAT,
            "volume": self.volume,
            "id": self.id,
            "parents": [parent.to_data() for parent in self.parents],
            "created": self.created.isoformat(),
            "message": self.message,
            "snapshot": self.snapshot.to_data(),
            "used_bytes": self.statistics.used_bytes,
            "inode_count": self.statistics.inode_count,
            "index_bytes": self.statistics.index_bytes,
            "inode_offset": self.inode_offset,
            "metadata_store_type": self.metadata_store_type,
            "produced_by": self.produced_by,
            "parent_produced_by": self.parent_produced_by,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def name(self) -> VersionName:
        """What names this version, its digest included."""
        return VersionName(self.volume, self.id, digest_of(self.encode()))

    @classmethod
    def decode(cls, raw: bytes, *, digest: str | None = None) -> Manifest:
        """Reads a manifest, and holds it against a digest where one is known.

        Raises:
            CorruptManifest: it is another one, or none.
            FormatTooNew: a newer release wrote it.
        """
        if len(raw) > _MAX_BYTES:
            raise CorruptManifest(f"a manifest of {len(raw)} bytes is larger than any may be")
        if digest is not None and digest_of(raw) != digest:
            raise CorruptManifest(
                "the manifest is not the one its locator names: its digest differs",
                hint="it was damaged or exchanged; restore the object, or use another version",
            )
        try:
            data = json.loads(raw)
            form = data["format"]
            if isinstance(form, int) and form > MANIFEST_FORMAT:
                raise FormatTooNew(
                    f"the version has format {form}, this release reads up to {MANIFEST_FORMAT}",
                    hint="use a newer release of stowstore",
                )
            made = cls._from_data(data)
        except (ValueError, KeyError, TypeError, RecursionError, CorruptNode) as error:
            raise CorruptManifest(f"a manifest cannot be read: {error}") from error
        object.__setattr__(made, "_text", bytes(raw))
        return made

    @classmethod
    def _from_data(cls, data: dict[str, Any]) -> Manifest:
        _require(is_ulid(data["id"]), "its id is none")
        for name in ("used_bytes", "inode_count", "index_bytes", "inode_offset"):
            _require(type(data[name]) is int, f"{name} is no number")
            _require(data[name] >= 0, f"{name} is negative")
        for name in ("message", "metadata_store_type"):
            _require(data[name] is None or isinstance(data[name], str), f"{name} is no text")
        _require(isinstance(data["volume"], str), "volume is no text")
        _require(isinstance(data["parents"], list), "parents is no list")
        _require(data["message"] is None or len(data["message"]) <= _MAX_MESSAGE, "the message is too long")
        return cls(
            volume=data["volume"],
            id=data["id"],
            parents=tuple(VersionName.from_data(parent) for parent in data["parents"]),
            created=datetime.fromisoformat(data["created"]),
            message=data["message"],
            snapshot=SnapshotRef.from_data(data["snapshot"]),
            statistics=Statistics(
                used_bytes=data["used_bytes"], inode_count=data["inode_count"], index_bytes=data["index_bytes"]
            ),
            inode_offset=data["inode_offset"],
            metadata_store_type=data["metadata_store_type"],
            produced_by=data["produced_by"],
            parent_produced_by=data["parent_produced_by"],
        )


def digest_of(raw: bytes) -> str:
    """The digest of a manifest's text, in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
