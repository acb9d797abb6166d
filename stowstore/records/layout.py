"""Where the objects of records lie below a base; see docs/records.md."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from datastore.errors import InvalidReference
from datastore.reference import DataReference
from stowstore.records.errors import RecordDamaged
from stowstore.records.model import Manifest, check_uuid

__all__ = ["Layout"]

#: Times are written inverted, so that the newest comes first in a listing.
_LAST_NS: Final = 10**19 - 1
_BLOB: Final = re.compile(r"blobs/sha256/[0-9a-f]{2}/[0-9a-f]{64}(?:-[0-9a-f-]{1,64})?")


class Layout:
    """The keys of one base; all that are returned as text are relative to it."""

    def __init__(self, base: DataReference, max_key_bytes: int) -> None:
        self.base = base
        self._room = max_key_bytes - len(base.key.encode()) - 1

    def reference(self, key: str) -> DataReference:
        """The object at a key below the base."""
        return self.base.join(key)

    def relative(self, reference: DataReference) -> str:
        """The key below the base of an object that was listed."""
        return reference.key[len(self.base.key) :].lstrip("/") if self.base.key else reference.key

    @property
    def description(self) -> str:
        return "records.json"

    @property
    def condemned(self) -> str:
        return "condemned"

    def record(self, uuid: str) -> str:
        return f"records/{check_uuid(uuid)}"

    def manifest(self, uuid: str) -> str:
        return f"records/{check_uuid(uuid)}/manifest.json"

    def part(self, uuid: str, name: str) -> str:
        return f"records/{check_uuid(uuid)}/p/{name}"

    def progress(self, uuid: str, token: str) -> str:
        return f"records/{check_uuid(uuid)}/u/{token}"

    def browsable(self, uuid: str, path: str) -> str | None:
        """Where a file lies under its own path; None if no key can say it."""
        key = f"records/{check_uuid(uuid)}/f/{path}"
        try:
            if len(key.encode()) > self._room or any(c < " " or c == "\x7f" for c in path):
                return None
            self.base.join(key)
        except (UnicodeEncodeError, InvalidReference):
            return None
        return key

    def versioned(self, uuid: str, digest: str) -> str:
        """Where a file lies that changed, or whose path cannot be a key."""
        return f"records/{check_uuid(uuid)}/v/{digest}"

    def blob(self, digest: str) -> str:
        return f"blobs/sha256/{digest[:2]}/{digest}"

    def check_owned(self, uuid: str, key: str) -> str:
        """The key itself, if a manifest of this record may name it.

        Raises:
            RecordDamaged: it lies in another record, or elsewhere.
        """
        own = f"records/{uuid}/"
        if (key.startswith(own) and key[len(own) : len(own) + 2] in ("f/", "v/", "p/")) or _BLOB.fullmatch(key):
            return key
        raise RecordDamaged(f"the manifest of the record {uuid} names an object that is not its own, {key!r}")

    def trashed(self, uuid: str, at_ns: int = 0) -> str:
        return f"trash/{check_uuid(uuid)}/{at_ns:020d}" if at_ns else f"trash/{check_uuid(uuid)}"

    def pointers(self, manifest: Manifest) -> tuple[str, ...]:
        """The empty objects that searches list: by identity, by time, by parent and by label."""
        header = manifest.header
        found = [
            f"{self.by_identity(header.identity_key, header.predicate_key)}/{header.uuid}",
            f"by-time/{_LAST_NS - min(manifest.created_at_ns, _LAST_NS):019d}/{header.uuid}",
        ]
        if header.parent is not None:
            found.append(f"{self.by_parent(header.parent)}/{header.uuid}")
        if manifest.label is not None:
            found.append(f"{self.by_label(manifest.label)}/{header.uuid}")
        return tuple(found)

    def by_identity(self, identity_key: str, predicate_key: str | None = None) -> str:
        tail = f"/{predicate_key}" if predicate_key else ""
        return f"by-identity/{identity_key}{tail}"

    def by_parent(self, parent: str) -> str:
        return f"by-parent/{check_uuid(parent)}"

    def by_label(self, label: str) -> str:
        # A label is any text: a long one is cut, and found again by what the manifests say.
        quoted = quote(label, safe=" !#$&'()*+,-:;<=>@[]^_`{|}~")[:200].replace(" ", "%20")
        return f"by-label/{quoted.replace('.', '%2E') if set(label) == {'.'} else quoted}"

    def by_time(self) -> str:
        return "by-time"

    def time_prefix(self, at_ns: int) -> str:
        """A key after all those of records made at or after a time."""
        return f"by-time/{_LAST_NS - min(max(at_ns, 0), _LAST_NS):019d}~"

    @staticmethod
    def time_of(key: str) -> int:
        """When the record a key of ``by-time`` names was made, in nanoseconds since 1970."""
        return _LAST_NS - int(key.split("/")[-2])

    @staticmethod
    def label_of(key: str) -> str:
        """The label, or the beginning of it, that a key of ``by-label`` stands for."""
        return unquote(key.split("/")[-2])
