"""What ``head`` says."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from datastore.errors import InvalidReference, NotFound
from datastore.model import Metadata, clean_etag
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, content

__all__ = ["HeadTests"]


class HeadTests(KitTests):
    """``head`` tells what is there, says so when nothing is, and hides no failure behind that."""

    def test_head_of_nothing_says_that_nothing_exists(self, store: Store, place: DataReference) -> None:
        """An object that is not there is the default metadata, and no error."""
        assert Metadata() == store.head(place.join("nothing"))
        assert not store.exists(place.join("nothing"))

    def test_head_in_a_missing_container_says_that_nothing_exists(
        self, store: Store, missing_container: DataReference
    ) -> None:
        """What lies in a container that is not there does not exist either."""
        assert Metadata() == store.head(missing_container.join("nothing"))

    def test_head_tells_the_size(self, store: Store, place: DataReference) -> None:
        """The size is that of the content, zero included."""
        for size in (0, 1, 4096):
            ref = place.join(f"size-{size}")
            store.write_bytes(ref, content(size))
            known = store.head(ref)
            assert (True, size) == (known.exists, known.size)

    def test_head_takes_references_and_their_text(self, store: Store, place: DataReference) -> None:
        """A reference and its text name the same object."""
        ref = place.join("by text")
        store.write_bytes(str(ref), b"text")
        assert store.head(ref) == store.head(str(ref))
        assert store.read_bytes(str(ref)) == b"text"

    def test_the_etag_is_bare_and_stable(self, store: Store, place: DataReference) -> None:
        """Write, head, read and list tell one etag, without quotes or weak mark, time and again."""
        ref = place.join("etag")
        written = store.write_bytes(ref, b"etag").etag
        with store.read_raw(ref) as stream:
            read = stream.metadata.etag
        listed = store.list_page(ref).entries[0].etag
        assert written
        assert clean_etag(written) == written
        assert [written] * 3 == [store.head(ref).etag, store.head(ref).etag, read]
        assert listed in ("", written), "a listing may leave the etag out, but not tell another one"

    def test_the_etag_changes_with_the_content(self, store: Store, place: DataReference) -> None:
        """Other bytes of the same length have another etag."""
        ref = place.join("etag")
        old = store.write_bytes(ref, b"one").etag
        new = store.write_bytes(ref, b"two").etag
        assert old != new
        assert new == store.head(ref).etag

    def test_last_modified_is_aware_and_recent(self, store: Store, place: DataReference) -> None:
        """The time of the write has a time zone and is today's, give or take the server's clock."""
        ref = place.join("when")
        store.write_bytes(ref, b"1")
        modified = store.head(ref).last_modified
        assert modified is not None
        assert modified.tzinfo is not None
        assert abs(datetime.now(UTC) - modified) < timedelta(days=1)

    def test_a_prefix_of_a_name_is_not_an_object(self, store: Store, place: DataReference) -> None:
        """``foo`` does not exist because ``foobar`` or ``foo/bar`` do."""
        store.write_bytes(place.join("foobar"), b"bar")
        store.write_bytes(place.join("fox", "den"), b"den")
        for name in ("foo", "fo", "fox", "foobar2"):
            assert not store.head(place.join(name)).exists
            with pytest.raises(NotFound):
                store.read_raw(place.join(name))

    def test_names_differ_by_case(self, store: Store, place: DataReference) -> None:
        """Keys are compared byte by byte."""
        store.write_bytes(place.join("Key"), b"upper")
        assert not store.head(place.join("key")).exists

    def test_metadata_can_be_pickled(self, store: Store, place: DataReference) -> None:
        """What head returns travels between processes."""
        ref = place.join("pickled")
        store.write_bytes(ref, b"1")
        known = store.head(ref)
        assert known == pickle.loads(pickle.dumps(known))  # noqa: S301 - our own bytes

    def test_a_container_is_no_object(self, store: Store, place: DataReference) -> None:
        """References without a key name no object: head, read, write, delete and copy refuse them."""
        container = place.container_reference
        for operation in (
            lambda: store.head(container),
            lambda: store.read_raw(container),
            lambda: store.write_bytes(container, b"1"),
            lambda: store.delete(container),
            lambda: store.copy_raw(container, place.join("copy")),
            lambda: store.copy_raw(place.join("copy"), container),
        ):
            with pytest.raises(InvalidReference):
                operation()
