"""Copies, inside a store and its containers."""

from __future__ import annotations

import pytest

from datastore.errors import NotFound
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, Unseekable, assert_absent, content, names_below, needs
from datastore.testing.harness import Harness

__all__ = ["CopyTests"]


class CopyTests(KitTests):
    """A copy is an object of its own, with the bytes and the metadata of its source."""

    @pytest.mark.parametrize("size", [0, 1, 10_000])
    def test_copying_the_bytes(self, store: Store, place: DataReference, size: int) -> None:
        """Source and copy hold the same bytes, and are two objects afterwards."""
        source, copy = place.join("source"), place.join("deeper", "copy")
        store.write_bytes(source, content(size))
        told = store.copy_raw(source, copy)
        known = store.head(copy)
        assert content(size) == store.read_bytes(copy)
        assert (True, size, known.etag) == (told.exists, told.size, told.etag)
        assert content(size) == store.read_bytes(source)
        store.write_bytes(source, b"changed")
        assert content(size) == store.read_bytes(copy)
        store.delete(source)
        assert names_below(store, place) == ["deeper/copy"]

    def test_copying_over_another_object(self, store: Store, place: DataReference) -> None:
        """A copy replaces what was there, whole."""
        store.write_bytes(place.join("source"), b"new")
        store.write_bytes(place.join("copy"), b"old and longer")
        store.copy_raw(str(place.join("source")), str(place.join("copy")))
        assert store.read_bytes(place.join("copy")) == b"new"

    def test_copying_large_objects(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Objects that were sent in several parts are copied whole."""
        data = content(harness.scale.large)
        store.write_raw(place.join("source"), None, None, Unseekable(data))
        assert len(data) == store.copy_raw(place.join("source"), place.join("copy")).size
        assert data == store.read_bytes(place.join("copy"))

    def test_copying_to_another_container(
        self, store: Store, place: DataReference, fresh_container: DataReference
    ) -> None:
        """A copy may cross containers, both ways."""
        there, back = fresh_container.join("odd name/ü"), place.join("back")
        store.write_bytes(place.join("source"), content(1000))
        store.copy_raw(place.join("source"), there)
        store.copy_raw(there, back)
        assert content(1000) == store.read_bytes(there) == store.read_bytes(back)

    def test_copying_to_a_missing_container(
        self, harness: Harness, place: DataReference, missing_container: DataReference
    ) -> None:
        """A copy to a container that is not there makes it and arrives, as a write does; or it fails."""
        store = harness.store
        store.write_bytes(place.join("source"), b"source")
        if not harness.creates_containers:
            with pytest.raises(NotFound):
                store.copy_raw(place.join("source"), missing_container.join("copy"))
            return
        store.copy_raw(place.join("source"), missing_container.join("copy"))
        assert store.read_bytes(missing_container.join("copy")) == b"source"

    @needs(Feature.USER_METADATA)
    def test_metadata_are_carried(self, store: Store, place: DataReference) -> None:
        """Without options everything kept with the source is kept with the copy."""
        options = WriteOptions(metadata={"a": "1", "b": "2"})
        store.write_bytes(place.join("source"), b"1", options)
        store.copy_raw(place.join("source"), place.join("copy"))
        assert store.head(place.join("copy")).user_metadata == {"a": "1", "b": "2"}

    @needs(Feature.USER_METADATA)
    def test_options_override_metadata(self, store: Store, place: DataReference) -> None:
        """Options replace what they name and leave the rest; the source keeps its own."""
        store.write_bytes(place.join("source"), b"1", WriteOptions(metadata={"a": "1", "b": "2"}))
        store.write_bytes(place.join("copy"), b"old", WriteOptions(metadata={"old": "x"}))
        store.copy_raw(place.join("source"), place.join("copy"), WriteOptions(metadata={"B": "3", "c": "4"}))
        assert store.head(place.join("copy")).user_metadata == {"a": "1", "b": "3", "c": "4"}
        assert store.head(place.join("source")).user_metadata == {"a": "1", "b": "2"}
        assert store.read_bytes(place.join("copy")) == b"1"

    @needs(Feature.CONTENT_HEADERS)
    def test_content_headers_are_carried(self, store: Store, place: DataReference) -> None:
        """So are the content headers, singly overridden."""
        options = WriteOptions(content_type="text/plain", cache_control="no-store", content_disposition="inline")
        store.write_bytes(place.join("source"), b"1", options)
        store.copy_raw(place.join("source"), place.join("copy"))
        store.copy_raw(place.join("source"), place.join("other"), WriteOptions(content_type="text/html"))
        for name, kind in (("copy", "text/plain"), ("other", "text/html")):
            known = store.head(place.join(name))
            assert (kind, "no-store", "inline") == (known.content_type, known.cache_control, known.content_disposition)

    def test_copying_onto_itself(self, store: Store, place: DataReference) -> None:
        """Copying an object onto itself changes nothing."""
        ref = place.join("object")
        store.write_bytes(ref, content(1000))
        told = store.copy_raw(ref, ref)
        assert (told.exists, told.size) == (True, 1000)
        assert content(1000) == store.read_bytes(ref)
        assert names_below(store, place) == ["object"]

    @needs(Feature.USER_METADATA)
    def test_copying_onto_itself_with_other_metadata(self, store: Store, place: DataReference) -> None:
        """With options it changes the metadata and keeps the bytes."""
        ref = place.join("object")
        store.write_bytes(ref, content(1000), WriteOptions(metadata={"a": "1", "b": "2"}))
        store.copy_raw(ref, ref, WriteOptions(metadata={"b": "3"}))
        assert store.head(ref).user_metadata == {"a": "1", "b": "3"}
        assert content(1000) == store.read_bytes(ref)

    def test_copying_from_nothing(self, store: Store, place: DataReference) -> None:
        """A missing source is an error that names it, and the destination stays as it is."""
        source, copy = place.join("nothing"), place.join("copy")
        with pytest.raises(NotFound) as refused:
            store.copy_raw(source, copy)
        assert str(source) == refused.value.reference
        assert_absent(store, copy)
        store.write_bytes(copy, b"old")
        for destination in (copy, source):
            with pytest.raises(NotFound):
                store.copy_raw(source, destination)
        assert store.read_bytes(copy) == b"old"
        assert_absent(store, source)

    def test_copying_from_a_missing_container(
        self, store: Store, place: DataReference, missing_container: DataReference
    ) -> None:
        """So is a missing container of the source; none is made for it."""
        with pytest.raises(NotFound) as refused:
            store.copy_raw(missing_container.join("nothing"), place.join("copy"))
        assert str(missing_container.join("nothing")) == refused.value.reference
        assert_absent(store, place.join("copy"))
