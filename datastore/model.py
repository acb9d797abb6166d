"""The values that go into and come out of a store: all frozen, all plain data."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from attrs import evolve, field, frozen

from datastore.errors import BadCursor, LimitExceeded
from datastore.pickling import PickledByFields
from datastore.reference import DataReference

__all__ = [
    "CONTENT_MD5_KEY",
    "Capabilities",
    "Cursor",
    "Feature",
    "ListPage",
    "Metadata",
    "ObjectEntry",
    "SignedURLProperties",
    "SignedURLResponse",
    "SignedURLScope",
    "WriteOptions",
    "clean_etag",
]

#: The user metadata key upstream keeps an object's base64 MD5 under; compared without case.
CONTENT_MD5_KEY = "flyteContentMD5"

#: What Amazon S3 takes, names and values together; the smallest limit of the clouds, held everywhere.
USER_METADATA_BYTES = 2048

_EMPTY: Mapping[str, str] = MappingProxyType({})
_METADATA_KEY = re.compile(r"[a-z0-9][a-z0-9_-]*")
_METADATA_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")


def clean_etag(etag: str | None) -> str:
    """The etag without quotes, backslashes and weak marks, in any nesting clients hand out; "" for None."""
    text = etag or ""
    while True:
        stripped = text.removeprefix("W/").replace("\\", "").strip('"')
        if stripped == text:
            return text
        text = stripped


def _frozen_mapping(value: Mapping[str, str] | None) -> Mapping[str, str]:
    return MappingProxyType(dict(value)) if value else _EMPTY


def _lower_keys(value: Mapping[str, str] | None) -> Mapping[str, str]:
    if not value:
        return _EMPTY
    found: dict[str, str] = {}
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"user metadata are strings: {key!r} is given as {type(text).__name__}")
        name = key.lower()
        if name in found:
            raise ValueError(f"user metadata {key!r} is given twice: names do not differ by case")
        if not _METADATA_KEY.fullmatch(name):
            raise ValueError(
                f"user metadata name {key!r}: use letters, digits, '-' and '_', starting with neither sign"
            )
        if not _METADATA_VALUE.fullmatch(text):
            raise ValueError(
                f"user metadata {key!r}: a value is printable ASCII without spaces at its ends; encode other text"
            )
        found[name] = text
    if sum(len(name) + len(text) for name, text in found.items()) > USER_METADATA_BYTES:
        raise LimitExceeded(
            f"user metadata take more than {USER_METADATA_BYTES} bytes", hint="keep large values in an object"
        )
    return MappingProxyType(found)


def _md5_text(value: str | bytes | None) -> str | None:
    """Base64 of a 16-byte MD5, from base64, hex or raw bytes."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bytes):
            raw = value
        elif len(value) == 32:
            raw = bytes.fromhex(value)
        else:
            raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 16:
        raise ValueError(f"content_md5 {value!r} is not an MD5: give base64, hex, or the 16 bytes")
    return base64.b64encode(raw).decode()


def _bare_etag(etag: str | None) -> str | None:
    return clean_etag(etag) or None


# With slots attrs has to set the fields of a frozen class one call at a time, which every write would pay for.
@frozen(kw_only=True, slots=False)
class Metadata(PickledByFields):
    """What ``head`` knows of an object; the default value means that there is none.

    ``etag`` is bare (no quotes); ``content_md5`` is the base64 digest its writer kept, "" when none was; names in
    ``user_metadata`` are lower case.
    """

    exists: bool = False
    size: int = 0
    etag: str = ""
    content_type: str | None = None
    last_modified: datetime | None = None
    user_metadata: Mapping[str, str] = field(default=_EMPTY, converter=_frozen_mapping)
    cache_control: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None

    @property
    def content_md5(self) -> str:
        return self.user_metadata.get(CONTENT_MD5_KEY.lower(), "")


@frozen(kw_only=True)
class WriteOptions(PickledByFields):
    """How to write one object.

    ``metadata`` names are case-insensitive and kept in lower case; values are printable ASCII.  With ``if_absent``
    an existing object makes the write fail with `AlreadyExists`; with ``if_match`` any other etag makes it fail
    with `PreconditionFailed`.  ``content_md5`` (base64, hex or bytes) is verified before anything becomes visible.
    """

    metadata: Mapping[str, str] = field(default=_EMPTY, converter=_lower_keys)
    content_type: str | None = None
    cache_control: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    content_md5: str | None = field(default=None, converter=_md5_text)
    tags: Mapping[str, str] = field(default=_EMPTY, converter=_frozen_mapping)
    if_absent: bool = False
    if_match: str | None = field(default=None, converter=_bare_etag)

    def __attrs_post_init__(self) -> None:
        if self.if_absent and self.if_match is not None:
            raise ValueError("if_absent and if_match exclude each other")

    def merged_over(self, metadata: Metadata) -> WriteOptions:
        """These options with what they leave open taken from a source object: what a copy carries over."""
        return evolve(
            self,
            metadata={**metadata.user_metadata, **self.metadata},
            content_type=self.content_type or metadata.content_type,
            cache_control=self.cache_control or metadata.cache_control,
            content_encoding=self.content_encoding or metadata.content_encoding,
            content_disposition=self.content_disposition or metadata.content_disposition,
        )

    @property
    def changes_metadata(self) -> bool:
        """Whether anything but the conditions is set."""
        return bool(
            self.metadata
            or self.content_type
            or self.cache_control
            or self.content_encoding
            or self.content_disposition
            or self.tags
        )


@frozen
class Cursor:
    """A place in a listing: the start, the end, or just after a key.

    It depends on keys alone, so it survives inserts, deletes, processes and time; ``str()`` and `parse` save it.
    """

    _state: str = "start"
    after: str = ""

    @classmethod
    def at_start(cls) -> Cursor:
        return _START

    @classmethod
    def at_end(cls) -> Cursor:
        return _END

    @classmethod
    def after_key(cls, key: str) -> Cursor:
        """Just after a key, which need not exist."""
        return cls("after", key)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Reads what ``str()`` wrote.

        Raises:
            BadCursor: the text is something else.
        """
        if text in ("start", "end"):
            return _START if text == "start" else _END
        head, _, key = text.partition(":")
        try:
            after = unquote(key, errors="strict")
            after.encode()
        except UnicodeError:
            after = ""
        if head != "after" or not after:
            raise BadCursor(f"{text!r} is not a cursor", hint="pass on the text that str(cursor) gave")
        return cls("after", after)

    @property
    def is_at_start(self) -> bool:
        return self._state == "start"

    @property
    def is_at_end(self) -> bool:
        return self._state == "end"

    def __str__(self) -> str:
        return f"after:{quote(self.after, safe='')}" if self._state == "after" else self._state


_START = Cursor("start")
_END = Cursor("end")


class ObjectEntry(NamedTuple):
    """One object in a listing; a driver's ``key`` becomes the ``reference`` callers see."""

    reference: DataReference
    size: int
    etag: str = ""
    last_modified: datetime | None = None


@frozen(kw_only=True)
class ListPage:
    """One page of a listing, ascending by the UTF-8 bytes of the keys.

    ``prefixes`` are the common prefixes of a delimiter listing, without their trailing slash; ``omitted`` counts
    objects whose names no reference can express (edge slashes, dot segments, names that are not UTF-8).
    """

    entries: tuple[ObjectEntry, ...] = ()
    prefixes: tuple[DataReference, ...] = ()
    cursor: Cursor = _END
    omitted: int = 0


class SignedURLScope(StrEnum):
    """What a signed URL may be used for."""

    READ = "read"
    WRITE = "write"
    HEAD = "head"
    DELETE = "delete"

    @property
    def method(self) -> str:
        """The HTTP method."""
        return _METHODS[self]


_METHODS = {
    SignedURLScope.READ: "GET",
    SignedURLScope.WRITE: "PUT",
    SignedURLScope.HEAD: "HEAD",
    SignedURLScope.DELETE: "DELETE",
}


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


@frozen(kw_only=True)
class SignedURLProperties(PickledByFields):
    """What a signed URL shall allow, and for how long (``expires_in``: seconds or a timedelta).

    For writes, ``content_md5``, ``content_type``, ``content_length``, ``metadata`` and ``if_absent`` become headers the
    uploader must send; ``add_content_md5_metadata`` also keeps the digest as user metadata, where ``head`` finds it.
    """

    scope: SignedURLScope = field(default=SignedURLScope.READ, converter=SignedURLScope)
    expires_in: float = field(default=900.0, converter=_seconds)
    content_md5: str | None = field(default=None, converter=_md5_text)
    add_content_md5_metadata: bool = False
    content_type: str | None = None
    content_length: int | None = None
    metadata: Mapping[str, str] = field(default=_EMPTY, converter=_lower_keys)
    if_absent: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.expires_in >= 1:
            raise ValueError(f"expires_in is at least one second, not {self.expires_in:g}")
        if self.scope is not SignedURLScope.WRITE and self._write_only():
            raise ValueError(f"{', '.join(self._write_only())} only apply to scope 'write', not {self.scope.value!r}")
        if self.add_content_md5_metadata and self.content_md5 is None:
            raise ValueError("add_content_md5_metadata needs content_md5")

    def _write_only(self) -> list[str]:
        names = (
            "content_md5",
            "add_content_md5_metadata",
            "content_type",
            "content_length",
            "metadata",
            "if_absent",
        )
        return [name for name in names if getattr(self, name) not in (None, False, _EMPTY)]


@frozen(kw_only=True)
class SignedURLResponse(PickledByFields):
    """A signed URL and exactly the headers its user has to send with it.

    The URL is a credential: its query is left out of ``repr``.
    """

    url: str = field(repr=lambda url: repr(urlsplit(url)._replace(query="...").geturl()))
    required_request_headers: Mapping[str, str] = field(factory=dict, converter=_frozen_mapping)
    method: str = "GET"


class Feature(StrEnum):
    """What a backend may be able to do beyond the contract every one fulfils."""

    CREATE_IF_ABSENT = "create_if_absent"
    """``if_absent`` is honoured."""
    ATOMIC_CREATE = "atomic_create"
    """Of many concurrent ``if_absent`` writes exactly one wins."""
    REPLACE_IF_MATCH = "replace_if_match"
    SERVER_SIDE_COPY = "server_side_copy"
    SIGN_READ = "sign_read"
    SIGN_WRITE = "sign_write"
    SIGN_HEAD = "sign_head"
    SIGN_DELETE = "sign_delete"
    SIGNED_HEADERS = "signed_headers"
    """The headers a write URL requires are enforced by its signature."""
    USER_METADATA = "user_metadata"
    CONTENT_HEADERS = "content_headers"
    """Content type, encoding, disposition and cache control are kept."""
    TAGS = "tags"
    CONTAINERS = "containers"
    """Containers can be created, listed and removed."""
    EMPTY_SEGMENTS = "empty_segments"
    """``a//b`` and ``a/b`` are two objects."""
    NESTED_KEYS = "nested_keys"
    """``a`` and ``a/b`` may both be objects."""
    PERSISTENT = "persistent"
    """Objects outlive the process."""


def _feature_set(features: Iterable[Feature]) -> frozenset[Feature]:
    return frozenset(features)


@frozen(kw_only=True)
class Capabilities:
    """What a backend declares: features to check before use, and its sizes in bytes (None: no limit known)."""

    features: frozenset[Feature] = field(default=frozenset(), converter=_feature_set)
    max_key_bytes: int = 1024
    max_object_bytes: int | None = None
    max_sign_seconds: float = 604800.0

    def __contains__(self, feature: Feature) -> bool:
        return feature in self.features

    def sign_feature(self, scope: SignedURLScope) -> Feature:
        """The feature that a signed URL of this scope needs."""
        return Feature(f"sign_{scope.value}")
