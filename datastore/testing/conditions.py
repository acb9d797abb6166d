"""Writes that happen only if: create when absent, replace when unchanged."""

from __future__ import annotations

import pytest

from datastore.errors import AlreadyExists, NotSupported, PreconditionFailed
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, Unseekable, assert_absent, content, lacks, needs
from datastore.testing.harness import Harness

__all__ = ["ConditionTests"]

_CREATE = WriteOptions(if_absent=True)


class ConditionTests(KitTests):
    """A condition that does not hold leaves everything as it was."""

    @needs(Feature.CREATE_IF_ABSENT)
    def test_creating_happens_once(self, store: Store, place: DataReference) -> None:
        """The first create wins, later ones fail as FileExistsError and change nothing; after a delete it is free."""
        ref = place.join("object")
        store.write_bytes(ref, b"first", _CREATE)
        for data in (b"second", b"", content(100_000)):
            with pytest.raises(AlreadyExists):
                store.write_bytes(ref, data, _CREATE)
            assert store.read_bytes(ref) == b"first"
        store.write_bytes(ref, b"overwritten")
        with pytest.raises(FileExistsError):
            store.write_raw(ref, None, _CREATE, Unseekable(b"third"))
        assert store.read_bytes(ref) == b"overwritten"
        store.delete(ref)
        store.write_bytes(ref, b"anew", _CREATE)
        assert store.read_bytes(ref) == b"anew"

    @needs(Feature.CREATE_IF_ABSENT)
    def test_creating_large_objects(self, harness: Harness, store: Store, place: DataReference) -> None:
        """The condition holds for objects sent in several parts, of known and unknown size."""
        data = content(harness.scale.large)
        for name, size in (("known", len(data)), ("unknown", None)):
            ref = place.join(name)
            assert len(data) == store.write_raw(ref, size, _CREATE, Unseekable(data)).size
            with pytest.raises(AlreadyExists):
                store.write_raw(ref, size, _CREATE, Unseekable(bytes(len(data))))
            assert data[:100] == store.read_bytes(ref, 0, 100)

    @needs(Feature.CREATE_IF_ABSENT)
    def test_creating_an_empty_object(self, store: Store, place: DataReference) -> None:
        """An object of no bytes is there as much as any other."""
        store.write_bytes(place.join("empty"), b"", _CREATE)
        with pytest.raises(AlreadyExists):
            store.write_bytes(place.join("empty"), b"more", _CREATE)
        assert store.read_bytes(place.join("empty")) == b""

    @needs(Feature.CREATE_IF_ABSENT)
    def test_a_failed_source_creates_nothing(self, store: Store, place: DataReference) -> None:
        """A create whose source fails leaves the name free."""
        ref = place.join("object")
        with pytest.raises(KeyError):
            store.write_raw(ref, None, _CREATE, Unseekable(b"half", KeyError("broken")))
        assert_absent(store, ref)
        store.write_bytes(ref, b"whole", _CREATE)

    @needs(Feature.CREATE_IF_ABSENT)
    def test_copying_if_absent(self, store: Store, place: DataReference) -> None:
        """A copy honours the condition too, or says that it cannot; it never overwrites."""
        source, destination = place.join("source"), place.join("destination")
        store.write_bytes(source, b"source")
        store.write_bytes(destination, b"destination")
        with pytest.raises((AlreadyExists, NotSupported)):
            store.copy_raw(source, destination, _CREATE)
        assert store.read_bytes(destination) == b"destination"

    @needs(Feature.REPLACE_IF_MATCH)
    def test_replacing_what_is_known(self, store: Store, place: DataReference) -> None:
        """The etag just seen replaces the object, quoted or not, and only once."""
        ref = place.join("object")
        etag = store.write_bytes(ref, b"one").etag
        second = store.write_bytes(ref, b"two", WriteOptions(if_match=etag)).etag
        with pytest.raises(PreconditionFailed):
            store.write_bytes(ref, b"three", WriteOptions(if_match=etag))
        assert store.read_bytes(ref) == b"two"
        store.write_raw(ref, None, WriteOptions(if_match=f'"{second}"'), Unseekable(b"four"))
        assert store.read_bytes(ref) == b"four"

    @needs(Feature.REPLACE_IF_MATCH)
    def test_replacing_what_is_not_there(self, store: Store, place: DataReference) -> None:
        """An object that is missing, or gone since, matches no etag: nothing is made."""
        ref = place.join("object")
        etag = store.write_bytes(ref, b"one").etag
        store.delete(ref)
        with pytest.raises(PreconditionFailed):
            store.write_bytes(ref, b"two", WriteOptions(if_match=etag))
        assert_absent(store, ref)

    def test_conditions_exclude_each_other(self) -> None:
        """An object cannot be absent and of some etag."""
        with pytest.raises(ValueError, match="exclude"):
            WriteOptions(if_absent=True, if_match="etag")

    @lacks(Feature.CREATE_IF_ABSENT)
    def test_creating_that_cannot_be_promised_is_refused(self, store: Store, place: DataReference) -> None:
        """A backend that would overwrite is not asked to create."""
        source = Unseekable(b"unread")
        with pytest.raises(NotSupported):
            store.write_raw(place.join("object"), 6, _CREATE, source)
        assert source.taken == 0
        assert_absent(store, place.join("object"))

    @lacks(Feature.REPLACE_IF_MATCH)
    def test_replacing_that_cannot_be_promised_is_refused(self, store: Store, place: DataReference) -> None:
        """A backend that would overwrite blindly is not asked to compare."""
        ref = place.join("object")
        etag = store.write_bytes(ref, b"old").etag
        with pytest.raises(NotSupported):
            store.write_bytes(ref, b"new", WriteOptions(if_match=etag))
        assert store.read_bytes(ref) == b"old"
