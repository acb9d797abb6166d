"""The values that go in and come out: frozen, checked, and the same after a journey."""

import base64
import hashlib
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from datastore import (
    Capabilities,
    Cursor,
    Feature,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    SignedURLScope,
    WriteOptions,
)
from datastore.errors import BadCursor, LimitExceeded
from datastore.model import CONTENT_MD5_KEY, USER_METADATA_BYTES, clean_etag

DIGEST = hashlib.md5(b"content")
BASE64 = base64.b64encode(DIGEST.digest()).decode()


@pytest.mark.parametrize("etag", [None, "", '""', 'W/""'])
def test_no_etag_is_empty(etag: str | None) -> None:
    """In every spelling."""
    assert clean_etag(etag) == ""
    assert WriteOptions(if_match=etag).if_match is None


@given(st.text(max_size=20))
def test_cleaning_an_etag_twice_changes_nothing(etag: str) -> None:
    """Bare is bare."""
    assert clean_etag(clean_etag(etag)) == clean_etag(etag)


def test_metadata_by_default_say_that_there_is_nothing() -> None:
    """As ``head`` returns them for what is missing."""
    assert Metadata() == Metadata(exists=False, size=0, etag="", user_metadata={})
    assert Metadata().content_md5 == ""


def test_the_digest_is_found_in_any_case() -> None:
    """Backends change the case of names."""
    for name in (CONTENT_MD5_KEY, CONTENT_MD5_KEY.upper()):
        assert WriteOptions(metadata={name: BASE64}).metadata == {CONTENT_MD5_KEY.lower(): BASE64}
    assert Metadata(user_metadata={CONTENT_MD5_KEY.lower(): BASE64}).content_md5 == BASE64


@pytest.mark.parametrize(
    "value",
    [
        Metadata(
            exists=True, size=3, etag="e", user_metadata={"a": "1"}, last_modified=datetime(2026, 1, 1, tzinfo=UTC)
        ),
        WriteOptions(metadata={"a": "1"}, tags={"t": "v"}, content_md5=BASE64, if_match="e"),
        SignedURLProperties(scope=SignedURLScope.WRITE, metadata={"a": "1"}, content_md5=BASE64),
        SignedURLResponse(url="https://h/k?sig=x", required_request_headers={"A": "b"}, method="PUT"),
        Cursor.after_key("a/b"),
        Capabilities(features={Feature.TAGS}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen_and_travel(value: Any) -> None:
    """Mappings included."""
    assert pickle.loads(pickle.dumps(value)) == value
    for attribute in value.__attrs_attrs__:
        with pytest.raises(FrozenInstanceError):
            setattr(value, attribute.name, None)
        if hasattr(getattr(value, attribute.name), "items"):
            with pytest.raises(TypeError):
                getattr(value, attribute.name)["new"] = "x"


def test_the_callers_mapping_is_not_shared() -> None:
    """What is changed later changes nothing."""
    given = {"a": "1"}
    options = WriteOptions(metadata=given)
    given["a"] = "2"
    assert options.metadata == {"a": "1"}


@pytest.mark.parametrize("wrong", [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"x"}])
def test_metadata_are_strings(wrong: Any) -> None:
    """Upstream's drivers fail when they write."""
    with pytest.raises(TypeError, match="user metadata are strings"):
        WriteOptions(metadata=wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"": "x"},
        {"-a": "x"},
        {"a b": "x"},
        {"é": "x"},
        {"a": "x\n"},
        {"a": " x"},
        {"a": "x "},
        {"a": "é"},
        {"A": "1", "a": "2"},
    ],
)
def test_metadata_are_what_every_backend_takes(wrong: dict[str, str]) -> None:
    """The error says which name, and what is allowed."""
    with pytest.raises(ValueError, match="user metadata"):
        WriteOptions(metadata=wrong)


def test_metadata_have_a_size() -> None:
    """Two KiB together, names and values."""
    WriteOptions(metadata={"a": "x" * (USER_METADATA_BYTES - 1)})
    with pytest.raises(LimitExceeded, match="2048"):
        WriteOptions(metadata={"a": "x" * USER_METADATA_BYTES})


@pytest.mark.parametrize("digest", [BASE64, DIGEST.hexdigest(), DIGEST.digest()])
def test_a_digest_may_be_given_in_three_ways(digest: Any) -> None:
    """It is carried as base64."""
    assert WriteOptions(content_md5=digest).content_md5 == BASE64


@pytest.mark.parametrize("wrong", ["x", "x" * 32, BASE64[:-4], b"short", BASE64 + "AAAA"])
def test_what_is_no_digest_is_refused(wrong: Any) -> None:
    """At once."""
    with pytest.raises(ValueError, match="not an MD5"):
        WriteOptions(content_md5=wrong)


def test_two_conditions_exclude_each_other() -> None:
    """Nothing can be absent and match."""
    with pytest.raises(ValueError, match="exclude each other"):
        WriteOptions(if_absent=True, if_match="e")


def test_options_over_a_sources_metadata() -> None:
    """What a copy carries over: options win, name by name."""
    source = Metadata(content_type="a/b", cache_control="no-cache", user_metadata={"a": "1", "b": "1"})
    merged = WriteOptions(content_type="c/d", metadata={"B": "2"}, if_absent=True).merged_over(source)
    assert (merged.content_type, merged.cache_control, merged.if_absent) == ("c/d", "no-cache", True)
    assert merged.metadata == {"a": "1", "b": "2"}
    assert not WriteOptions(if_absent=True).changes_metadata
    assert WriteOptions(tags={"a": "b"}).changes_metadata


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_cursor_can_be_saved(key: str) -> None:
    """Any key; start and end too."""
    for cursor in (Cursor.after_key(key), Cursor.at_start(), Cursor.at_end()):
        assert Cursor.parse(str(cursor)) == cursor
        assert str(cursor).isascii()
    assert Cursor().is_at_start
    assert Cursor.after_key(key).after == key


@pytest.mark.parametrize("text", ["", "after:", "after", "before:x", "item-10", "after:%FF", "after:\ud800"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Upstream's are opaque, and not these."""
    with pytest.raises(BadCursor):
        Cursor.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires_in": 0.5},
        {"expires_in": -1},
        {"expires_in": float("nan")},
        {"scope": "other"},
        {"content_md5": BASE64},
        {"content_length": 3},
        {"if_absent": True},
        {"scope": "write", "add_content_md5_metadata": True},
    ],
)
def test_properties_that_make_no_sense_are_refused(wrong: Any) -> None:
    """What only a write can carry, among them."""
    with pytest.raises(ValueError, match=r".+"):
        SignedURLProperties(**wrong)


def test_durations_are_seconds_or_timedeltas() -> None:
    """Whichever is at hand."""
    assert SignedURLProperties(expires_in=timedelta(minutes=2)).expires_in == 120.0
    assert [scope.method for scope in SignedURLScope] == ["GET", "PUT", "HEAD", "DELETE"]


def test_a_signed_url_is_not_shown() -> None:
    """It is a credential."""
    response = SignedURLResponse(url="https://host/bucket/key?X-Amz-Signature=secret")
    assert "secret" not in repr(response)
    assert "https://host/bucket/key" in repr(response)


def test_capabilities_are_asked_by_feature() -> None:
    """Signing by scope."""
    able = Capabilities(features=[Feature.SIGN_READ, Feature.TAGS])
    assert Feature.TAGS in able
    assert Feature.CONTAINERS not in able
    assert able.sign_feature(SignedURLScope.READ) in able
    assert able.sign_feature(SignedURLScope.DELETE) not in able
