"""S3's XML: what is asked in it and what is read from it.

Answers come from a server, which may be anybody's: document types, and with them entities, are refused unparsed.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from datastore.driver import DriverEntry
from datastore.errors import TransientError

__all__ = [
    "Listing",
    "complete_body",
    "delete_body",
    "element_text",
    "parse",
    "parse_delete_errors",
    "parse_listing",
]


class Listing(NamedTuple):
    """One answer of ListObjectsV2; ``token`` continues it, "" at the end."""

    entries: list[DriverEntry]
    prefixes: list[str]
    token: str
    omitted: int


def parse(data: bytes) -> ET.Element:
    """The root of an answer.

    Raises:
        TransientError: it is not XML as S3 sends it; most likely a proxy answered.
    """
    start = data.lstrip()[:2]
    if b"<!" in data or start[:1] != b"<" or start[1:] == b"\0":
        raise TransientError("the answer is not S3's XML", hint="is the endpoint an S3 service?")
    try:
        return ET.fromstring(data)
    except ET.ParseError as error:
        raise TransientError(f"the answer is broken XML: {error}") from error


def element_text(root: ET.Element, name: str) -> str:
    """The text of the first element of a name, in whatever namespace the server uses, "" without one."""
    return root.findtext(f".//{{*}}{name}") or ""


def parse_listing(data: bytes) -> Listing:
    plain, rest = _cut_plain_entries(data)
    root = parse(rest)
    space = root.tag[: root.tag.find("}") + 1]
    if plain and root.find(f"{space}Contents") is not None:
        # Some are spelled otherwise, and where they stand among the others is lost.
        plain, root = [], parse(data)
    encoded = root.findtext(f"{space}EncodingType") == "url"
    entries: list[DriverEntry] = []
    omitted = 0
    for key, time, etag, size in plain or _entries(root, space):
        if encoded and ("%" in key or "+" in key):
            try:
                key = _decode(key)
            except UnicodeDecodeError:
                omitted += 1
                continue
        entries.append(DriverEntry(key, int(size), etag, _time(time)))
    prefixes: list[str] = []
    for element in root.iterfind(f"{space}CommonPrefixes"):
        prefix = element.findtext(f"{space}Prefix") or ""
        try:
            prefixes.append(_decode(prefix) if encoded else prefix)
        except UnicodeDecodeError:
            omitted += 1
    more = root.findtext(f"{space}IsTruncated") == "true"
    token = root.findtext(f"{space}NextContinuationToken") or ""
    if more and not token:
        raise TransientError("the listing goes on, but the server does not say where")
    return Listing(entries, prefixes, token if more else "", omitted)


def delete_body(keys: Iterable[str]) -> bytes:
    """A request to remove keys, answered with the errors alone."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f'<Delete xmlns="{_NAMESPACE}"><Quiet>true</Quiet>{objects}</Delete>'.encode()


def parse_delete_errors(data: bytes) -> list[tuple[str, str, str]]:
    """Key, code and message of what could not be removed."""
    if not data.strip():
        return []
    return [
        (element_text(error, "Key"), element_text(error, "Code"), element_text(error, "Message"))
        for error in parse(data).iterfind("{*}Error")
    ]


def complete_body(etags: Sequence[str]) -> bytes:
    """The parts of an upload, in order."""
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{escape(etag)}&quot;</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{parts}</CompleteMultipartUpload>'.encode()


_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


#: One entry as every known service writes it: no attributes, no entities but the quotes of the etag.
_PLAIN_ENTRY = re.compile(
    r"<Contents>(?:"
    r"<Key>([^<&\x00-\x1f]+)</Key>"
    r"|<LastModified>([0-9TZ:.+-]*)</LastModified>"
    r"|<ETag>(?:\"|&quot;|&#34;)?([\w-]*)(?:\"|&quot;|&#34;)?</ETag>"
    r"|<Size>([0-9]+)</Size>"
    r"|<StorageClass>[\w-]*</StorageClass>|<Type>\w*</Type>"
    r"|<Owner>(?:<ID>[\w-]*</ID>|<DisplayName>[\w -]*</DisplayName>)*</Owner>"
    r")*</Contents>",
    re.ASCII,
)


def _cut_plain_entries(data: bytes) -> tuple[list[tuple[str, str, str, str]], bytes]:
    """Key, time, etag and size of the entries that need no parser, and the document without them.

    A tree of five elements an entry is what a long listing would spend most of its time on.
    """
    start = data[:100].lower()
    if b"<!" in data or (b"encoding=" in start and b"utf-8" not in start):
        return [], data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [], data
    entries = _PLAIN_ENTRY.findall(text)
    if not entries or not all(key and size for key, _, _, size in entries):
        return [], data
    return entries, _PLAIN_ENTRY.sub("", text).encode()


def _entries(root: ET.Element, space: str) -> Iterator[tuple[str, str, str, str]]:
    names = [f"{space}{name}" for name in ("Key", "LastModified", "ETag", "Size")]
    for element in root.iterfind(f"{space}Contents"):
        found = {part.tag: part.text or "" for part in element}
        key, time, etag, size = (found.get(name, "") for name in names)
        yield key, time, etag.strip('"'), size


def _decode(name: str) -> str:
    name = name.replace("%2F", "/")
    return unquote_plus(name, errors="strict") if "%" in name or "+" in name else name


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
