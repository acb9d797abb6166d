"""Removing objects, one and many."""

from __future__ import annotations

import pytest

from datastore.errors import InvalidReference, NotFound
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, assert_absent, names_below, write_all
from datastore.testing.harness import Harness

__all__ = ["DeleteTests"]


class DeleteTests(KitTests):
    """Deleting removes what was named, nothing else, and does not mind doing so twice."""

    def test_a_deleted_object_is_gone(self, store: Store, place: DataReference) -> None:
        """Head, read and list agree that it is gone, and its name can be used again."""
        ref = place.join("object")
        store.write_bytes(ref, b"old")
        store.delete(ref)
        assert_absent(store, ref)
        store.write_bytes(ref, b"new")
        assert store.read_bytes(ref) == b"new"

    def test_deleting_is_idempotent(self, store: Store, place: DataReference) -> None:
        """Deleting what is not there is no error, so that it can be retried."""
        store.write_bytes(place.join("object"), b"1")
        for _ in range(2):
            store.delete(place.join("object"))
        store.delete(place.join("never", "was", "there"))

    def test_deleting_what_must_be_there(self, store: Store, place: DataReference) -> None:
        """With ``missing_ok=False`` a missing object is an error on every backend."""
        ref = place.join("object")
        store.write_bytes(ref, b"1")
        store.delete(ref, missing_ok=False)
        assert_absent(store, ref)
        with pytest.raises(NotFound):
            store.delete(ref, missing_ok=False)

    def test_deleting_in_a_missing_container(self, store: Store, missing_container: DataReference) -> None:
        """What a missing container holds is gone already; asked to insist, the store says so."""
        store.delete(missing_container.join("object"))
        assert store.delete_many([missing_container.join("a"), missing_container.join("b")]) == {}
        with pytest.raises(NotFound):
            store.delete(missing_container.join("object"), missing_ok=False)

    def test_neighbours_stay(self, store: Store, place: DataReference) -> None:
        """Only the very key goes: not what it is a prefix of, and not what lies below it."""
        write_all(store, [place.join(name) for name in ("abc", "ab-", "ab.d/e", "x/y/z", "x/y2")])
        for name in ("ab", "x", "x/y", "abcd"):
            store.delete(place.join(name))
        assert names_below(store, place) == ["ab-", "ab.d/e", "abc", "x/y/z", "x/y2"]

    def test_an_emptied_folder_is_no_obstacle(self, store: Store, place: DataReference) -> None:
        """When the last object below a prefix is gone nothing of the prefix is left, and it can be an object."""
        store.write_bytes(place.join("folder", "a", "b"), b"1")
        store.delete(place.join("folder", "a", "b"))
        assert names_below(store, place) == []
        assert store.list_page(place, delimiter="/", directory=True).prefixes == ()
        store.write_bytes(place.join("folder"), b"an object now")
        assert store.read_bytes(place.join("folder")) == b"an object now"

    def test_deleting_many(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Objects that are there and objects that are not go together, by reference and by text, without errors."""
        count = harness.scale.objects
        refs = [place.join(f"many/{number:05}") for number in range(count)]
        write_all(store, refs)
        store.write_bytes(place.join("stays"), b"1")
        mixed: list[Reference] = [*refs, place.join("many", "nothing"), str(place.join("many", "nothing 2")), refs[0]]
        assert store.delete_many(iter(mixed)) == {}
        assert names_below(store, place) == ["stays"]

    def test_deleting_none(self, store: Store) -> None:
        """No references, no errors."""
        assert store.delete_many([]) == {}

    def test_deleting_many_with_one_mistake(self, store: Store, place: DataReference) -> None:
        """A reference that names no object is refused before anything is removed."""
        ref = place.join("object")
        store.write_bytes(ref, b"1")
        with pytest.raises(InvalidReference):
            store.delete_many([ref, place.container_reference])
        assert store.read_bytes(ref) == b"1"

    def test_deleting_from_two_containers(
        self, store: Store, place: DataReference, fresh_container: DataReference
    ) -> None:
        """One call reaches objects of several containers."""
        refs = [place.join("a"), fresh_container.join("a"), fresh_container.join("b"), place.join("b")]
        write_all(store, refs)
        assert store.delete_many(refs[:3]) == {}
        assert [store.exists(ref) for ref in refs] == [False, False, False, True]
