"""References: every golden vector, and the laws of parsing, building and joining."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import DataReference, MemoryStore, construct_reference
from datastore.errors import InvalidReference
from datastore.model import clean_etag

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "references.json").read_text())


def rows(table: str, *names: str) -> Any:
    """A table of the vectors as test parameters."""
    return pytest.mark.parametrize(
        "row", [pytest.param(row, id=repr([row[name] for name in names])) for row in VECTORS[table]]
    )


@rows("parse", "input")
def test_parse(row: dict[str, Any]) -> None:
    """Scheme, container, key and account are upstream's; what it would lose is refused with the reason."""
    expected = row["expect"]
    if "error" in expected:
        with pytest.raises(InvalidReference) as caught:
            DataReference.parse(row["input"])
        assert caught.value.reason == expected["error"]
        return
    reference = DataReference.parse(row["input"])
    assert reference.split() == (expected["scheme"], expected["container"], expected["key"])
    assert reference.account == expected.get("account")
    if "canonical" in row:
        assert str(reference) == row["canonical"]
        assert DataReference.parse(row["canonical"]) == reference


@rows("parse", "input")
def test_what_operations_make_of_a_reference(row: dict[str, Any]) -> None:
    """``require_object`` gives the reason why no operation can use it."""
    verdict = row.get("object_op")
    if verdict is None:
        with pytest.raises(InvalidReference):
            DataReference(row["input"])
        return
    reference = DataReference.parse(row["input"])
    if verdict == "ok":
        reference.require_object()
    else:
        with pytest.raises(InvalidReference) as caught:
            reference.require_object()
        assert caught.value.reason == verdict


@rows("parse", "input")
def test_what_lists_make_of_a_reference(row: dict[str, Any]) -> None:
    """A container alone will do for them."""
    verdict = row.get("object_op")
    if verdict is None:
        return
    reference = DataReference.parse(row["input"])
    if verdict in ("ok", "empty_key"):
        reference.require_prefix()
    else:
        with pytest.raises(InvalidReference):
            reference.require_prefix()


@rows("build", "scheme", "container", "key")
def test_build(row: dict[str, Any]) -> None:
    """Raw parts are escaped, and what cannot be addressed is refused."""
    parts = (row["scheme"], row["container"], row["key"], row.get("account"))
    if "error" in row:
        with pytest.raises(InvalidReference) as caught:
            DataReference.build(*parts)
        assert caught.value.reason == row["error"]
        return
    reference = DataReference.build(*parts)
    assert str(reference) == row["expect"]
    assert DataReference.parse(row["expect"]) == reference


@rows("construct_reference", "base", "keys")
def test_construct_reference(row: dict[str, Any]) -> None:
    """URL text below a base, with none of upstream's eight wrong answers; the caller's list is left alone."""
    keys = list(row["keys"])
    if "error" in row:
        with pytest.raises(InvalidReference) as caught:
            construct_reference(row["base"], *keys)
        assert caught.value.reason == row["error"]
    else:
        text = construct_reference(row["base"], *keys)
        assert text == row["expect"]
        assert DataReference.parse(text).key == row["key"]
    assert keys == row["keys"]


@rows("join", "base", "segments")
def test_join(row: dict[str, Any]) -> None:
    """Plain text below a base."""
    if "error" in row:
        with pytest.raises(InvalidReference) as caught:
            DataReference(row["base"]).join(*row["segments"])
        assert caught.value.reason == row["error"]
    else:
        assert str(DataReference(row["base"]).join(*row["segments"])) == row["expect"]


@pytest.mark.parametrize(
    "row", VECTORS["list_references"]["rows"], ids=lambda row: f"{row['backend']} {row['request']}"
)
def test_listed_references_parse_back_to_the_object(row: dict[str, Any]) -> None:
    """They keep scheme and authority of the request; upstream's do not, on most backends."""
    request = DataReference(row["request"])
    reference = request.with_key(row["object"])
    assert str(reference) == row["expect"]
    store = MemoryStore()
    store.write_bytes(reference, b"content")
    assert store.list(request)[0] == [reference]
    assert store.read_bytes(row["expect"]) == b"content"


@rows("etag_clean", "input")
def test_etags_are_bare(row: dict[str, str]) -> None:
    """Seven spellings clients hand out."""
    assert clean_etag(row["input"]) == row["expect"]


SCHEMES = st.from_regex(r"[A-Za-z][A-Za-z0-9+.-]{0,8}", fullmatch=True).filter(
    lambda text: text.lower() not in ACCOUNTS
)
ACCOUNTS = ("abfs", "abfss", "wasb", "wasbs")
CONTAINERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def _is_key(text: str) -> bool:
    return not text.startswith("/") and not text.endswith("/") and not {".", ".."} & set(text.split("/"))


KEYS = TEXT.filter(_is_key)


@given(SCHEMES, CONTAINERS, KEYS)
def test_parsing_is_the_inverse_of_building(scheme: str, container: str, key: str) -> None:
    """For every key that can be addressed; only the scheme loses its case."""
    reference = DataReference.build(scheme, container, key)
    again = DataReference(str(reference))
    assert again.split() == (scheme.lower(), container, key)
    assert (again, hash(again), str(again)) == (reference, hash(reference), str(reference))


@given(st.sampled_from(ACCOUNTS), CONTAINERS, CONTAINERS, KEYS)
def test_accounts_survive_too(scheme: str, container: str, account: str, key: str) -> None:
    """With abfs and wasb, the authority is container@account."""
    reference = DataReference.build(scheme, container, key, account)
    again = DataReference(str(reference))
    assert (again.split(), again.account) == ((scheme, container, key), account)


@given(CONTAINERS, KEYS, st.lists(TEXT, max_size=4))
def test_joining_never_leaves_the_base(container: str, key: str, segments: list[str]) -> None:
    """The result is below it, or an error; and the canonical text says the same."""
    base = DataReference.build("s3", container, key)
    try:
        joined = base.join(*segments)
    except InvalidReference:
        return
    assert joined.container_reference == base.container_reference
    assert joined.key == key or not key or joined.key.startswith(f"{key}/")
    assert DataReference(str(joined)) == joined


@given(CONTAINERS, KEYS, st.lists(st.text(st.sampled_from("a/.%25eE2#?:@ é"), max_size=12), max_size=4))
def test_constructing_never_leaves_the_base(container: str, key: str, keys: list[str]) -> None:
    """Whatever is encoded how."""
    base = DataReference.build("s3", container, key)
    try:
        text = construct_reference(base, *keys)
    except InvalidReference:
        return
    made = DataReference(text)
    assert made.container_reference == base.container_reference
    assert made.key == key or not key or made.key.startswith(f"{key}/")


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No other error; and what parses has one canonical spelling."""
    try:
        reference = DataReference.parse(text)
    except InvalidReference:
        return
    if reference.flaw is None and (reference.container or not reference.scheme):
        assert DataReference.parse(str(reference)) == reference


@given(st.lists(KEYS, max_size=8))
def test_references_sort_as_stores_list_them(keys: list[str]) -> None:
    """By the UTF-8 bytes of their keys."""
    references = sorted(DataReference.build("s3", "b", key) for key in keys)
    assert [reference.key for reference in references] == sorted(keys, key=str.encode)


def test_a_reference_is_frozen_and_can_be_pickled() -> None:
    """It is a value."""
    reference = DataReference("s3://bucket/a%20b")
    with pytest.raises(AttributeError, match="frozen"):
        reference.key = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del reference.key
    assert pickle.loads(pickle.dumps(reference)) == reference
    assert {reference: 1}[DataReference("s3://bucket/a b")] == 1


@pytest.mark.parametrize("text", ["s3://user:secret@bucket/key?x", "s3://AKIA:secret@b u/key", "gs://:secret@b/%zz"])
def test_errors_show_no_credentials(text: str) -> None:
    """Userinfo is dropped from what is shown."""
    with pytest.raises(InvalidReference) as caught:
        DataReference(text)
    assert "secret" not in str(caught.value)


def test_a_reference_is_no_path() -> None:
    """``open(reference)`` asks for one, and is told what to do instead."""
    with pytest.raises(TypeError, match="read it through a store"):
        os.fspath(DataReference("s3://b/k"))
