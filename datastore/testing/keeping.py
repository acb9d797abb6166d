"""What is kept beside the bytes: user metadata, content headers, tags."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from datastore.errors import LimitExceeded, NotSupported
from datastore.model import CONTENT_MD5_KEY, Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing import strategies
from datastore.testing.base import KitTests, Unseekable, assert_absent, lacks, needs
from datastore.testing.harness import Harness, Scale

__all__ = ["MetadataTests"]

_HEADERS: dict[str, Any] = {
    "content_type": "text/csv; charset=utf-8",
    "cache_control": "max-age=60, private",
    "content_encoding": "x-kit",
    "content_disposition": 'attachment; filename="a b.csv"',
}


class MetadataTests(KitTests):
    """Metadata come back as they were given, replaced whole with their object."""

    @needs(Feature.USER_METADATA)
    def test_user_metadata_come_back(self, store: Store, place: DataReference) -> None:
        """Head and the stream tell exactly what was written, empty values and odd characters included."""
        given = {
            "plain": "value",
            "empty": "",
            "number-7": "7",
            "odd": "a=b&c; \"q\" 'r' <t> ,%20+\\~",
            "inner": "two  spaces",
        }
        ref = place.join("object")
        store.write_bytes(ref, b"1", WriteOptions(metadata=given))
        assert given == store.head(ref).user_metadata
        with store.read_raw(ref) as stream:
            assert given == stream.metadata.user_metadata

    @needs(Feature.USER_METADATA)
    def test_metadata_names_with_underscores(self, store: Store, place: DataReference) -> None:
        """An underscore and a dash are two characters, though some gateways make headers alike of them."""
        given = {"under_score": "1", "under-score": "2"}
        store.write_bytes(place.join("object"), b"1", WriteOptions(metadata=given))
        assert given == store.head(place.join("object")).user_metadata

    @needs(Feature.USER_METADATA)
    def test_names_have_no_case(self, store: Store, place: DataReference) -> None:
        """Names come back in lower case on every backend; two that differ by case alone are refused."""
        ref = place.join("object")
        store.write_bytes(ref, b"1", WriteOptions(metadata={"MixedCase": "Value", "UPPER-1": "V"}))
        assert store.head(ref).user_metadata == {"mixedcase": "Value", "upper-1": "V"}
        with pytest.raises(ValueError, match="twice"):
            WriteOptions(metadata={"a": "1", "A": "2"})

    @needs(Feature.USER_METADATA)
    def test_an_overwrite_replaces_metadata(self, store: Store, place: DataReference) -> None:
        """Nothing of the old object's metadata is left, whether the new one has any or none."""
        ref = place.join("object")
        store.write_bytes(ref, b"1", WriteOptions(metadata={"a": "1", "b": "2"}))
        store.write_bytes(ref, b"2", WriteOptions(metadata={"c": "3"}))
        assert store.head(ref).user_metadata == {"c": "3"}
        store.write_bytes(ref, b"3")
        assert store.head(ref).user_metadata == {}

    @needs(Feature.USER_METADATA)
    def test_metadata_of_streamed_and_large_objects(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Metadata survive the way of unknown sizes and of several parts."""
        ref = place.join("object")
        for size in (0, 10, harness.scale.large):
            store.write_raw(ref, None, WriteOptions(metadata={"size": str(size)}), Unseekable(bytes(size)))
            assert (size, {"size": str(size)}) == (store.head(ref).size, store.head(ref).user_metadata)

    @needs(Feature.USER_METADATA)
    def test_as_much_metadata_as_every_cloud_takes(self, store: Store, place: DataReference) -> None:
        """Two KiB, names and values together, are kept; one byte more is refused."""
        full = {"a": "x" * 1000, "b": "y" * 1046}
        assert sum(len(name) + len(value) for name, value in full.items()) == 2048
        ref = place.join("object")
        store.write_bytes(ref, b"1", WriteOptions(metadata=full))
        assert full == store.head(ref).user_metadata
        with pytest.raises(LimitExceeded):
            WriteOptions(metadata={**full, "a": "x" * 1001})

    @needs(Feature.USER_METADATA)
    def test_any_metadata_come_back(self, harness: Harness, store: Store, place: DataReference) -> None:
        """The law behind the examples: what the options take, head returns."""
        ref = place.join("object")

        @settings(
            max_examples=8 if harness.scale is Scale.SMALL else 40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(found=strategies.metadata())
        def law(found: dict[str, str]) -> None:
            store.write_bytes(ref, b"1", WriteOptions(metadata=found))
            assert found == store.head(ref).user_metadata

        law()

    @pytest.mark.parametrize(
        ("metadata", "error"),
        [
            ({"a": 1}, TypeError),
            ({"a": b"1"}, TypeError),
            ({1: "a"}, TypeError),
            ({"a": "ü"}, ValueError),
            ({"a": "line\nfeed"}, ValueError),
            ({"a": " edge"}, ValueError),
            ({"a": "edge "}, ValueError),
            ({"": "a"}, ValueError),
            ({"a b": "a"}, ValueError),
            ({"ü": "a"}, ValueError),
            ({"a:b": "a"}, ValueError),
            ({"-a": "a"}, ValueError),
        ],
        ids=repr,
    )
    def test_metadata_no_header_can_carry_are_refused(self, metadata: Any, error: type[Exception]) -> None:
        """Names and values that some backend would mangle are refused on all of them."""
        with pytest.raises(error):
            WriteOptions(metadata=metadata)

    @needs(Feature.USER_METADATA)
    def test_the_writers_digest_is_found(self, store: Store, place: DataReference) -> None:
        """A digest kept under upstream's name is ``content_md5``, whatever the case it was written in."""
        ref = place.join("object")
        digest = base64.b64encode(hashlib.md5(b"1", usedforsecurity=False).digest()).decode()
        for name in (CONTENT_MD5_KEY, CONTENT_MD5_KEY.upper(), CONTENT_MD5_KEY.lower()):
            store.write_bytes(ref, b"1", WriteOptions(metadata={name: digest}))
            assert digest == store.head(ref).content_md5
        store.write_bytes(ref, b"1")
        assert store.head(ref).content_md5 == ""

    @needs(Feature.CONTENT_HEADERS)
    def test_content_headers_come_back(self, store: Store, place: DataReference) -> None:
        """Type, caching, encoding and disposition are kept, and nothing decodes the bytes on the way."""
        ref = place.join("object")
        store.write_bytes(ref, b"not really encoded", WriteOptions(**_HEADERS))
        known = store.head(ref)
        assert {name: getattr(known, name) for name in _HEADERS} == _HEADERS
        assert store.read_bytes(ref) == b"not really encoded"
        assert known.size == 18

    @needs(Feature.CONTENT_HEADERS)
    def test_a_gzip_object_is_not_unpacked(self, store: Store, place: DataReference) -> None:
        """The content encoding describes the bytes; it is no order to change them."""
        ref = place.join("object")
        packed = bytes.fromhex("1f8b08000000000002ff4b4c4a0600c241243503000000")
        store.write_bytes(ref, packed, WriteOptions(content_encoding="gzip"))
        assert packed == store.read_bytes(ref)
        assert len(packed) == store.head(ref).size

    @needs(Feature.CONTENT_HEADERS)
    def test_an_overwrite_replaces_content_headers(self, store: Store, place: DataReference) -> None:
        """Headers of the old object do not describe the new one."""
        ref = place.join("object")
        store.write_bytes(ref, b"1", WriteOptions(**_HEADERS))
        store.write_bytes(ref, b"2")
        known = store.head(ref)
        assert not {name for name, value in _HEADERS.items() if getattr(known, name) == value}

    @needs(Feature.TAGS)
    def test_tags_are_taken(self, store: Store, place: DataReference) -> None:
        """An object with tags is written like any other."""
        ref = place.join("object")
        store.write_bytes(ref, b"1", WriteOptions(tags={"team": "kit", "cost centre": "7"}))
        assert store.read_bytes(ref) == b"1"

    @lacks(Feature.USER_METADATA)
    def test_user_metadata_that_cannot_be_kept_are_refused(self, store: Store, place: DataReference) -> None:
        """Losing metadata in silence is worse than refusing them."""
        _check_refused(store, place, WriteOptions(metadata={"a": "1"}))

    @lacks(Feature.CONTENT_HEADERS)
    @pytest.mark.parametrize("header", _HEADERS)
    def test_content_headers_that_cannot_be_kept_are_refused(
        self, store: Store, place: DataReference, header: str
    ) -> None:
        """The same for each content header."""
        _check_refused(store, place, WriteOptions(**{header: _HEADERS[header]}))

    @lacks(Feature.TAGS)
    def test_tags_that_cannot_be_kept_are_refused(self, store: Store, place: DataReference) -> None:
        """The same for tags."""
        _check_refused(store, place, WriteOptions(tags={"a": "1"}))


def _check_refused(store: Store, place: DataReference, options: WriteOptions) -> None:
    source = Unseekable(b"unread")
    with pytest.raises(NotSupported):
        store.write_raw(place.join("object"), 6, options, source)
    assert source.taken == 0
    assert_absent(store, place.join("object"))
    store.write_bytes(place.join("source"), b"1")
    with pytest.raises(NotSupported):
        store.copy_raw(place.join("source"), place.join("object"), options)
    assert_absent(store, place.join("object"))
