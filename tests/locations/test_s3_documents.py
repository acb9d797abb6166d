"""S3's XML, as several servers write it."""

from __future__ import annotations

from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.errors import TransientError
from stowstore.locations.s3.documents import delete_body, parse, parse_delete_errors, parse_listing
from stowstore.locations.s3.errors import answer_error, retry_after

_ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>"
    "<ETag>&quot;abc&quot;</ETag><Size>7</Size><Owner><ID>me</ID></Owner></Contents>"
)


def _listing(*keys: str, encoding: str = "<EncodingType>url</EncodingType>", space: str = "", more: str = "") -> bytes:
    entries = "".join(_ENTRY.format(key=key) for key in keys)
    return f"<ListBucketResult{space}>{encoding}{more}{entries}</ListBucketResult>".encode()


@pytest.mark.parametrize("space", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', ' xmlns="urn:other"'])
def test_any_namespace_is_read(space: str) -> None:
    """Servers disagree on the namespace, and not on the names."""
    page = parse_listing(_listing("a%2Fb+c%2Bd%C3%A9", space=space))
    assert [(entry.key, entry.size, entry.etag) for entry in page.entries] == [("a/b c+dé", 7, "abc")]
    modified = page.entries[0].last_modified
    assert modified is not None
    assert modified.isoformat() == "2026-01-02T03:04:05.678000+00:00"


def test_names_are_plain_where_the_server_did_not_encode_them() -> None:
    """A server that ignores the wish for encoded names is believed."""
    assert parse_listing(_listing("a%2Fb+c", encoding="")).entries[0].key == "a%2Fb+c"


def test_names_that_are_no_text_are_counted() -> None:
    """A name that is not UTF-8 is left out, and its neighbours stay."""
    page = parse_listing(_listing("a", "%FF%FE", "b"))
    assert ([entry.key for entry in page.entries], page.omitted) == (["a", "b"], 1)


_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=8)


@given(st.lists(st.tuples(_NAMES, st.sampled_from(["", " ", "<Unknown/>"])), max_size=5))
def test_an_entry_is_read_alike_however_it_is_spelled(entries: list[tuple[str, str]]) -> None:
    """Entries in the usual spelling, which need no parser, and others among them come in their order."""
    document = "".join(_ENTRY.format(key=escape(key)).replace("<Size>", f"{filler}<Size>") for key, filler in entries)
    page = parse_listing(f"<ListBucketResult>{document}</ListBucketResult>".encode())
    assert [(key, 7, "abc") for key, _ in entries] == [(entry.key, entry.size, entry.etag) for entry in page.entries]


def test_a_listing_that_ends_nowhere_is_refused() -> None:
    """More to come without a place to go on would be an endless loop."""
    with pytest.raises(TransientError):
        parse_listing(_listing("a", more="<IsTruncated>true</IsTruncated>"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"<html><p>sign in</html>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><x/>'.encode("utf-16"),
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><x/>'.encode("utf-16-le"),
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><x/>'.encode("utf-16-be"),
    ],
)
def test_what_is_not_s3s_xml_is_refused(data: bytes) -> None:
    """Document types are refused in every encoding a parser could guess."""
    with pytest.raises(TransientError, match="XML"):
        parse(data)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1), min_size=1))
def test_keys_survive_a_request_to_remove_them(keys: list[str]) -> None:
    """Every printable key arrives as it is."""
    assert [found.text for found in parse(delete_body(keys)).iterfind(".//{*}Key")] == keys


def test_errors_of_a_bulk_request_are_found() -> None:
    """No news is good news."""
    body = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    assert parse_delete_errors(body) == [("k", "AccessDenied", "no")]
    assert parse_delete_errors(b"<DeleteResult/>") == []
    assert parse_delete_errors(b"") == []


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("0", 0, 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0), ("Fri, 31 Dec 2199 23:59:59 GMT", 1e9, 1e10)],
)
def test_servers_ask_to_wait_in_seconds_or_until_a_date(text: str, least: float, most: float) -> None:
    """RFC 9110 has both forms of Retry-After."""
    found = retry_after({"Retry-After": text})
    assert found is not None
    assert least <= found <= most


def test_a_wish_that_cannot_be_read_is_none() -> None:
    """Nonsense is no wish."""
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


def test_errors_show_no_signatures() -> None:
    """What a server echoes of a signed URL is cut out."""
    said = "bad request /b/k?X-Amz-Credential=AKID%2Fx&X-Amz-Signature=deadbeef&X-Amz-Security-Token=tok&x=1"
    error = answer_error(400, "Bad", said)
    for secret in ("AKID", "deadbeef", "=tok"):
        assert secret not in str(error)
