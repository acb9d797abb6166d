"""What is said of an object in Swift's headers and listings: content headers, user metadata, etags, times."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from datastore.driver import DriverEntry
from datastore.model import Metadata, SignedURLProperties, SignedURLScope, WriteOptions, clean_etag
from stowstore.locations._packing import pack, unpack

if TYPE_CHECKING:
    pass

__all__ = ["entry_from", "metadata_from", "object_headers", "signed_headers"]

_CONTENT_HEADERS = (
    ("content_type", "Content-Type"),
    ("cache_control", "Cache-Control"),
    ("content_encoding", "Content-Encoding"),
    ("content_disposition", "Content-Disposition"),
)


def object_headers(options: WriteOptions) -> dict[str, str]:
    headers = {header: value for name, header in _CONTENT_HEADERS if (value := getattr(options, name))}
    # Without one Swift guesses by the key's ending.
    headers.setdefault("Content-Type", "application/octet-stream")
    return headers | _metadata_headers(options.metadata)


def signed_headers(properties: SignedURLProperties) -> dict[str, str]:
    """What makes the upload as asked; a temporary URL cannot enforce it (no `Feature.SIGNED_HEADERS`)."""
    if properties.scope is not SignedURLScope.WRITE:
        return {}
    metadata = dict(properties.metadata)
    headers: dict[str, str] = {}
    if properties.content_md5:
        headers["ETag"] = base64.b64decode(properties.content_md5).hex()
        if properties.add_content_md5_metadata:
            metadata["flytecontentmd5"] = properties.content_md5
    if properties.content_type:
        headers["Content-Type"] = properties.content_type
    if properties.content_length is not None:
        headers["Content-Length"] = str(properties.content_length)
    if properties.if_absent:
        headers["If-None-Match"] = "*"
    return headers | _metadata_headers(metadata)


def metadata_from(headers: Mapping[str, str], size: int) -> Metadata:
    stamp = headers.get("X-Timestamp")
    changed = datetime.fromtimestamp(float(stamp), UTC) if stamp else parsedate_to_datetime(headers["Last-Modified"])
    return Metadata(
        exists=True,
        size=size,
        etag=clean_etag(headers.get("Etag")),
        last_modified=changed,
        user_metadata=_user_metadata(headers),
        **{name: headers.get(header) for name, header in _CONTENT_HEADERS},
    )


def entry_from(row: dict[str, Any]) -> DriverEntry:
    changed = datetime.fromisoformat(row["last_modified"]).replace(tzinfo=UTC)
    return DriverEntry(row["name"], int(row["bytes"]), clean_etag(row["hash"]), changed)


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    start = "x-object-meta-"
    return unpack({name.removeprefix(start): value for name, value in found.items() if name.startswith(start)})


def _metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"X-Object-Meta-{name}": value for name, value in pack(metadata, _is_plain).items()}


def _is_plain(name: str, value: str) -> bool:
    """Whether Swift keeps it: it makes dashes of underscores, drops empty values and refuses long ones."""
    return "_" not in name and 0 < len(value) <= 250 and len(name) <= 120
