"""Object metadata as S3's headers and back, and what obstore calls its attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from datastore.errors import TransientError
from datastore.model import CONTENT_MD5_KEY, Metadata, SignedURLProperties, WriteOptions, clean_etag
from stowstore.locations.s3.settings import Settings

if TYPE_CHECKING:
    from obstore import Attributes, GetResult

__all__ = [
    "attributes_of",
    "bare_etag",
    "conditions_of",
    "metadata_of_answer",
    "metadata_of_result",
    "object_size",
    "service_headers",
    "signed_headers",
    "write_headers",
]

#: What names of user metadata begin with.
_META = "x-amz-meta-"
_CONTENT_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
#: Names obstore takes, in any case, for headers of its own.
_RESERVED = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "storage-class",
    }
)
_STANDARD = frozenset(
    {
        "Cache-Control",
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Type",
        "Storage-Class",
    }
)


def bare_etag(etag: str | None) -> str:
    """`clean_etag` for the form nearly every etag has."""
    if etag and etag[0] == '"' and etag[-1] == '"' and "\\" not in etag:
        return etag[1:-1]
    return clean_etag(etag)


def attributes_of(options: WriteOptions, storage_class: str) -> Attributes | None:
    """The options as obstore's attributes; None where it would take user metadata for headers."""
    if not _RESERVED.isdisjoint(options.metadata):
        return None
    found: Attributes = dict(options.metadata)
    for name, value in _content_headers(options):
        found[name] = value
    if storage_class:
        found["Storage-Class"] = storage_class
    return found


def write_headers(options: WriteOptions, settings: Settings) -> dict[str, str]:
    """The options as headers of a request that makes an object."""
    headers = {f"{_META}{name}": value for name, value in options.metadata.items()}
    headers.update(_content_headers(options))
    headers.update(service_headers(settings))
    if options.tags:
        headers["x-amz-tagging"] = urlencode(options.tags, quote_via=quote, safe="")
    return headers


def service_headers(settings: Settings) -> dict[str, str]:
    """What the location asks of every object it makes."""
    headers = {
        "x-amz-storage-class": settings.storage_class,
        "x-amz-server-side-encryption": settings.sse,
        "x-amz-server-side-encryption-aws-kms-key-id": settings.sse_kms_key_id,
    }
    return {name: value for name, value in headers.items() if value}


def signed_headers(properties: SignedURLProperties, settings: Settings) -> dict[str, str]:
    """What whoever uploads through a signed URL has to send."""
    headers = {f"{_META}{name}": value for name, value in properties.metadata.items()}
    headers.update(service_headers(settings))
    if properties.content_md5 is not None:
        headers["Content-MD5"] = properties.content_md5
        if properties.add_content_md5_metadata:
            headers[f"{_META}{CONTENT_MD5_KEY}".lower()] = properties.content_md5
    if properties.content_type:
        headers["Content-Type"] = properties.content_type
    if properties.content_length is not None:
        headers["Content-Length"] = str(properties.content_length)
    if properties.if_absent:
        headers["If-None-Match"] = "*"
    return headers


def conditions_of(options: WriteOptions) -> dict[str, str]:
    """The conditions of a write; Ceph never matches a quoted etag, Amazon takes both."""
    if options.if_absent:
        return {"If-None-Match": "*"}
    return {"If-Match": options.if_match} if options.if_match is not None else {}


def metadata_of_answer(headers: Mapping[str, str], size: int) -> Metadata:
    """What an answer says of an object of ``size`` bytes."""
    modified = headers.get("Last-Modified")
    return Metadata(
        exists=True,
        size=size,
        etag=bare_etag(headers.get("ETag")),
        content_type=headers.get("Content-Type"),
        last_modified=parsedate_to_datetime(modified).astimezone(UTC) if modified else None,
        user_metadata={
            name.lower().removeprefix(_META): value for name, value in headers.items() if name.lower().startswith(_META)
        },
        cache_control=headers.get("Cache-Control"),
        content_encoding=headers.get("Content-Encoding"),
        content_disposition=headers.get("Content-Disposition"),
    )


def metadata_of_result(found: GetResult) -> Metadata:
    """What obstore learned of an object."""
    known, more = found.meta, found.attributes
    return Metadata(
        exists=True,
        size=known["size"],
        etag=bare_etag(known["e_tag"]),
        content_type=more.get("Content-Type"),
        last_modified=known["last_modified"],
        user_metadata={name.lower(): value for name, value in more.items() if name not in _STANDARD},
        cache_control=more.get("Cache-Control"),
        content_encoding=more.get("Content-Encoding"),
        content_disposition=more.get("Content-Disposition"),
    )


def object_size(headers: Mapping[str, str]) -> int:
    """The size of the whole object, of which the answer may hold a range.

    Raises:
        TransientError: the answer does not say; S3 always does.
    """
    whole = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
    text = whole[1] if whole else headers.get("Content-Length") or ""
    if not text.isdigit():
        raise TransientError("the answer does not say how large the object is")
    return int(text)


def _content_headers(options: WriteOptions) -> list[tuple[str, str]]:
    pairs = (
        ("Content-Type", options.content_type),
        ("Cache-Control", options.cache_control),
        ("Content-Encoding", options.content_encoding),
        ("Content-Disposition", options.content_disposition),
    )
    return [(name, value) for name, value in pairs if value]
