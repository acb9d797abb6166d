"""Containers: made, found, removed, and made on the way by a write."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from datastore.errors import ContainerNotAllowed, ContainerNotEmpty, NoSuchContainer, is_not_found
from datastore.model import Capabilities, Feature, SignedURLProperties
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, Unseekable, content, needs
from datastore.testing.harness import ContainerAdmin, Harness

__all__ = ["ContainerTests"]


class ContainerTests(KitTests):
    """Containers are made once, found by name, and removed only when nothing is in them."""

    @pytest.fixture
    def admin(self, harness: Harness) -> ContainerAdmin:
        """What makes containers."""
        admin = harness.containers
        if admin is None:
            pytest.skip("the harness makes no containers")
        return admin

    @needs(Feature.CONTAINERS)
    def test_a_made_container_holds_objects(
        self, admin: ContainerAdmin, store: Store, missing_container: DataReference
    ) -> None:
        """Once made it can be found, written and read; made again it is the same, with what is in it."""
        ref = missing_container.join("object")
        admin.create_container(missing_container.container)
        admin.load_container(missing_container.container)
        store.write_bytes(ref, b"1")
        admin.create_container(missing_container.container)
        admin.load_container(missing_container.container, create_if_not_found=True)
        assert store.read_bytes(ref) == b"1"

    @needs(Feature.CONTAINERS)
    def test_a_missing_container_is_not_found(self, admin: ContainerAdmin, missing_container: DataReference) -> None:
        """Loading does not make what is not there, unless asked to; then it does."""
        name = missing_container.container
        with pytest.raises(NoSuchContainer):
            admin.load_container(name)
        with pytest.raises(NoSuchContainer):
            admin.load_container(name)
        admin.load_container(name, create_if_not_found=True)
        admin.load_container(name)

    @needs(Feature.CONTAINERS)
    def test_a_removed_container_is_gone(
        self, admin: ContainerAdmin, store: Store, missing_container: DataReference
    ) -> None:
        """An empty container can be removed; one that is not there cannot."""
        name = missing_container.container
        with pytest.raises(NoSuchContainer):
            admin.delete_container(name)
        admin.create_container(name)
        store.write_bytes(missing_container.join("object"), b"1")
        store.delete(missing_container.join("object"))
        admin.delete_container(name)
        with pytest.raises(NoSuchContainer):
            admin.load_container(name)
        with pytest.raises(NoSuchContainer):
            admin.delete_container(name)
        assert not store.head(missing_container.join("object")).exists
        assert store.list(missing_container)[0] == []

    @needs(Feature.CONTAINERS)
    def test_a_container_with_objects_stays(
        self, admin: ContainerAdmin, store: Store, fresh_container: DataReference
    ) -> None:
        """Removing a container never removes objects."""
        store.write_bytes(fresh_container.join("deep", "object"), b"1")
        with pytest.raises(ContainerNotEmpty):
            admin.delete_container(fresh_container.container)
        assert store.read_bytes(fresh_container.join("deep", "object")) == b"1"

    @needs(Feature.CONTAINERS)
    def test_containers_hold_objects_of_their_own(
        self, store: Store, place: DataReference, fresh_container: DataReference
    ) -> None:
        """One key in two containers is two objects."""
        other = fresh_container.with_key(place.join("object").key)
        store.write_bytes(place.join("object"), b"here")
        assert not store.head(other).exists
        store.write_bytes(other, b"there")
        store.delete(place.join("object"))
        assert store.read_bytes(other) == b"there"

    @pytest.mark.parametrize("size", [0, 10, 5 << 20])
    @pytest.mark.parametrize("shape", ["bytes", "unseekable"])
    def test_a_write_to_a_missing_container(
        self, harness: Harness, missing_container: DataReference, size: int, shape: str
    ) -> None:
        """The write makes the container and the object exists, whole, from any source; or it fails and none is made.

        Upstream makes the container, forgets to write, and reports success.
        """
        store, data, ref = harness.store, content(size), missing_container.join("object")
        source = data if shape == "bytes" else Unseekable(data)
        if not harness.creates_containers:
            with pytest.raises(NoSuchContainer):
                store.write_raw(ref, size, None, source)
            assert not store.head(ref).exists
            return
        written = store.write_raw(ref, size, None, source)
        known = store.head(ref)
        assert (True, size, written.etag) == (known.exists, known.size, known.etag)
        assert data == store.read_bytes(ref)
        store.write_bytes(missing_container.join("second"), b"2")
        assert [ref, missing_container.join("second")] == store.list(missing_container)[0]

    def test_many_first_writes(self, harness: Harness, missing_container: DataReference) -> None:
        """Threads that meet the missing container together all write their object."""
        if not harness.creates_containers:
            pytest.skip("the store makes no containers on the way")
        refs = [missing_container.join(f"{number:02}") for number in range(harness.scale.threads)]
        with ThreadPoolExecutor(len(refs)) as pool:
            list(pool.map(lambda ref: harness.store.write_bytes(ref, ref.key.encode()), refs))
        assert refs == harness.store.list(missing_container)[0]

    def test_reading_makes_no_container(self, harness: Harness, missing_container: DataReference) -> None:
        """Head, read, list and delete leave a missing container missing."""
        store, ref = harness.store, missing_container.join("object")
        assert not store.head(ref).exists
        with pytest.raises(NoSuchContainer):
            store.read_raw(ref)
        assert store.list(missing_container)[0] == []
        store.delete(ref)
        if harness.containers is not None:
            with pytest.raises(NoSuchContainer):
                harness.containers.load_container(missing_container.container)

    def test_a_bound_store_stays_in_its_container(
        self, harness: Harness, able: Capabilities, place: DataReference, missing_container: DataReference
    ) -> None:
        """A store that may use one container refuses every operation on others, signing and both ends of copies too.

        Upstream's callers take that for "not found", and `is_not_found` agrees; but head does not hide it.
        """
        bound = harness.bound_store()
        if bound is None:
            pytest.skip("the harness has no bound store")
        inside, outside = place.join("object"), missing_container.join("object")
        with bound:
            bound.write_bytes(inside, b"1")
            operations: list[Callable[[], object]] = [
                lambda: bound.head(outside),
                lambda: bound.read_raw(outside),
                lambda: bound.write_bytes(outside, b"1"),
                lambda: bound.delete(outside),
                lambda: bound.delete_many([outside]),
                lambda: bound.list_page(outside),
                lambda: bound.copy_raw(inside, outside),
                lambda: bound.copy_raw(outside, inside),
            ]
            if Feature.SIGN_READ in able:
                operations.append(lambda: bound.create_signed_url(outside, SignedURLProperties()))
            for operation in operations:
                with pytest.raises(ContainerNotAllowed) as refused:
                    operation()
                assert is_not_found(refused.value)
            assert bound.read_bytes(inside) == b"1"
            bound.delete(inside)
